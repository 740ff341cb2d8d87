"""Swaps on purpose: while a trace is served, slots get other designs that pinned numerics allow, one after another.

What a search finds within a minute is a matter of luck; that a swap leaves every bit as it was is not, and is to be
seen with many swaps to many designs. Designs come from random steps in the space, faster or not.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterator
from typing import Any

from tilewright.design.design import Design
from tilewright.design.pinned import differs
from tilewright.design.space import random_step
from tilewright.errors import TilewrightError
from tilewright.runtime import dispatch, rebind
from tilewright.runtime.background_worker import subject_of
from tilewright.runtime.events import tell
from tilewright.runtime.learner import job_of
from tilewright.runtime.table import Slot, Special

PERIOD = 0.2
"""Seconds between two swaps."""
_STEPS, _MOST = 60, 4


class Shaker:
    """A thread that swaps until it is stopped. `designs` are those that were put in a slot."""

    def __init__(self, seed: int = 0) -> None:
        self.designs: set[Design] = set()
        self._chance, self._ended = random.Random(seed), threading.Event()
        self._ways: dict[int, Iterator[Special]] = {}
        self._thread = threading.Thread(target=self._run, name="shaker", daemon=True)

    def start(self) -> Shaker:
        """Begin."""
        self._thread.start()
        return self

    def stop(self) -> None:
        """End; the kernels that are in use stay."""
        self._ended.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._ended.is_set():
            slots = [s for s in dispatch.TABLE.slots() if s.common]
            for slot in self._chance.sample(slots, len(slots)):
                special = next(self._ways.setdefault(id(slot), self._specials(slot)), None)
                if special is not None and self._ended.wait(PERIOD) is False:
                    self._swap(slot, special)
            self._ended.wait(PERIOD)

    def _swap(self, slot: Slot, special: Special) -> None:
        slot.swap(special, "specialised", "put there to see whether a bit changes")
        if special.kernel.bound_for_good:
            rebind.forget()
        self.designs.add(special.kernel.design)
        tell("shake", slot.shape, special.kernel.design.hash)

    def _specials(self, slot: Slot) -> Iterator[Special]:
        """Kernels of other designs that keep all bits, as long as random steps find some, made when asked for."""
        job = job_of(slot)
        if job is None:
            return
        sizes, origin = dict(slot.common), slot.origin
        subject, start = subject_of(job), origin.generic_design(sizes)
        for design in _alike(subject, start, self._chance):
            try:
                kernel = origin.load(slot.place, sizes, design)
            except TilewrightError:  # legal by the rules, and the compiler knows better
                continue
            if not differs(subject.kernel, design, start):
                yield Special(kernel, slot.common, 1.0, 1.0)


def _alike(subject: Any, start: Design, chance: random.Random) -> Iterator[Design]:
    design, found = start, {start}
    for _ in range(_STEPS):
        step = random_step(subject.kernel, design, subject.facts, chance)
        if step is not None and not differs(subject.kernel, step[1], start) and step[1] not in found:
            design = step[1]
            found.add(design)
            yield design
        if len(found) > _MOST:
            return


def shaken(seconds: float, serve: Any) -> tuple[list[Any], int]:
    """What `serve()` gave, again and again for some seconds while slots are swapped; to how many designs."""
    until, found, shaker = time.monotonic() + seconds, list[Any](), Shaker().start()
    try:
        while time.monotonic() < until:
            found.append(serve())
    finally:
        shaker.stop()
    return found, len(shaker.designs)


__all__ = ["PERIOD", "Shaker", "shaken"]
