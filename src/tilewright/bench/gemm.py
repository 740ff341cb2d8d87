"""`tilewright bench gemm`: designed products beside cuBLAS on one GPU, case by case.

For each case designs are searched with a budget of trials, the winner and the default design are verified, and all are
timed against torch in paired rounds, each as the replay of a CUDA graph, so that no host's pace is part of a time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from tilewright.bench.gemm_cases import GemmCase
from tilewright.bench.gemm_problem import GemmProblem
from tilewright.bench.result import Result, rounded
from tilewright.design.cost.gpu import estimate_gpu
from tilewright.design.default import default_design
from tilewright.design.design import Design
from tilewright.design.search import search
from tilewright.design.trial import Budget, Objective
from tilewright.errors import TilewrightError
from tilewright.machines.machine import Machine
from tilewright.runtime.cuda.dispatch import machine, requested
from tilewright.runtime.cuda.evaluator import GpuEvaluator, Problem
from tilewright.runtime.cuda.measure import captured, compare
from tilewright.runtime.measure import MIN_ROUNDS

_LONG = 2.5e11  # operations that take about a third of a millisecond
_OURS, _DEFAULT, _PEER = "tilewright", "default", "torch"


@dataclass(frozen=True)
class Effort:
    """Trials of each search, rounds of the final timing, and the seed of both."""

    trials: int = 32
    rounds: int = 40
    seed: int = 0


def measure_gemm(cases: Sequence[GemmCase], effort: Effort) -> Iterator[Result]:
    """A result for each case; one that failed says why, and the run goes on."""
    known = machine(0)
    for case in cases:
        try:
            yield _measured(case, effort, known)
        except TilewrightError as error:
            yield Result(case.family, case.name, 1, error=str(error))


def _measured(case: GemmCase, effort: Effort, known: Machine) -> Result:
    setup = GemmProblem(case, effort.seed)
    problem = setup.problem()
    evaluator = GpuEvaluator(problem, rounds=_rounds(case, 9), final_rounds=_rounds(case, 24))
    default = default_design(problem.program.kernel, _facts(problem, known))
    found = search(
        problem.program.kernel, _facts(problem, known), evaluator, budget=Budget(trials=effort.trials),
        objective=Objective(), seed=effort.seed, model=_model(problem, known),
    )  # fmt: skip
    calls: dict[str, Callable[[], object]] = {
        _OURS: evaluator.launch(found.winner), _DEFAULT: evaluator.launch(default), _PEER: setup.peer()
    }  # fmt: skip
    timed = compare(
        {n: captured(call) for n, call in calls.items()}, rounds=_rounds(case, effort.rounds), poison=setup.poison
    )
    setup.redraw()
    setup.poison()
    calls[_OURS]()
    setup.check()
    ratio, of_default = timed.ratio(_PEER, _OURS), timed.ratio(_PEER, _DEFAULT)
    seconds = timed.median_ns(_OURS) * 1e-9
    read = known.memory.read or known.memory.bandwidth
    metrics = {
        "us": seconds * 1e6, "peer_us": timed.median_ns(_PEER) * 1e-3, "tflops": case.flops / seconds * 1e-12,
        "gbs": case.bytes / seconds * 1e-9, "ratio": ratio.median, "ratio_low": ratio.low, "ratio_high": ratio.high,
        "default_ratio": of_default.median, "noise": timed.noise, "trials": len(found.trials),
        "bandwidth": case.bytes / seconds / read if read else 0.0,
    }  # fmt: skip
    raw: dict[str, Any] = {**timed.to_json(), "design": dict(found.winner.decisions)}
    raw["default"] = dict(default.decisions)
    raw["trials"] = [[t.design.hash, t.predicted, t.outcome.seconds, t.outcome.status] for t in found.trials]
    return Result(case.family, case.name, 1, rounded(metrics), raw)


def _rounds(case: GemmCase, wanted: int) -> int:
    """Rounds of a timing: fewer where one call takes so long that launches and clocks hardly show in it."""
    return wanted if case.flops < _LONG else max(MIN_ROUNDS, wanted // 3)


def _facts(problem: Problem, known: Machine) -> Any:
    """What designs may rely on: all sizes of the case, and the layouts."""
    empty = requested(problem.program, problem.layouts, problem.sizes, known, Design(), problem.fixed)
    return empty.facts(known)


def _model(problem: Problem, known: Machine) -> Callable[[Design], float]:
    facts = _facts(problem, known)
    return lambda design: estimate_gpu(problem.program.kernel, design, facts).seconds


__all__ = ["Effort", "measure_gemm"]
