"""The table from shapes to kernels: a slot for each, whose kernel is exchanged by one assignment; bounded.

Launches hold their slot and look at `special` at each call: an assignment to it is a swap for all of them at once, at
the boundary of a call. A call under way keeps the kernel that it began with, and so keeps its code in memory.
"""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from typing import Any

from tilewright.runtime.buckets import Exact, Place, Range, Shape
from tilewright.runtime.events import tell
from tilewright.runtime.monitor import Tally
from tilewright.runtime.polite import breathe

CAPACITY = 1024
"""Slots of a table; each is a few hundred bytes and at most one kernel of its own."""

MOST_SIZES = 32
"""Exact sizes that a slot tells apart; further ones count together."""


@dataclass(frozen=True, eq=False)
class Special:
    """A kernel for the shapes of one slot: what it was measured at, its seconds there and those of the generic one.

    Which kind of kernel it is, of a CPU or a GPU, follows from the slot's origin.
    """

    kernel: Any
    sizes: Exact
    seconds: float
    generic_seconds: float


@dataclass(frozen=True)
class Row:
    """A slot as people look at it; `hits` are the calls that a special kernel answered, `seconds` those of one call."""

    shape: Shape
    sizes: Exact
    calls: int
    hits: int
    misses: int
    swaps: int
    state: str
    design: str | None
    generic_seconds: float | None
    seconds: float | None
    saved_seconds: float
    reason: str


@dataclass(eq=False)
class Slot:
    """What is known of one shape. `special` is None while the generic kernel answers.

    `origin` is what a search of it starts from (see `learner`).
    """

    key: Hashable
    shape: Shape
    place: Place
    origin: Any
    special: Special | None = None
    state: str = "generic"
    reason: str = "not called often enough yet"
    swaps: int = 0
    version: ctypes.c_int64 = field(default_factory=ctypes.c_int64)
    """Another number after each swap, for compiled code to look at."""
    fixed: bool = False
    """Whether the book, and no search of this process, chose its kernel."""
    _sizes: dict[Exact, Tally] = field(default_factory=dict)
    _others: Tally = field(default_factory=Tally)
    _before: tuple[int, int] = (0, 0)  # hits of special kernels before this one, and calls when this one came

    def tally(self, sizes: Exact) -> Tally:
        """What counts the calls of these exact sizes."""
        found = self._sizes.get(sizes)
        if found is None:
            found = self._sizes.setdefault(sizes, Tally()) if len(self._sizes) < MOST_SIZES else self._others
        return found

    @property
    def calls(self) -> int:
        """Calls so far."""
        return self.spent[0]

    @property
    def spent(self) -> tuple[int, float]:
        """Calls so far, and the seconds of all of them by the sizes whose calls were timed; 0 before any was."""
        calls = known = 0
        seconds = 0.0
        for tally in [*self._sizes.values(), self._others]:
            breathe()
            count = tally.value
            calls += count
            if tally.seconds:
                known += count
                seconds += count * tally.seconds
        return calls, seconds * calls / known if known else 0.0

    @property
    def hits(self) -> int:
        """Calls since a special kernel is in use, and of earlier ones."""
        return self._hits_of(self.calls)

    def _hits_of(self, calls: int) -> int:
        """Hits when there had been so many calls: of one reading of the counters, as calls go on meanwhile."""
        hits, since = self._before
        return hits + (calls - since if self.special is not None else 0)

    @property
    def saved(self) -> float:
        """Seconds that its calls took less than generic ones would have."""
        s = self.special
        return 0.0 if s is None else self.hits * (s.generic_seconds - s.seconds)

    @property
    def seconds(self) -> float:
        """Seconds of all calls so far, as far as is known."""
        return self.spent[1]

    @property
    def common(self) -> Exact:
        """The exact sizes whose calls took the most time, or are the most; () before the first call is bound."""
        return max(self.met, key=lambda s: (self._sizes[s].total, self._sizes[s].value), default=())

    @property
    def met(self) -> tuple[Exact, ...]:
        """Exact sizes that were met, the first MOST_SIZES of them."""
        return tuple(self._sizes)

    def swap(self, special: Special | None, state: str, reason: str) -> None:
        """Answer by another kernel from each next call on; None is the generic one."""
        calls = self.calls
        self._before = self._hits_of(calls), calls
        self.special = special
        self.version.value += 1
        global _swaps
        _swaps += 1  # after the kernel is there: who sees the number sees the kernel
        for tally in [*self._sizes.values(), self._others]:
            tally.seconds = 0.0  # what was timed is the kernel before
        self.swaps += 1
        self.state, self.reason = state, reason

    def row(self) -> Row:
        """What it is like now."""
        special, calls = self.special, self.calls
        hits = min(self.hits, calls)
        design = None if special is None else special.kernel.design.hash
        before, after = (None, None) if special is None else (special.generic_seconds, special.seconds)
        return Row(
            self.shape, self.common, calls, hits, calls - hits, self.swaps, self.state,
            design, before, after, self.saved, self.reason,
        )  # fmt: skip


