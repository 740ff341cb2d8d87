"""`tilewright bench design`: its jobs, and about how long they take."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tilewright.bench.cases import matches, none_fits
from tilewright.bench.design_cases import FAMILIES, KEYS, RACES, DesignCase, grids, speed_cases
from tilewright.bench.plan import Job, Step

BUDGET, QUICK_BUDGET = 10, 4
"""Seconds of each search whose winner is timed beside torch."""

TRIALS, QUICK_TRIALS, SEEDS, QUICK_SEEDS = 48, 24, 5, 3
AGREE_TRIALS, QUICK_KEYS = 48, 5
_TIMED, _COMPILED, _TRIAL, _START = 2.5, 12.0, 0.35, 3.0  # seconds: a comparison, torch.compile, a trial, processes


@dataclass(frozen=True)
class DesignRequest:
    """What to measure: thread counts, a pattern that names or families must fit (None is all), and whether to be quick.

    `amx`: the machine has AMX, and so does torch. A quick run takes fewer shapes, shorter searches, fewer seeds and
    thinner grids: a look, not evidence.
    """

    threads: tuple[int, ...]
    only: str | None = None
    quick: bool = False
    amx: bool = False

    def wants(self, case: DesignCase) -> bool:
        """Whether a case is asked for: by its name, its family, or both (`design_agree softmax*`)."""
        return self.only is None or matches(self.only, case.name, case.family, f"{case.family} {case.name}")

    def speed(self) -> list[DesignCase]:
        """Cases to time beside torch."""
        return [c for c in speed_cases(self.amx) if not (self.quick and c.slow) and self.wants(c)]

    def agree(self) -> list[DesignCase]:
        """Keys to search twice."""
        keys = KEYS[:: -(-len(KEYS) // QUICK_KEYS)] if self.quick else KEYS
        return [c for c in keys if self.wants(c)]


def design_jobs(request: DesignRequest) -> list[Job]:
    """The jobs that `request` asks for, one process each; ArgumentError where nothing fits it."""
    most = max(request.threads)
    jobs = [_speed(request, threads) for threads in request.threads]
    jobs += [_model(request, most), _race(request, most), _agree(request, most)]
    wanted = [job for job in jobs if job.steps]
    if not wanted:
        raise none_fits(request.only, FAMILIES)
    return wanted


def _options(request: DesignRequest) -> dict[str, object]:
    return {"only": request.only, "quick": request.quick}


def _speed(request: DesignRequest, threads: int) -> Job:
    budget = QUICK_BUDGET if request.quick else BUDGET
    around = {True: _COMPILED, False: _TIMED}
    steps = [Step(c.family, c.name, threads, budget + _START + around[c.peer != "torch"]) for c in request.speed()]
    return Job("design_speed", threads, tuple(steps), {**_options(request), "amx": request.amx, "budget": f"{budget}s"})


def _model(request: DesignRequest, threads: int) -> Job:
    wanted = [g.case for g in grids(request.quick) if request.wants(g.case)]
    return Job(
        "design_model", threads, _steps(wanted, threads, (60 if request.quick else 120) * _TRIAL), _options(request)
    )


def _race(request: DesignRequest, threads: int) -> Job:
    trials, seeds = (QUICK_TRIALS, QUICK_SEEDS) if request.quick else (TRIALS, SEEDS)
    wanted = [c for c in RACES if request.wants(c)]
    seconds = _START + trials * (seeds + 1) * _TRIAL + 2 * seeds
    return Job(
        "design_race",
        threads,
        _steps(wanted, threads, seconds),
        {**_options(request), "trials": trials, "seeds": seeds},
    )


def _agree(request: DesignRequest, threads: int) -> Job:
    seconds = 2 * (_START + AGREE_TRIALS * _TRIAL)
    options = {**_options(request), "budget": f"{AGREE_TRIALS} trials"}
    return Job("design_agree", threads, _steps(request.agree(), threads, seconds), options)


def _steps(cases: Sequence[DesignCase], threads: int, seconds: float) -> tuple[Step, ...]:
    return tuple(Step(c.family, c.name, threads, seconds) for c in cases)
