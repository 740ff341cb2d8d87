"""Searches of a few dozen trials beside the best designs known: how near a short search comes to what long ones found.

The known designs are data, `benchmarks/known_products.json`: the name of a case -> decisions of the best designs of the
sweeps that were made on an H200. A process for each core takes one search after the other: it thinks and compiles
while another one measures, for whoever uses the GPU holds a lock.
"""

from __future__ import annotations

import importlib
import multiprocessing
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from tilewright.bench.crew import Crew, Spent
from tilewright.bench.gemm_cases import GemmCase
from tilewright.bench.gemm_problem import GemmProblem
from tilewright.bench.gpu_case import Effort, checked, facts_of, searched, trials_of
from tilewright.bench.result import Result, rounded
from tilewright.design.default import default_design
from tilewright.design.design import Design
from tilewright.design.legality import legal
from tilewright.design.trial import Outcome, Standing
from tilewright.errors import TilewrightError
from tilewright.runtime.cuda.dispatch import machine
from tilewright.runtime.cuda.evaluator import GpuEvaluator
from tilewright.runtime.cuda.measure import captured, compare
from tilewright.runtime.measure import MIN_ROUNDS

FAMILY = "gemm_search"

_LONG = 2.5e11  # operations of a product that takes about a third of a millisecond
_ROUNDS = 80  # of the last comparison: the least of several medians is the lower, the more they scatter
_FOUND, _DEFAULT = "found", "default"

Known = Mapping[str, Sequence[Mapping[str, Any]]]


@dataclass
class _Gpu:
    """The GPU, which one process at a time has to itself, and for how long this one had it."""

    lock: Any = field(default_factory=multiprocessing.get_context("fork").Lock)
    seconds: float = 0.0

    @contextmanager
    def held(self) -> Iterator[None]:
        """The GPU for a while."""
        with self.lock:
            begun = time.monotonic()
            try:
                yield
            finally:
                self.seconds += time.monotonic() - begun


def measure_search(cases: Sequence[GemmCase], known: Known, effort: Effort) -> Iterator[Result]:
    """A result for each case, in whatever order they come; one that failed says why, and the run goes on."""
    importlib.import_module("torch")  # once, for all processes

    gpu = _Gpu()

    def search(case: GemmCase) -> Result:
        try:
            return _measured(case, [dict(d) for d in known.get(case.name, ())], effort, gpu)
        except (TilewrightError, OSError) as error:
            return _failed(case, f"{type(error).__name__}: {error}")
        except RuntimeError as error:  # torch's: the context is lost, and this process with it
            raise Spent(_failed(case, f"{type(error).__name__}: {error}")) from error

    yield from Crew(search, _failed, max(1, len(os.sched_getaffinity(0))), _ready).each(cases)


def _failed(case: GemmCase, why: str) -> Result:
    return Result(case.family, case.name, 1, error=why)


def _ready() -> None:
    """A context, and the libraries that judge: their first use takes seconds, for which nobody holds the GPU."""
    import torch

    x = torch.ones(64, 64, dtype=torch.float64, device="cuda")
    bool((x @ x).isfinite().all())
    machine(0)


class _Alone(GpuEvaluator):
    """An evaluator that has the GPU to itself while it measures, and compiles while others do."""

    gpu: _Gpu

    def _outcome(self, design: Design, error: TilewrightError | None) -> Outcome:
        if error is not None:
            return super()._outcome(design, error)
        with self.gpu.held():
            return super()._outcome(design, error)

    def compare(self, designs: Sequence[Design]) -> list[Standing]:
        """All designs in paired, interleaved rounds."""
        with self.gpu.held():
            return super().compare(designs)


def _measured(case: GemmCase, known: Sequence[dict[str, Any]], effort: Effort, gpu: _Gpu) -> Result:
    gpu.seconds = 0.0
    with gpu.held():
        setup = _drawn(case, effort.seed)
    problem = setup.problem()
    facts = facts_of(problem, machine(0))
    evaluator = _Alone(problem, rounds=_rounds(case, 9), final_rounds=_rounds(case, 24), workers=1)
    evaluator.gpu = gpu
    begun = time.monotonic()
    found = searched(problem, facts, evaluator, effort)
    seconds = time.monotonic() - begun
    kernel = problem.program.kernel
    others = evaluator.usages([d for d in dict.fromkeys(Design.of(k) for k in known) if not legal(kernel, d, facts)])
    designs = {_FOUND: found.winner, _DEFAULT: default_design(kernel, facts)}
    designs |= {f"known{n}": d for n, d in enumerate(others)}
    with gpu.held():
        calls = {who: captured(_right(setup, evaluator, d)) for who, d in designs.items()}
        timed = compare(calls, rounds=_rounds(case, _ROUNDS), poison=setup.poison)
        checked(setup, calls[_FOUND])
    ratios = {who: timed.ratio(who, _FOUND).median for who in designs}
    metrics = {
        "us": timed.median_ns(_FOUND) * 1e-3, "of_best": min(ratios.values()), "of_default": ratios[_DEFAULT],
        "noise": timed.noise, "trials": len(found.trials), "known": len(designs) - 2, "search_s": seconds,
        "gpu_s": gpu.seconds,
    }  # fmt: skip
    raw = {**timed.to_json(), "design": dict(found.winner.decisions), "trials": trials_of(found)}
    raw["designs"] = {who: dict(d.decisions) for who, d in designs.items()}
    return Result(case.family, case.name, 1, rounded(metrics), raw)


def _drawn(case: GemmCase, seed: int) -> GemmProblem:
    """The operands of a case; what the one before took of the GPU's memory is given back first."""
    import torch

    torch.cuda.empty_cache()
    setup = GemmProblem(case, seed)
    torch.cuda.empty_cache()  # what only its reference needed
    return setup


def _right(setup: GemmProblem, evaluator: GpuEvaluator, design: Design) -> Any:
    """The launch of a design, judged first: VerificationError if it is wrong."""
    launch = evaluator.launch(design)
    setup.poison()
    launch()
    setup.check()
    return launch


def _rounds(case: GemmCase, wanted: int) -> int:
    """Rounds of a timing: fewer where one call takes so long that launches and clocks hardly show in it."""
    return wanted if case.flops < _LONG else max(MIN_ROUNDS, wanted // 3)


__all__ = ["FAMILY", "Known", "measure_search"]
