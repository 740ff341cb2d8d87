"""`tilewright bench serve`: its jobs, and about how long they take."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tilewright.bench import serve_dispatch, serve_dynamic, serve_learn, serve_padding
from tilewright.bench.cases import matches, none_fits
from tilewright.bench.plan import Job, Step

FAMILIES = (serve_padding.FAMILY, serve_dynamic.FAMILY, serve_learn.FAMILY, serve_dispatch.FAMILY)
_PASSES, _CONTEST, _LEARNING, _CALLS = 35.0, 45.0, 330.0, 5.0
"""Seconds: a comparison, the contestants once, all of learning, the calls of a library."""


@dataclass(frozen=True)
class ServeRequest:
    """What to measure: a thread count, a pattern that names or families must fit (None is all), whether to be quick.

    On `cuda` all but what a call from Python costs is measured, on a GPU and with larger models.
    """

    threads: int
    only: str | None = None
    quick: bool = False
    device: str = "cpu"

    def steps(self, family: str, names: tuple[str, ...], seconds: float) -> tuple[Step, ...]:
        """Those of the names that are asked for."""
        wanted = [n for n in names if self.only is None or matches(self.only, n, family)]
        return tuple(Step(family, n, self.threads, seconds * (0.2 if self.quick else 1)) for n in wanted)


def serve_jobs(request: ServeRequest) -> list[Job]:
    """The jobs that `request` asks for, one process each; ArgumentError where nothing fits it."""
    device = request.device
    parts: list[tuple[str, tuple[str, ...], float]] = [
        (serve_padding.FAMILY, serve_padding.SETTINGS[device].names, _PASSES),
        (serve_dynamic.FAMILY, (serve_dynamic.SETTINGS[device].name,), 3 * _CONTEST),
        (serve_learn.FAMILY, (serve_learn.SETTINGS[device].name,), _LEARNING),
    ]
    if device == "cpu":
        parts.append((serve_dispatch.FAMILY, serve_dispatch.NAMES, _CALLS))
    jobs = []
    for family, names, seconds in parts:
        steps = request.steps(family, names, seconds)
        options: dict[str, Any] = {"names": [s.name for s in steps], "quick": request.quick}
        options |= {"device": device} if family != serve_dispatch.FAMILY else {}
        jobs.append(Job(family, request.threads, steps, options))
    wanted = [job for job in jobs if job.steps]
    if not wanted:
        raise none_fits(request.only, FAMILIES)
    return wanted


__all__ = ["FAMILIES", "ServeRequest", "serve_jobs"]
