"""`tilewright bench gemm`: its jobs, a process for some cases each, and about how long they take."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tilewright.bench import gemm_ladder
from tilewright.bench.cases import matches, none_fits
from tilewright.bench.gemm_cases import GemmCase, gemm_cases
from tilewright.bench.plan import Job, Step

SEARCH = "gemm_search"
FAMILIES = (
    "gemm_small", "gemm_chain", "gemm_large", "gemm_fused", "gemm_odd", SEARCH, "gemm_launch", gemm_ladder.FAMILY
)  # fmt: skip
LAUNCH = "a call of ops.linear, 16x16x256"
TRIALS = 32

_CASES = 11
"""Cases of one process: one whose kernel takes the context with it fails the rest of its process only."""
_DEFAULTS = 60
"""The same where defaults alone are timed: a process takes longer to begin than to time a dozen of them."""
_START, _TRIAL, _FLOP, _RUNG = 10.0, 0.12, 1.5e14, 1.0  # seconds: a process, a trial, flop/s of trials, a rung
_SEARCH = 1.0  # seconds of a search among others


@dataclass(frozen=True)
class GemmRequest:
    """What to measure: patterns, by commas, of which names or families fit one (None is all); trials of a search.

    `known` is the file of the best designs known.
    """

    only: str | None = None
    trials: int = TRIALS
    known: str = ""

    def wants(self, *names: str) -> bool:
        """Whether results of these names and families are asked for."""
        return self.only is None or any(matches(pattern, *names) for pattern in self.only.split(","))


def gemm_jobs(request: GemmRequest) -> list[Job]:
    """The jobs that `request` asks for; ArgumentError where nothing fits it."""
    cases = [c for c in gemm_cases() if request.wants(c.name, c.family)]
    each = _CASES if request.trials > 1 else _DEFAULTS
    jobs = [_searches(cases[at : at + each], request.trials) for at in range(0, len(cases), each)]
    compared = [c for c in gemm_cases() if not c.links and request.wants(c.name, SEARCH)]
    if compared:
        jobs.append(_compared(compared, request))
    if request.wants("gemm_launch", LAUNCH):
        jobs.append(Job("gemm_launch", 1, (Step("gemm_launch", LAUNCH, 1, _START),)))
    if request.wants(gemm_ladder.FAMILY, *gemm_ladder.names()):
        steps = [Step(gemm_ladder.FAMILY, name, 1, _RUNG) for name in gemm_ladder.names()]
        jobs.append(Job("gemm_ladder", 1, tuple(steps)))
    if not jobs:
        raise none_fits(request.only, FAMILIES)
    return jobs


def _searches(cases: Sequence[GemmCase], trials: int) -> Job:
    seconds = [trials * (_TRIAL + 20 * c.flops / _FLOP) + (_START if n == 0 else 0.0) for n, c in enumerate(cases)]
    steps = [Step(c.family, c.name, 1, s) for c, s in zip(cases, seconds, strict=True)]
    wanted = [[c.family, c.name] for c in cases]
    return Job("gemm", 1, tuple(steps), {"cases": wanted, "trials": trials})


def _compared(cases: Sequence[GemmCase], request: GemmRequest) -> Job:
    """Searches beside the best designs known, several at a time in one process."""
    steps = [Step(SEARCH, c.name, 1, _SEARCH + request.trials * 20 * c.flops / _FLOP) for c in cases]
    names = [c.name for c in cases]
    return Job(SEARCH, 1, tuple(steps), {"names": names, "trials": request.trials, "known": request.known})


__all__ = ["FAMILIES", "TRIALS", "GemmRequest", "gemm_jobs"]
