"""`tilewright bench rows`: its jobs, a process for some cases each, and about how long they take."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tilewright.bench.cases import matches, none_fits
from tilewright.bench.plan import Job, Step
from tilewright.bench.rows_cases import FAMILIES, RowCase, row_cases

TRIALS = 16
_CASES = 12
"""Cases of one process: one whose kernel takes the context with it fails the rest of its process only."""
_START, _TRIAL, _AROUND = 15.0, 0.15, 4.0  # seconds: a process, a trial, torch.compile and the final timing


@dataclass(frozen=True)
class RowsRequest:
    """What to measure: a pattern that names or families must fit (None is all), and the trials of each search."""

    only: str | None = None
    trials: int = TRIALS

    def wants(self, *names: str) -> bool:
        """Whether results of these names and families are asked for."""
        return self.only is None or matches(self.only, *names)


def rows_jobs(request: RowsRequest) -> list[Job]:
    """The jobs that `request` asks for; ArgumentError where nothing fits it."""
    cases = [c for c in row_cases() if request.wants(c.name, c.family)]
    if not cases:
        raise none_fits(request.only, FAMILIES)
    return [_job(cases[at : at + _CASES], request.trials) for at in range(0, len(cases), _CASES)]


def _job(cases: Sequence[RowCase], trials: int) -> Job:
    seconds = [trials * _TRIAL + _AROUND + (_START if n == 0 else 0.0) for n in range(len(cases))]
    steps = [Step(c.family, c.name, 1, s) for c, s in zip(cases, seconds, strict=True)]
    return Job("rows", 1, tuple(steps), {"cases": [[c.family, c.name] for c in cases], "trials": trials})


__all__ = ["TRIALS", "RowsRequest", "rows_jobs"]
