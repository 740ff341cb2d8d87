"""A metapipeline as plain data: stages, the buffers between them, and the shared resources they take turns on.

After Koeplinger et al., PLDI 2018 (Spatial), and Prabhakar et al., ISCA 2017 (Plasticine). Times are in whatever
unit the caller counts in; cycles here, seconds in `chips`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import pairwise

from tilewright.errors import ArgumentError

Time = float


@dataclass(frozen=True)
class Stage:
    """One stage: how long each of its firings takes.

    `latency` passes after a firing's `time` before its result is there; the next firing does not wait for it (a
    memory that answers late but takes requests at once). A stage with a `resource` holds it for the first `hold` of
    each firing (one time, or one for each), and stages that share one take turns. `inner` is the pipeline inside the
    stage, for pictures.
    """

    name: str
    times: tuple[Time, ...]
    latency: Time = 0
    resource: str | None = None
    hold: Time | tuple[Time, ...] = 0
    inner: Pipeline | None = None

    @property
    def firings(self) -> int:
        """How often it fires."""
        return len(self.times)

    def held(self, firing: int) -> Time:
        """How long a firing holds the resource."""
        return self.hold[firing] if isinstance(self.hold, tuple) else self.hold


@dataclass(frozen=True)
class Channel:
    """What `source` makes and `target` uses: `depth` buffers of it (None: without bound).

    Firing i of the target needs firing i - `lag` of the source. Where one of them fires more often, each firing of
    the rarer one stands for as many of the other. A depth of d lets the source be d firings ahead of what the
    target has finished.
    """

    source: int
    target: int
    depth: int | None = 2
    lag: int = 0
    name: str = ""


@dataclass(frozen=True)
class Pipeline:
    """Stages and the channels between them."""

    stages: tuple[Stage, ...]
    channels: tuple[Channel, ...]
    name: str = "pipeline"

    def __post_init__(self) -> None:
        if not self.stages:
            raise ArgumentError("a pipeline has at least one stage")
        for stage in self.stages:
            if min((*stage.times, stage.latency, *map(stage.held, range(stage.firings)))) < 0:
                raise ArgumentError(f"stage {stage.name} takes a negative time; times and latencies are 0 or more")
        for channel in self.channels:
            self._check(channel)

    def _check(self, channel: Channel) -> None:
        if channel.depth is not None and channel.depth < 1:
            raise ArgumentError(
                f"channel {channel.name or channel}: depth {channel.depth}; a buffer has a slot or more"
            )
        if channel.lag < 0 or not all(0 <= s < len(self.stages) for s in (channel.source, channel.target)):
            raise ArgumentError(f"channel {channel.name or channel} names no two of {len(self.stages)} stages")


def chain(
    times: Iterable[Time | Iterable[Time]], trips: int, depth: int | Iterable[int] = 2, names: Iterable[str] = ()
) -> Pipeline:
    """Stages one after the other, `depth` buffers between neighbours (one number, or one for each gap).

    Each of `times` is the time of every firing, or the times of firing 0, 1, ..., repeated to `trips`.
    """
    per_stage = [_repeated(t, trips) for t in times]
    depths = [depth] * (len(per_stage) - 1) if isinstance(depth, int) else list(depth)
    labels = list(names) or [f"stage{j}" for j in range(len(per_stage))]
    stages = tuple(Stage(n, t) for n, t in zip(labels, per_stage, strict=True))
    channels = tuple(Channel(j, j + 1, b, name=labels[j]) for j, b in enumerate(depths))
    return Pipeline(stages, channels)


def _repeated(time: Time | Iterable[Time], trips: int) -> tuple[Time, ...]:
    cycle = (time,) if isinstance(time, (int, float)) else tuple(time)
    return tuple(cycle[i % len(cycle)] for i in range(trips))


def nested(inner: Pipeline, makespan: Time, trips: int, name: str = "") -> Stage:
    """`inner` as one stage: each firing runs it from empty to drained, which takes `makespan`."""
    return Stage(name or inner.name, (makespan,) * trips, inner=inner)


def undrained(outer: Pipeline, at: int, inner: Pipeline) -> Pipeline:
    """`outer` with its stage `at` replaced by the stages of `inner`, which never drains between firings of `outer`.

    before:  A tiles -> [B tiles -> dot -> store, from empty to drained]
    after:   A tiles -> B tiles -> dot -> store, in which an A tile lasts as long as its B tiles
    """
    trips = outer.stages[at].firings
    grown = tuple(
        replace(s, times=s.times * trips, hold=s.hold * trips if isinstance(s.hold, tuple) else s.hold)
        for s in inner.stages
    )
    last = len(grown) - 1

    def moved(channel: Channel, end: int) -> Channel:
        source, target = (
            j if j < at else j + last if j > at else at + place
            for j, place in ((channel.source, last), (channel.target, end))
        )
        return replace(channel, source=source, target=target)

    # What enters the inner pipeline is awaited by its first stage, and in use until its last one is through.
    entering = [moved(c, last) for c in outer.channels if c.target == at and last]
    around = [*(moved(c, 0) for c in outer.channels), *entering]
    within = [replace(c, source=c.source + at, target=c.target + at) for c in inner.channels]
    return Pipeline((*outer.stages[:at], *grown, *outer.stages[at + 1 :]), (*around, *within), outer.name)


# ------------------------------------------------------------------------------------------ closed forms
def sequential(times: Iterable[Time], trips: int) -> Time:
    """No overlap at all: N sum(t)."""
    return trips * sum(times)


def pipelined(times: Iterable[Time], trips: int, depth: int = 2) -> Time:
    """A chain with constant times: sum(t) + (N - 1) max(t), or max(t_j + t_(j+1)) where buffers are one deep."""
    t = list(times)
    if not trips:
        return 0
    slowest = max(t) if depth > 1 or len(t) == 1 else max(a + b for a, b in pairwise(t))
    return sum(t) + (trips - 1) * slowest
