"""Shadow verification: in spare time, kernels in use are run again on fresh operands beside the reference."""

from __future__ import annotations

from collections.abc import Hashable, Iterable

from tilewright.runtime.bounded import Bounded
from tilewright.runtime.table import Slot

ROUNDS = 2
"""How often a kernel is checked after it was promoted, each time on operands of another seed."""


MOST = 4096
"""Kernels whose checks are remembered: more than a table holds."""


class Shadow:
    """Which kernel to check next, and with which seed: each in use ROUNDS times, the least checked first."""

    def __init__(self, rounds: int = ROUNDS) -> None:
        self._rounds = rounds
        self._checks: Bounded[tuple[Hashable, str], int] = Bounded(MOST)

    def next(self, slots: Iterable[Slot]) -> tuple[Slot, int] | None:
        """A slot whose kernel is due, and a seed that no search and no earlier check used; None if none is due."""
        in_use = [(s, (s.key, s.special.kernel.design.hash)) for s in slots if s.special is not None and not s.fixed]
        due = [(self._checks.get(key, 0), n) for n, (_, key) in enumerate(in_use)]
        least, n = min(due, default=(self._rounds, -1))
        if least >= self._rounds:
            return None
        slot, key = in_use[n]
        self._checks[key] = least + 1
        return slot, 1000 + least


__all__ = ["ROUNDS", "Shadow"]
