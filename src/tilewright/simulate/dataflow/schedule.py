"""When each stage of a metapipeline fires: event simulation with tokens and credits.

A stage starts when what it needs is full, what it fills has a free slot (a credit), its last firing is over and the
resource it shares is free. Ties go to the earlier firing, then to the earlier stage.
"""

from __future__ import annotations

import heapq
from collections import defaultdict
from dataclasses import dataclass

from tilewright.errors import ArgumentError
from tilewright.simulate.dataflow.pipeline import Channel, Pipeline, Time


@dataclass(frozen=True)
class Schedule:
    """Start and finish of every firing: `start[stage][firing]`."""

    pipeline: Pipeline
    start: tuple[tuple[Time, ...], ...]
    finish: tuple[tuple[Time, ...], ...]

    @property
    def makespan(self) -> Time:
        """From the first start to the last finish."""
        return max((f[-1] for f in self.finish if f), default=0)

    @property
    def interval(self) -> float:
        """The initiation interval: time between results of the last stage, over its second half."""
        last = self.finish[-1]
        half = len(last) // 2
        return (last[-1] - last[half]) / (len(last) - 1 - half) if len(last) - 1 > half else float(self.makespan)

    @property
    def busy(self) -> tuple[float, ...]:
        """Which part of the makespan each stage works."""
        whole = self.makespan or 1
        return tuple(sum(s.times) / whole for s in self.pipeline.stages)

    @property
    def critical(self) -> str:
        """The stage that works most of the time: the one to split, or to give more units."""
        return self.pipeline.stages[max(range(len(self.busy)), key=lambda j: self.busy[j])].name

    def occupancy(self, channel: Channel) -> tuple[int, float]:
        """Most slots of a channel's buffer that are in use at once, and how many are on average."""
        taken = [(self.start[channel.source][i], 1) for i in range(len(self.start[channel.source]))]
        freed = [(self._freed(channel, i), -1) for i in range(len(taken))]
        held, most, area, before = 0, 0, 0.0, 0.0
        for at, change in sorted([*taken, *freed]):
            area += held * (at - before)
            held, before = held + change, at
            most = max(most, held)
        return most, area / self.makespan if self.makespan else 0.0

    def _freed(self, channel: Channel, firing: int) -> Time:
        n, m = (self.pipeline.stages[s].firings for s in (channel.source, channel.target))
        last = needed(firing, n, m) + channel.lag
        return self.finish[channel.target][last] if last < m else self.makespan


def needed(firing: int, of: int, other: int) -> int:
    """The firing of a stage with `other` firings that is over when `firing` of one with `of` firings may be."""
    return ((firing + 1) * other - 1) // of


def simulate(pipeline: Pipeline) -> Schedule:
    """The schedule of a pipeline. ArgumentError where it would stand still for ever."""
    run = _Run(pipeline)
    run.go()
    stuck = [s.name for s, at in zip(pipeline.stages, run.start, strict=True) if len(at) < s.firings]
    if stuck:
        raise ArgumentError(f"{pipeline.name} deadlocks: {', '.join(stuck)} wait for each other; deepen their buffers")
    return Schedule(pipeline, tuple(map(tuple, run.start)), tuple(map(tuple, run.finish)))


class _Run:
    """The state of one simulation: what has started, what is over, and what happens next."""

    def __init__(self, pipeline: Pipeline) -> None:
        self.stages = pipeline.stages
        count = len(self.stages)
        self.start: list[list[Time]] = [[] for _ in range(count)]
        self.finish: list[list[Time]] = [[] for _ in range(count)]
        self.done = [0] * count  # firings whose results are there
        self.free: list[Time] = [0] * count
        self.held: dict[str, Time] = defaultdict(float)
        self.events: list[Time] = [0]
        self.endings: list[tuple[Time, int]] = []
        self.fills = [[c for c in pipeline.channels if c.source == j] for j in range(count)]
        self.reads = [[c for c in pipeline.channels if c.target == j] for j in range(count)]

    def go(self) -> None:
        while self.events:
            now = heapq.heappop(self.events)
            while self.events and self.events[0] == now:
                heapq.heappop(self.events)
            while self.endings and self.endings[0][0] <= now:
                self.done[heapq.heappop(self.endings)[1]] += 1
            while self.fire(now):
                pass

    def fire(self, now: Time) -> bool:
        """Start every stage that can start; whether any firing was over at once, so that more may start."""
        again = False
        for j in sorted(range(len(self.stages)), key=lambda j: (len(self.start[j]), j)):
            if self.ready(j, now):
                again |= self.begin(j, now)
        return again

    def ready(self, j: int, now: Time) -> bool:
        stage, firing = self.stages[j], len(self.start[j])
        if firing >= stage.firings or self.free[j] > now:
            return False
        if stage.resource is not None and self.held[stage.resource] > now:
            return False
        return all(self.full(c, firing) for c in self.reads[j]) and all(self.credit(c, firing) for c in self.fills[j])

    def full(self, channel: Channel, firing: int) -> bool:
        """Whether what `firing` of the target needs is there."""
        source, target = (self.stages[s].firings for s in (channel.source, channel.target))
        return firing < channel.lag or self.done[channel.source] > needed(firing - channel.lag, target, source)

    def credit(self, channel: Channel, firing: int) -> bool:
        """Whether `firing` of the source finds a free slot."""
        if channel.depth is None or firing < channel.depth:
            return True
        source, target = (self.stages[s].firings for s in (channel.source, channel.target))
        return self.done[channel.target] > needed(firing - channel.depth, source, target) + channel.lag

    def begin(self, j: int, now: Time) -> bool:
        stage, firing = self.stages[j], len(self.start[j])
        self.free[j] = now + stage.times[firing]
        over = self.free[j] + stage.latency
        self.start[j].append(now)
        self.finish[j].append(over)
        if stage.resource is not None:
            self.held[stage.resource] = now + stage.held(firing)
            heapq.heappush(self.events, self.held[stage.resource])
        heapq.heappush(self.events, self.free[j])
        if over == now:
            self.done[j] += 1
            return True
        heapq.heappush(self.events, over)
        heapq.heappush(self.endings, (over, j))
        return False
