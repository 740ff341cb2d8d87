"""`tilewright bench attention`: designed attention beside cuDNN on one GPU, case by case.

For each case designs are searched with a budget of trials, the winner and the default design are verified, and all are
timed against torch in paired rounds, each as the replay of a CUDA graph, so that no host's pace is part of a time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from tilewright.bench.attention_cases import AttentionCase
from tilewright.bench.attention_problem import AttentionProblem
from tilewright.bench.gpu_case import Effort, checked, each_case, facts_of, searched, trials_of
from tilewright.bench.result import Result, rounded
from tilewright.design.default import Facts, default_design
from tilewright.design.design import Design
from tilewright.design.gpu.chain import chain
from tilewright.design.gpu.chain_design import shortlist
from tilewright.machines.machine import Machine
from tilewright.runtime.cuda.dispatch import machine
from tilewright.runtime.cuda.evaluator import GpuEvaluator, Problem
from tilewright.runtime.cuda.measure import captured, compare

_SHORT = 8
"""Trials from which on designs are searched, beside those that were good at some shape."""
_OURS, _DEFAULT, _PEER = "tilewright", "default", "torch"


def measure_attention(cases: Sequence[AttentionCase], effort: Effort) -> Iterator[Result]:
    """A result for each case; one that failed says why, and the run goes on."""
    known = machine(0)
    return each_case(cases, lambda case: _measured(case, effort, known))


def _measured(case: AttentionCase, effort: Effort, known: Machine) -> Result:
    setup = AttentionProblem(case, effort.seed)
    problem = setup.problem()
    facts = facts_of(problem, known)
    evaluator = GpuEvaluator(problem, rounds=5, final_rounds=12)
    default = default_design(problem.program.kernel, facts)
    winner, trials = _shortlisted(problem, facts, default, evaluator, effort.trials)
    if effort.trials > _SHORT:
        found = searched(problem, facts, evaluator, effort)
        winner = found.winner
        trials += trials_of(found)
    calls: dict[str, Callable[[], object]] = {
        _OURS: evaluator.launch(winner), _DEFAULT: evaluator.launch(default), _PEER: setup.peer()
    }  # fmt: skip
    timed = compare({n: captured(call) for n, call in calls.items()}, rounds=effort.rounds, poison=setup.poison)
    checked(setup, calls[_OURS])
    ratio, of_default = timed.ratio(_PEER, _OURS), timed.ratio(_PEER, _DEFAULT)
    seconds = timed.median_ns(_OURS) * 1e-9
    peer = timed.median_ns(_PEER) * 1e-9
    metrics = {
        "us": seconds * 1e6, "peer_us": peer * 1e6, "tflops": case.flops / seconds * 1e-12,
        "peer_tflops": case.flops / peer * 1e-12, "ratio": ratio.median, "ratio_low": ratio.low,
        "ratio_high": ratio.high, "default_ratio": of_default.median, "noise": timed.noise, "trials": len(trials),
    }  # fmt: skip
    raw: dict[str, Any] = {**timed.to_json(), "design": dict(winner.decisions), "default": dict(default.decisions)}
    raw["trials"] = trials
    return Result(case.family, case.name, 1, rounded(metrics), raw)


def _shortlisted(
    problem: Problem, facts: Facts, default: Design, evaluator: GpuEvaluator, most: int
) -> tuple[Design, list[list[Any]]]:
    """The fastest of the default design and others that were good at some shape, and what was tried."""
    designs = list(dict.fromkeys([default, *candidates(problem, facts, most)]))[:most]
    outcomes = evaluator.evaluate(designs)
    tried = [[d.hash, None, o.seconds, o.status] for d, o in zip(designs, outcomes, strict=True)]
    works = [(o.seconds, n) for n, o in enumerate(outcomes) if o.status == "ok" and o.seconds is not None]
    return (designs[min(works)[1]] if works else default), tried


def candidates(problem: Problem, facts: Facts, most: int) -> list[Design]:
    """Designs on the matrix unit that are worth a trial."""
    kernel = problem.program.kernel
    found = chain(kernel)
    return [] if isinstance(found, str) else shortlist(kernel, found, facts, most)


__all__ = ["candidates", "measure_attention"]
