"""`tilewright bench attention`: its jobs, a process for some cases each, and about how long they take."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tilewright.bench.attention_cases import AttentionCase, attention_cases
from tilewright.bench.cases import matches, none_fits
from tilewright.bench.packed_cases import FAMILY, PackedCase, packed_cases
from tilewright.bench.plan import Job, Step

FAMILIES = ("attention_prefill", "attention_prompts", FAMILY)
TRIALS = 16
_CASES = 24
"""Cases of one process: one whose kernel takes the context with it fails the rest of its process only."""
_START, _TRIAL, _FLOP = 10.0, 0.3, 4e14  # seconds: a process, a trial; flop/s of trials


@dataclass(frozen=True)
class AttentionRequest:
    """What to measure: a pattern that names or families must fit (None is all), and the trials of each search."""

    only: str | None = None
    trials: int = TRIALS


def attention_jobs(request: AttentionRequest) -> list[Job]:
    """The jobs that `request` asks for; ArgumentError where nothing fits it."""

    def wanted(case: AttentionCase | PackedCase) -> bool:
        return request.only is None or matches(request.only, case.name, case.family)

    cases, packed = list(filter(wanted, attention_cases())), list(filter(wanted, packed_cases()))
    if not cases and not packed:
        raise none_fits(request.only, FAMILIES)
    jobs = [_job(cases[at : at + _CASES], request.trials) for at in range(0, len(cases), _CASES)]
    return [*jobs, _packed(packed)] if packed else jobs


def _job(cases: Sequence[AttentionCase], trials: int) -> Job:
    seconds = [trials * (_TRIAL + 20 * c.flops / _FLOP) + (_START if n == 0 else 0.0) for n, c in enumerate(cases)]
    steps = [Step(c.family, c.name, 1, s) for c, s in zip(cases, seconds, strict=True)]
    wanted = [[c.family, c.name] for c in cases]
    return Job("attention", 1, tuple(steps), {"cases": wanted, "trials": trials})


def _packed(cases: Sequence[PackedCase]) -> Job:
    """Those call what a user calls: nothing is searched."""
    steps = [Step(c.family, c.name, 1, _START if n == 0 else 1.0) for n, c in enumerate(cases)]
    return Job("attention_packed", 1, tuple(steps), {"names": [c.name for c in cases]})


__all__ = ["FAMILIES", "TRIALS", "AttentionRequest", "attention_jobs"]
