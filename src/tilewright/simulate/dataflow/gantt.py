"""The schedule of a metapipeline as a timeline: a row for each stage, inner pipelines below their stage."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

from tilewright.simulate.dataflow.pipeline import Pipeline
from tilewright.simulate.dataflow.schedule import Schedule, simulate
from tilewright.simulate.simulation import Chart, Span

FIRINGS, FEW, MANY_STAGES = 12, 3, 20
"""Firings of each stage that are drawn, FEW of many stages: they show how a pipeline fills; later ones look alike."""


def gantt(schedule: Schedule, title: str, firings: int | None = None) -> Chart:
    """The first firings of every stage, in cycles; up to where the firings of an inner pipeline are drawn."""
    shown = firings or (FEW if _stages(schedule.pipeline) > MANY_STAGES else FIRINGS)
    ends: list[float] = []
    spans = list(_rows(schedule, 0, "", shown, ends))
    end = min(ends, default=math.inf)
    return Chart(title, "cycles", "stage", spans=tuple(_until(s, end) for s in spans), kind="timeline")


def _stages(pipeline: Pipeline) -> int:
    return sum(1 if s.inner is None else 1 + _stages(s.inner) for s in pipeline.stages)


def _until(span: Span, end: float) -> Span:
    """What lies before `end` of a bar; one of no length, which only keeps its row, where nothing does."""
    start = min(span.start, end)
    return replace(span, start=start, length=min(span.length, end - start) if span.start < end else 0.0)


def _rows(schedule: Schedule, at: float, path: str, firings: int, ends: list[float]) -> Iterator[Span]:
    """The bars of a pipeline that starts at `at`; `ends` collects where inner pipelines are cut off."""
    for stage, starts in zip(schedule.pipeline.stages, schedule.start, strict=True):
        name = f"{path}{stage.name}"
        for start, time in zip(starts[:firings], stage.times, strict=False):
            yield Span(name, at + start, time, schedule.pipeline.name)
        if stage.inner is not None:
            within = simulate(stage.inner)
            most = max(s.firings for s in stage.inner.stages)
            for start in starts[: max(1, firings // 6)]:
                yield from _rows(within, at + start, f"{name}/", firings, ends)
                if most > firings and len(starts) == 1:
                    ends.append(at + start + max(finish[:firings][-1] for finish in within.finish if finish))
