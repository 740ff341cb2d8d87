"""`tilewright bench decode`: designed attention of one query a request, beside torch's on one GPU.

For each case designs are searched with a budget of trials; the winner and the default design are timed against cuDNN
and FlashAttention in paired rounds, each as the replay of a CUDA graph. Ratios are to the better of the two. What reads
pages is timed beside the default design for the same requests in rows, too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from tilewright.bench.cases import matches, none_fits
from tilewright.bench.decode_cases import DecodeCase, decode_cases
from tilewright.bench.decode_problem import DecodeProblem
from tilewright.bench.gpu_case import Effort, checked, each_case, facts_of, searched, trials_of
from tilewright.bench.plan import Job, Step
from tilewright.bench.result import Result, rounded
from tilewright.design.default import default_design
from tilewright.machines.machine import Machine
from tilewright.runtime.cuda.dispatch import machine
from tilewright.runtime.cuda.evaluator import GpuEvaluator, Problem
from tilewright.runtime.cuda.measure import captured, compare

FAMILIES = ("attention_decode", "attention_paged", "attention_ragged", "attention_fp8")
TRIALS = 16
_OURS, _DEFAULT, _ROWS = "tilewright", "default", "rows"
_CASES = 8
"""Cases of one process: one whose kernel takes the context with it fails the rest of its process only."""
_START, _TRIAL = 10.0, 0.3  # seconds: a process, a trial


@dataclass(frozen=True)
class DecodeRequest:
    """What to measure: a pattern that names or families must fit (None is all), and the trials of each search."""

    only: str | None = None
    trials: int = TRIALS


def decode_jobs(request: DecodeRequest) -> list[Job]:
    """The jobs that `request` asks for; ArgumentError where nothing fits it."""
    cases = [c for c in decode_cases() if request.only is None or matches(request.only, c.name, c.family)]
    if not cases:
        raise none_fits(request.only, FAMILIES)
    return [_job(cases[at : at + _CASES], request.trials) for at in range(0, len(cases), _CASES)]


def _job(cases: Sequence[DecodeCase], trials: int) -> Job:
    seconds = [trials * _TRIAL + (_START if n == 0 else 1.0) for n in range(len(cases))]
    steps = [Step(c.family, c.name, 1, s) for c, s in zip(cases, seconds, strict=True)]
    return Job("attention_decode", 1, tuple(steps), {"cases": [[c.family, c.name] for c in cases], "trials": trials})


def measure_decode(cases: Sequence[DecodeCase], effort: Effort) -> Iterator[Result]:
    """A result for each case; one that failed says why, and the run goes on."""
    known = machine(0)
    return each_case(cases, lambda case: _measured(case, effort, known))


def _measured(case: DecodeCase, effort: Effort, known: Machine) -> Result:
    setup = DecodeProblem(case, effort.seed)
    problem = setup.problem()
    facts = facts_of(problem, known)
    evaluator = GpuEvaluator(problem, rounds=7, final_rounds=16)
    default = default_design(problem.program.kernel, facts)
    found = searched(problem, facts, evaluator, effort) if effort.trials > 1 else None
    winner, trials = (found.winner, trials_of(found)) if found else (default, [])
    calls: dict[str, Callable[[], object]] = {_OURS: evaluator.launch(winner), _DEFAULT: evaluator.launch(default)}
    peers = setup.peers()
    beside, rows = _in_rows(case, effort, known) if case.page else (None, {})
    timed = compare(
        {n: captured(call) for n, call in {**calls, **rows, **peers}.items()}, rounds=effort.rounds, poison=setup.poison
    )
    checked(setup, calls[_OURS])
    del beside  # its operands lived as long as graphs that read them
    peer = min(peers, key=timed.median_ns)
    ratio, of_default = timed.ratio(peer, _OURS), timed.ratio(peer, _DEFAULT)
    seconds = timed.median_ns(_OURS) * 1e-9
    read = known.memory.read or known.memory.bandwidth
    metrics = {
        "us": seconds * 1e6, "peer_us": timed.median_ns(peer) * 1e-3, "gbs": case.bytes / seconds * 1e-9,
        "bandwidth": case.bytes / seconds / read if read else 0.0, "ratio": ratio.median, "ratio_low": ratio.low,
        "ratio_high": ratio.high, "default_ratio": of_default.median, "noise": timed.noise, "trials": len(trials),
    }  # fmt: skip
    if rows:
        metrics["of_rows"] = timed.ratio(_ROWS, _OURS).median
    raw: dict[str, Any] = {**timed.to_json(), "design": dict(winner.decisions), "default": dict(default.decisions)}
    raw |= {"peer": peer, "trials": trials}
    return Result(case.family, case.name, 1, rounded(metrics), raw)


def _in_rows(case: DecodeCase, effort: Effort, known: Machine) -> tuple[Problem, dict[str, Callable[[], object]]]:
    """The same requests with keys and values one after the other, and the default design for them."""
    problem = DecodeProblem(replace(case, page=0), effort.seed).problem()
    default = default_design(problem.program.kernel, facts_of(problem, known))
    return problem, {_ROWS: GpuEvaluator(problem).launch(default)}


__all__ = ["FAMILIES", "TRIALS", "DecodeRequest", "decode_jobs", "measure_decode"]
