"""What steers an array, cycle by cycle: a queue of tiles that memory fills, one that is shifted in, one that streams.

It knows nothing of the closed form, which has to agree with it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction

from tilewright.simulate.systolic.plan import Plan


@dataclass(frozen=True)
class Times:
    """When the tile of a fold began to move into the cells, when its stream began, and how many steps it has."""

    shift: int
    start: int
    steps: int


@dataclass
class Control:
    """The state of the machine around the cells: folds are counted, and cycles left of what is under way."""

    plan: Plan
    now: int = 0
    fetching: Fraction = Fraction(0)  # cycles until the next tile is in the queue
    fetched: int = 1  # tiles that memory has delivered; the first lies ready
    freed: int = 0  # tiles that have left the queue
    shifting: int = 0
    streaming: int = 0
    draining: int = 0
    waiting: int = 0
    shifted: int = 0  # folds whose tile is in the cells
    began_shift: int = 0
    done: list[Times] = field(default_factory=list)

    def run(self) -> list[Times]:
        """Every cycle until the last result is out; the times of all folds."""
        self.fetching = self.plan.fetch_cycles
        folds = list(self.plan.passes())
        self.waiting = folds[0][1]
        while len(self.done) < len(folds) or self.streaming or self.draining:
            self._begin(folds)
            self._tick()
        return self.done

    @property
    def cycles(self) -> int:
        """Cycles that have passed; without overlap as SCALE-Sim counts, from 0."""
        return self.now if self.plan.overlaps else self.now - 1

    def _begin(self, folds: list[tuple[int, int]]) -> None:
        """What can begin in this cycle begins: a stream, the shift of the tile after it, a stream that needs none."""
        self._stream(folds)
        self._fetch(Fraction(0))
        if self._may_shift(len(folds)):
            self.began_shift, self.shifting = self.now, self._shift_cycles
            self.shifted += 1
        if not self._shift_cycles:
            self._stream(folds)

    def _stream(self, folds: list[tuple[int, int]]) -> None:
        if not self._may_stream():
            return
        steps, _ = folds[len(self.done)]
        self.done.append(Times(self.began_shift, self.now, steps))
        self.streaming, self.draining = steps, self.plan.array.rows + self.plan.array.columns - 2
        self.waiting = folds[len(self.done)][1] if len(self.done) < len(folds) else 0
        if self._shift_cycles:
            self.freed += 1

    def _may_shift(self, folds: int) -> bool:
        begun = len(self.done)
        ready = self.shifted < folds and self.fetched > self.shifted and not self.shifting and self.shifted == begun
        if self.plan.overlaps:
            return ready
        return ready and not (self.streaming or self.draining or self.waiting)

    def _may_stream(self) -> bool:
        idle = not (self.streaming or self.waiting or self.shifting)
        return self.shifted > len(self.done) and idle and (self.plan.overlaps or not self.draining)

    @property
    def _shift_cycles(self) -> int:
        return 0 if self.plan.flow == "os" else self.plan.array.rows

    def _tick(self) -> None:
        """One cycle passes."""
        self._fetch(Fraction(1))
        self.now += 1
        self.shifting -= self.shifting > 0
        streamed, drained = self.streaming > 0, self.draining > 0
        self.streaming -= streamed
        self.draining -= drained and not streamed
        self.waiting -= self.waiting > 0 and not streamed and (self.plan.overlaps or not drained)
        if not self._shift_cycles and self.freed < len(self.done) and not self.streaming:
            self.freed += self.plan.overlaps or not self.draining  # what streams stays in the queue until then

    def _fetch(self, cycles: Fraction) -> None:
        """Memory delivers for that long, as far as the queue has room."""
        while self.fetched - self.freed < self.plan.fifo and self.fetching <= cycles:
            cycles -= self.fetching
            self.fetched += 1
            self.fetching = self.plan.fetch_cycles
            if self.fetching == 0 and self.fetched > self.plan.folds:
                return
        if self.fetched - self.freed < self.plan.fifo:
            self.fetching -= cycles
