"""`tilewright bench gemm`: its jobs, a process for some cases each, and about how long they take."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tilewright.bench import gemm_ladder
from tilewright.bench.cases import matches, none_fits
from tilewright.bench.gemm_cases import GemmCase, gemm_cases
from tilewright.bench.plan import Job, Step
from tilewright.errors import ArgumentError

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

    `known` is the file of the best designs known. `share` = (i, n) takes every n-th of the cases, from the i-th on (1
    is the first): as many machines, or calls, measure a share each.
    """

    only: str | None = None
    trials: int = TRIALS
    known: str = ""
    share: tuple[int, int] = (1, 1)

    def wants(self, *names: str) -> bool:
        """Whether results of these names and families are asked for."""
        return self.only is None or any(matches(pattern, *names) for pattern in self.only.split(","))

    def cases(self, family: str | None = None) -> list[GemmCase]:
        """The share of those cases that are asked for by name, or by family (each case's own, where None is given)."""
        found = [c for c in gemm_cases() if (not family or not c.links) and self.wants(c.name, family or c.family)]
        return found[self.share[0] - 1 :: self.share[1]]


def share_of(text: str) -> tuple[int, int]:
    """`1/2` as (1, 2); ArgumentError for what is no share."""
    first, _, of = text.partition("/")
    if not (first.isdecimal() and of.isdecimal() and 1 <= int(first) <= int(of)):
        raise ArgumentError(f"--share {text}: write which share and of how many, as in 1/2 and 2/2")
    return int(first), int(of)


def gemm_jobs(request: GemmRequest) -> list[Job]:
    """The jobs that `request` asks for; ArgumentError where nothing fits it."""
    cases = request.cases()
    each = _CASES if request.trials > 1 else _DEFAULTS
    jobs = [_searches(cases[at : at + each], request.trials) for at in range(0, len(cases), each)]
    compared = request.cases(SEARCH)
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


__all__ = ["FAMILIES", "TRIALS", "GemmRequest", "gemm_jobs", "share_of"]