class Table:
    """The slots of a process, at most `capacity`: when one more is needed, the least valuable tenth makes room.

    A slot is worth the seconds that its kernel saved; among those that saved none, the calls that it had. A launch
    whose slot was evicted goes on with the generic kernel.
    """

    def __init__(self, capacity: int = CAPACITY) -> None:
        self.capacity, self.evictions = capacity, 0
        self._slots: dict[Hashable, Slot] = {}
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._slots)

    def get(self, key: Hashable) -> Slot | None:
        """The slot of a key."""
        return self._slots.get(key)

    def add(self, slot: Slot) -> Slot:
        """The slot of its key: this one, or the one that another thread was quicker to add."""
        with self._lock:
            found = self._slots.setdefault(slot.key, slot)
            if len(self._slots) > self.capacity:
                self._make_room(found)
        return found

    def slots(self) -> tuple[Slot, ...]:
        """All of them, the first met first."""
        with self._lock:
            return tuple(self._slots.values())

    def rows(self) -> tuple[Row, ...]:
        """Every slot as people look at it, the most valuable first."""
        return tuple(s.row() for s in sorted(self.slots(), key=_worth, reverse=True))

    def why(self, operator: str, **sizes: int) -> tuple[Row, ...]:
        """The rows of an operator whose sizes these may be, as far as they are given; none if it was never called."""
        fitting = [s for s in self.slots() if s.shape.operator == operator and _fits(dict(s.place), sizes)]
        return tuple(s.row() for s in sorted(fitting, key=_worth, reverse=True))

    def clear(self) -> None:
        """Forget every slot: launches are to be bound anew (`rebind.forget`)."""
        with self._lock:
            self._slots.clear()

    def after_fork(self) -> None:
        """In a child that was forked while another thread held the lock."""
        self._lock = threading.Lock()

    def _make_room(self, newest: Slot) -> None:
        worth = {id(s): _worth(s) for s in self._slots.values()}
        old = sorted((s for s in self._slots.values() if s is not newest), key=lambda s: worth[id(s)])
        for slot in old[: max(1, self.capacity // 10)]:
            del self._slots[slot.key]
            self.evictions += 1
            if slot.special is not None:
                slot.swap(None, "generic", "evicted: others save more")
                tell("evict", slot.shape, slot.reason)


_swaps = 0


def swaps() -> int:
    """Another number after each swap of any slot: for what would have to look at many of them."""
    return _swaps


def _worth(slot: Slot) -> tuple[float, int]:
    return slot.saved, slot.calls


def _fits(place: Mapping[str, int | Range], sizes: Mapping[str, int]) -> bool:
    return all(d in place and _holds(place[d], n) for d, n in sizes.items())


def _holds(known: int | Range, size: int) -> bool:
    return size in known if isinstance(known, Range) else size == known


TABLE = Table()
"""The table of this process."""

__all__ = ["CAPACITY", "MOST_SIZES", "TABLE", "Row", "Slot", "Special", "Table", "swaps"]
