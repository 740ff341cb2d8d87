"""The agenda of a learner: slots that triggered, those first of which most is to be saved for a second of searching.

Where the generic kernel is not the default one of a slot's sizes, a slot is looked at first: the default design for its
sizes beside the generic one. That takes a second and brings most of what there is to be had, so that many slots are
looked at before one of them is searched at length.
"""

from __future__ import annotations

from collections.abc import Hashable

from tilewright.runtime.bounded import Bounded
from tilewright.runtime.table import Slot, Table
from tilewright.runtime.trigger import MOST_FIRED

MOST_DEATHS = 2
"""Deaths of the background process by one shape, after which that shape is given up."""

SAVING = 0.25
"""The share of a generic call that a search is expected to save, where nothing better is known."""

MORE, SLOWER = 0.1, 0.2
"""A long search is expected to save so much of that beyond a first look, or beyond what the book holds; and what it
saves, it saves so many times as slowly."""

DOUBT, LOOK_DOUBT = 0.25, 0.5
"""What is left of that for an operator each time that a search, or a first look, found nothing."""


class Agenda:
    """What is to be designed, and what is known of how much that saves."""

    def __init__(self) -> None:
        self._queue: dict[Slot, tuple[int, float]] = {}  # calls and seconds when it was noted: relations last
        self._deaths: Bounded[Hashable, int] = Bounded(MOST_FIRED)
        self._looked: Bounded[Hashable, bool] = Bounded(MOST_FIRED)
        self._trust: dict[str, float] = {}  # by operator: how much of what was expected its searches saved

    def __len__(self) -> int:
        return len(self._queue)

    def add(self, slot: Slot) -> None:
        """Note a slot that is to be designed."""
        self._queue[slot] = slot.spent

    def drop_evicted(self, table: Table) -> None:
        """Forget those that the table no longer holds."""
        self._queue = {s: spent for s, spent in self._queue.items() if table.get(s.key) is s}

    def next(self) -> Slot | None:
        """Take the slot that is worth most, those that failed before last; queues are short."""
        if not self._queue:
            return None
        best = max(self._queue, key=lambda s: (-self._deaths.get(s.key, 0), self._worth(s), self._queue[s][0]))
        del self._queue[best]
        return best

    def pop_all(self) -> list[Slot]:
        """Take all of them."""
        taken, self._queue = list(self._queue), {}
        return taken

    def saving(self, slot: Slot) -> float:
        """The share of its time that a search may save: what is expected, as far as its operator kept to that."""
        left = MORE if slot.fixed or self.looked(slot) else 1.0
        return left * SAVING * self._trust.get(slot.shape.operator, 1.0)

    def _worth(self, slot: Slot) -> float:
        return (SLOWER if self.looked(slot) else 1.0) * self.saving(slot) * self._queue[slot][1]

    def looked(self, slot: Slot) -> bool:
        """Whether a slot has had its first look."""
        return slot.key in self._looked

    def look_over(self, slot: Slot) -> None:
        """Note that a slot has had its first look: what is left is a long search of it."""
        self._looked[slot.key] = True
        self.add(slot)

    def learnt(self, slot: Slot, promoted: bool, look: bool) -> None:
        """Take in what came of a search, or of a first look."""
        special, operator = slot.special, slot.shape.operator
        trust = self._trust.get(operator, 1.0)
        if promoted and special is not None:
            saved = 1.0 - special.seconds / special.generic_seconds
            self._trust[operator] = max(trust, saved / SAVING)
        else:
            self._trust[operator] = (LOOK_DOUBT if look else DOUBT) * trust

    def died(self, slot: Slot) -> bool:
        """Count a death of the background by a slot, which is tried once more; whether it is given up instead."""
        deaths = self._deaths[slot.key] = self._deaths.get(slot.key, 0) + 1
        if deaths < MOST_DEATHS:
            self.add(slot)
        return deaths >= MOST_DEATHS


__all__ = ["DOUBT", "LOOK_DOUBT", "MORE", "MOST_DEATHS", "SAVING", "SLOWER", "Agenda"]
