"""The schedule of a metapipeline as a timeline: a row for each stage, inner pipelines below their stage."""

from __future__ import annotations

from collections.abc import Iterator

from tilewright.simulate.dataflow.schedule import Schedule, simulate
from tilewright.simulate.simulation import Chart, Span

FIRINGS = 12
"""Firings of each stage that are drawn: the first ones show how a pipeline fills, and all later ones look alike."""


def gantt(schedule: Schedule, title: str, firings: int = FIRINGS) -> Chart:
    """The first firings of every stage, in cycles."""
    return Chart(title, "cycles", "stage", spans=tuple(_rows(schedule, 0, "", firings)), kind="timeline")


def _rows(schedule: Schedule, at: float, path: str, firings: int) -> Iterator[Span]:
    for stage, starts in zip(schedule.pipeline.stages, schedule.start, strict=True):
        name = f"{path}{stage.name}"
        for start, time in zip(starts[:firings], stage.times, strict=False):
            yield Span(name, at + start, time, schedule.pipeline.name)
        if stage.inner is not None:
            within = simulate(stage.inner)
            for start in starts[: max(1, firings // 6)]:
                yield from _rows(within, at + start, f"{name}/", firings)
