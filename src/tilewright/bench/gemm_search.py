"""Searches of a few dozen trials beside the best designs known: how near a short search comes to what long ones found.

The known designs are data, `benchmarks/known_products.json`: the name of a case -> decisions of the best designs of the
sweeps that were made on an H200. Searches are dealt to processes, so that one compiles or thinks while another one
measures; who uses the GPU holds a lock.
"""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.pool import Pool
from typing import Any

from tilewright.bench.gemm_cases import GemmCase
from tilewright.bench.gemm_problem import GemmProblem
from tilewright.bench.gpu_case import Effort, checked, facts_of, searched, trials_of
from tilewright.bench.result import Result, rounded
from tilewright.build.cuda_kernel import CudaBinary, build_cuda
from tilewright.build.kernel_cache import Request
from tilewright.design.default import default_design
from tilewright.design.design import Design
from tilewright.design.legality import legal
from tilewright.design.trial import Outcome, Standing
from tilewright.errors import TilewrightError
from tilewright.machines.machine import Machine
from tilewright.runtime.cuda.dispatch import machine, requested
from tilewright.runtime.cuda.evaluator import GpuEvaluator
from tilewright.runtime.cuda.measure import captured, compare
from tilewright.runtime.measure import MIN_ROUNDS

FAMILY = "gemm_search"

_SEARCHES, _BUILDERS = 8, 3  # at a time, and processes of each that compile
_LONG = 2.5e11  # operations of a product that takes about a third of a millisecond
_FOUND, _DEFAULT = "found", "default"

Known = Mapping[str, Sequence[Mapping[str, Any]]]


@dataclass
class _Here:
    """What a process of searches has: the lock on the GPU, and processes that compile."""

    lock: Any
    builders: Pool


_here: list[_Here] = []


def measure_search(cases: Sequence[GemmCase], known: Known, effort: Effort) -> Iterator[Result]:
    """A result for each case, in whatever order they come; one that failed says why, and the run goes on."""
    context = multiprocessing.get_context("fork")  # before this process has a context on the GPU
    cores = len(os.sched_getaffinity(0))
    with ProcessPoolExecutor(max(1, min(_SEARCHES, cores // 2)), context, _begin, (context.Lock(),)) as pool:
        asked: dict[Future[Result], GemmCase] = {
            pool.submit(_measured, c, [dict(d) for d in known.get(c.name, ())], effort): c for c in cases
        }
        for done in as_completed(asked):
            case = asked[done]
            try:
                yield done.result()
            except (TilewrightError, OSError, RuntimeError) as error:
                yield Result(case.family, case.name, 1, error=f"{type(error).__name__}: {error}")


def _begin(lock: Any) -> None:
    """A process of searches: those that compile for it are there before it has a context."""
    _here[:] = [_Here(lock, multiprocessing.get_context("fork").Pool(_BUILDERS))]


def _compiled(job: tuple[Request, Machine]) -> None:
    """Into the cache on disk; what cannot be compiled says so again where it is asked for."""
    with suppress(TilewrightError):
        build_cuda(*job)


class _Alone(GpuEvaluator):
    """An evaluator that compiles in other processes and has the GPU to itself while it measures."""

    def _build(self, designs: Sequence[Design]) -> list[CudaBinary | TilewrightError]:
        p, known = self.problem, machine(self.problem.device)
        jobs = [(requested(p.program, p.layouts, p.sizes, known, d, p.fixed), known) for d in designs]
        _here[0].builders.map(_compiled, jobs, chunksize=1)
        return super()._build(designs)

    def _outcome(self, design: Design, error: TilewrightError | None) -> Outcome:
        with _here[0].lock:
            return super()._outcome(design, error)

    def compare(self, designs: Sequence[Design]) -> list[Standing]:
        """All designs in paired, interleaved rounds."""
        with _here[0].lock:
            return super().compare(designs)


def _measured(case: GemmCase, known: Sequence[dict[str, Any]], effort: Effort) -> Result:
    with _here[0].lock:
        setup = GemmProblem(case, effort.seed)
    problem = setup.problem()
    facts = facts_of(problem, machine(0))
    evaluator = _Alone(problem, rounds=_rounds(case, 9), final_rounds=_rounds(case, 24))
    begun = time.monotonic()
    found = searched(problem, facts, evaluator, effort)
    seconds = time.monotonic() - begun
    kernel = problem.program.kernel
    others = [d for d in dict.fromkeys(Design.of(k) for k in known) if not legal(kernel, d, facts)]
    designs = {_FOUND: found.winner, _DEFAULT: default_design(kernel, facts)}
    designs |= {f"known{n}": d for n, d in enumerate(others)}
    evaluator._build(list(designs.values()))
    with _here[0].lock:
        calls = {who: captured(_right(setup, evaluator, d)) for who, d in designs.items()}
        timed = compare(calls, rounds=_rounds(case, effort.rounds), poison=setup.poison)
        checked(setup, calls[_FOUND])
    ratios = {who: timed.ratio(who, _FOUND).median for who in designs}
    metrics = {
        "us": timed.median_ns(_FOUND) * 1e-3, "of_best": min(ratios.values()), "of_default": ratios[_DEFAULT],
        "noise": timed.noise, "trials": len(found.trials), "search_s": seconds, "known": len(others),
    }  # fmt: skip
    raw = {**timed.to_json(), "design": dict(found.winner.decisions), "trials": trials_of(found)}
    raw["designs"] = {who: dict(d.decisions) for who, d in designs.items()}
    return Result(case.family, case.name, 1, rounded(metrics), raw)


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
