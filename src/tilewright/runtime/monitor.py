"""The monitor: exact counts of calls by shape, from any number of threads, without a lock on the way of a call.

A counter is an `itertools.count`, whose `next` is one step of the interpreter: no call is lost and none counted twice.
"""

from __future__ import annotations

import ctypes
import itertools
import threading
from collections.abc import Callable

from tilewright.runtime.buckets import Shape

SAMPLE = 31
"""Of each so many calls and one more of the same sizes the second is timed: the first of all may meet cold memory."""


_folding = threading.RLock()


class Counter:
    """Counts how often `add` was called; `add` is bound once and costs what a call of a C function costs.

    Compiled code counts in `words`.
    """

    __slots__ = ("_count", "_folded", "_others", "add", "words")

    def __init__(self) -> None:
        self._count, self.words = itertools.count(), ctypes.c_int64()
        self.add: Callable[[], int] = self._count.__next__
        self._others: tuple[tuple[Counter, int], ...] = ()
        self._folded = 0

    @property
    def value(self) -> int:
        """How often so far."""
        own = int(repr(self._count)[6:-1]) + self.words.value  # "count(5)": what the next call would get
        if not self._others and not self._folded:
            return own
        with _folding:
            total = own + self._folded
            for other, times in self._others:
                total += other.value * times
            return total

    def follow(self, other: Counter, times: int) -> None:
        """Count `times` calls with each call that `other` counts: those of a pass that is queued as one."""
        with _folding:
            self._others = (*self._others, (other, times))

    def leave(self, other: Counter) -> None:
        """Keep what `other` has counted, which counts no more."""
        with _folding:
            self._folded += sum(other.value * times for o, times in self._others if o is other)
            self._others = tuple(pair for pair in self._others if pair[0] is not other)


class Tally(Counter):
    """Counts calls, and keeps what the quickest of those that were timed took: a sample of them is."""

    __slots__ = ("seconds",)

    def __init__(self) -> None:
        super().__init__()
        self.seconds = 0.0
        """Of a call; 0 before one was timed."""

    def took(self, seconds: float) -> None:
        """Note a call that was timed. What else runs on a machine only ever adds to it, so that the least counts."""
        self.seconds = min(seconds, self.seconds or seconds)

    @property
    def total(self) -> float:
        """Seconds of all its calls, as far as is known."""
        return self.value * self.seconds


class Monitor:
    """Calls by shape. Shapes are few, as they hold ranges: operators times some ten batch and ten length ranges."""

    def __init__(self) -> None:
        self._counters: dict[Shape, Counter] = {}
        self._lock = threading.Lock()

    def counter(self, shape: Shape) -> Counter:
        """The counter of a shape: asked for when a call is bound, used at each call."""
        found = self._counters.get(shape)
        if found is None:
            with self._lock:
                found = self._counters.setdefault(shape, Counter())
        return found

    def counts(self) -> dict[Shape, int]:
        """Calls so far of each shape that was called."""
        return {shape: n for shape, counter in [*self._counters.items()] if (n := counter.value)}

    def reset(self) -> None:
        """Start from 0; calls that are bound already go on counting where nobody reads."""
        with self._lock:
            self._counters = {}

    def after_fork(self) -> None:
        """In a child that was forked while another thread held the lock."""
        self._lock = threading.Lock()


MONITOR = Monitor()
"""The monitor of this process."""

__all__ = ["MONITOR", "SAMPLE", "Counter", "Monitor", "Tally"]
