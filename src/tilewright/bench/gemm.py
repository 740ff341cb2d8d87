"""`tilewright bench gemm`: designed products beside cuBLAS on one GPU, case by case.

For each case designs are searched with a budget of trials, the winner and the default design are verified, and all are
timed against torch in paired rounds, each as the replay of a CUDA graph, so that no host's pace is part of a time.
Products of few rows are timed as links of a chain too (`gemm_chain`): what each adds to a graph.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from tilewright.bench.gemm_cases import GemmCase
from tilewright.bench.gemm_chain import chain
from tilewright.bench.gemm_problem import GemmProblem
from tilewright.bench.gpu_case import Effort, checked, each_case, facts_of, searched, trials_of
from tilewright.bench.result import Result, rounded
from tilewright.design.default import default_design
from tilewright.design.design import Design
from tilewright.machines.machine import Machine
from tilewright.runtime.cuda.dispatch import machine
from tilewright.runtime.cuda.evaluator import GpuEvaluator
from tilewright.runtime.cuda.measure import captured, compare
from tilewright.runtime.measure import MIN_ROUNDS, Comparison

_LONG = 2.5e11  # operations that take about a third of a millisecond
_OURS, _DEFAULT, _PEER = "tilewright", "default", "torch"


def measure_gemm(cases: Sequence[GemmCase], effort: Effort) -> Iterator[Result]:
    """A result for each case; one that failed says why, and the run goes on."""
    known = machine(0)
    return each_case(cases, lambda case: _measured(case, effort, known))


def _measured(case: GemmCase, effort: Effort, known: Machine) -> Result:
    setup = GemmProblem(case, effort.seed)
    problem = setup.problem()
    evaluator = GpuEvaluator(problem, rounds=_rounds(case, 9), final_rounds=_rounds(case, 24))
    facts = facts_of(problem, known)
    default = default_design(problem.program.kernel, facts)
    found = searched(problem, facts, evaluator, effort)
    calls: dict[str, Callable[[], object]] = {
        _OURS: evaluator.launch(found.winner), _DEFAULT: evaluator.launch(default), _PEER: setup.peer()
    }  # fmt: skip
    timed = (
        _in_a_chain(case, effort, found.winner, default)
        if case.links
        else compare(
            {n: captured(call) for n, call in calls.items()}, rounds=_rounds(case, effort.rounds), poison=setup.poison
        )
    )
    checked(setup, calls[_OURS])
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
    raw["trials"] = trials_of(found)
    return Result(case.family, case.name, 1, rounded(metrics), raw)


def _in_a_chain(case: GemmCase, effort: Effort, winner: Design, default: Design) -> Comparison:
    """What a product adds to a graph of them."""
    links = chain(case, effort.seed, {_OURS: winner, _DEFAULT: default}, _PEER)
    timed = links.timed(_rounds(case, effort.rounds))
    links.checked(_OURS)
    return timed


def _rounds(case: GemmCase, wanted: int) -> int:
    """Rounds of a timing: fewer where one call takes so long that launches and clocks hardly show in it."""
    return wanted if case.flops < _LONG else max(MIN_ROUNDS, wanted // 3)


__all__ = ["measure_gemm"]
