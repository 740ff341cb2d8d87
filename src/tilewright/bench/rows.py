"""`tilewright bench rows`: row operators on one GPU beside torch, eager and compiled, and beside the copy of a tensor.

For each case designs are searched with a budget of trials, the winner and the default design are verified, and all are
timed in paired rounds from a cold L2 cache. Every call waits behind a pause of the GPU until the host has queued it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from tilewright.bench.result import Result, rounded
from tilewright.bench.rows_cases import RowCase
from tilewright.bench.rows_problem import RowProblem
from tilewright.design.default import Facts, default_design
from tilewright.design.design import Design
from tilewright.design.search import search
from tilewright.design.trial import Budget, Objective
from tilewright.errors import TilewrightError
from tilewright.machines.machine import Machine
from tilewright.runtime.cuda.dispatch import machine, requested
from tilewright.runtime.cuda.evaluator import GpuEvaluator, Problem
from tilewright.runtime.cuda.measure import compare, median_ns

_OURS, _DEFAULT, _COMPILED, _EAGER = "tilewright", "default", "torch.compile", "torch"
_COPIED = 1 << 29
"""Bytes of the tensor whose copy is the yardstick: far more than the L2 cache holds."""


@dataclass(frozen=True)
class Effort:
    """Trials of each search (0: the default design alone), rounds of the final timing, and the seed of both."""

    trials: int = 16
    rounds: int = 30
    seed: int = 0


def measure_rows(cases: Sequence[RowCase], effort: Effort) -> Iterator[Result]:
    """A result for each case; one that failed says why, and the run goes on."""
    known, copied = machine(0), copy_rate()
    for case in cases:
        try:
            yield _measured(case, effort, known, copied)
        except TilewrightError as error:
            yield Result(case.family, case.name, 1, error=str(error))


def copy_rate() -> float:
    """Bytes a second, read and written, of torch's copy of a tensor, in this process."""
    import torch

    x = torch.empty(_COPIED // 4, dtype=torch.float32, device="cuda").normal_()
    y = torch.empty_like(x)
    return 2 * _COPIED / (median_ns(lambda: y.copy_(x), rounds=15) * 1e-9)


def _measured(case: RowCase, effort: Effort, known: Machine, copied: float) -> Result:
    import torch

    torch._dynamo.reset()
    setup = RowProblem(case, effort.seed)
    problem = setup.problem()
    facts = facts_of(problem, known)
    default = default_design(problem.program.kernel, facts)
    evaluator = GpuEvaluator(problem)
    winner, trials = _searched(problem, facts, evaluator, effort) if effort.trials else (default, ())
    calls: dict[str, Callable[[], object]] = {
        _OURS: evaluator.launch(winner), _DEFAULT: evaluator.launch(default),
        _COMPILED: setup.peer(compiled=True), _EAGER: setup.peer(compiled=False),
    }  # fmt: skip
    timed = compare(calls, rounds=effort.rounds, poison=setup.poison, pause=True)
    setup.redraw()
    setup.poison()
    calls[_OURS]()
    setup.check()
    seconds, ratio = timed.median_ns(_OURS) * 1e-9, timed.ratio(_COMPILED, _OURS)
    rate = case.bytes / seconds
    metrics = {
        "us": seconds * 1e6, "peer_us": timed.median_ns(_COMPILED) * 1e-3, "eager_us": timed.median_ns(_EAGER) * 1e-3,
        "gbs": rate * 1e-9, "of_copy": rate / copied, "copy_gbs": copied * 1e-9, "ratio": ratio.median,
        "ratio_low": ratio.low, "ratio_high": ratio.high, "eager_ratio": timed.ratio(_EAGER, _OURS).median,
        "default_ratio": timed.ratio(_COMPILED, _DEFAULT).median, "noise": timed.noise, "trials": len(trials),
    }  # fmt: skip
    raw: dict[str, Any] = {**timed.to_json(), "design": dict(winner.decisions), "default": dict(default.decisions)}
    raw["trials"] = [[t.design.hash, t.predicted, t.outcome.seconds, t.outcome.status] for t in trials]
    return Result(case.family, case.name, 1, rounded(metrics), raw)


def facts_of(problem: Problem, known: Machine) -> Facts:
    """All sizes of the case and the layouts; those sizes fixed that become a part of the kernel."""
    empty = requested(problem.program, problem.layouts, problem.sizes, known, Design(), problem.fixed)
    return replace(empty.facts(known), sizes=dict(problem.sizes))


def _searched(problem: Problem, facts: Facts, evaluator: GpuEvaluator, effort: Effort) -> tuple[Design, Sequence[Any]]:
    from tilewright.design.cost.model import estimate

    kernel = problem.program.kernel
    found = search(
        kernel, facts, evaluator, budget=Budget(trials=effort.trials), objective=Objective(), seed=effort.seed,
        model=lambda design: estimate(kernel, design, facts).seconds,
    )  # fmt: skip
    return found.winner, found.trials


__all__ = ["Effort", "copy_rate", "facts_of", "measure_rows"]
