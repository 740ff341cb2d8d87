"""Ragged batches: sequences of different lengths in one block of memory, and no work on what lies behind their ends.

Operators that treat each position alone (linear, norms, activations, rope) run on rows that exist, packed; attention
takes the lengths themselves, and its loop over keys ends at each, or where sequences begin (`ops.varlen_attention`).
Blocks of memory may be padded as one likes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from tilewright.errors import ArgumentError


@dataclass(frozen=True)
class Tiles:
    """Tiles of a padded batch: those with a position in them, and those that are skipped."""

    visited: int
    skipped: int

    @property
    def share(self) -> float:
        """The part of all tiles that is skipped."""
        whole = self.visited + self.skipped
        return self.skipped / whole if whole else 0.0


class Ragged:
    """The true lengths of a batch [B, room, ...]; `room` is the longest length unless given.

    ArgumentError for lengths that are negative or beyond the room.
    """

    def __init__(self, lengths: Sequence[int] | npt.NDArray[Any], room: int | None = None) -> None:
        self.lengths: npt.NDArray[np.int32] = np.asarray(lengths, np.int32)
        self.room = int(self.lengths.max(initial=0)) if room is None else room
        if self.lengths.ndim != 1 or self.lengths.min(initial=0) < 0 or self.lengths.max(initial=0) > self.room:
            raise ArgumentError(f"lengths of a ragged batch must be a list of numbers from 0 to its room, {self.room}")
        self._exists = np.arange(self.room) < self.lengths[:, None]

    @staticmethod
    def padded(lengths: Sequence[int], block: int) -> Ragged:
        """With room for the longest, rounded up to a multiple of `block`."""
        return Ragged(lengths, -(-max(lengths, default=0) // block) * block)

    @property
    def tokens(self) -> int:
        """Positions that exist."""
        return int(self.lengths.sum())

    @property
    def starts(self) -> npt.NDArray[np.int32]:
        """Where each sequence begins once it is packed, and where the last one ends: [B + 1]."""
        return np.concatenate([np.zeros(1, np.int32), np.cumsum(self.lengths, dtype=np.int32)])

    def pack(self, x: Any) -> Any:
        """x[B, room, ...] -> [tokens, ...]: the rows that exist, one sequence after the other (a copy)."""
        self._fits("x", x, (len(self.lengths), self.room))
        return x[self._exists]

    def unpack(self, rows: Any, out: Any) -> Any:
        """[tokens, ...] -> `out`[B, room, ...], whose positions that do not exist stay as they are."""
        self._fits("rows", rows, (self.tokens,))
        self._fits("out", out, (len(self.lengths), self.room))
        out[self._exists] = rows
        return out

    def tiles(self, tile: int) -> Tiles:
        """How many tiles of `tile` positions a loop that ends at each true length visits, and skips of the room."""
        visited = int((-(-self.lengths // tile)).sum())
        return Tiles(visited, len(self.lengths) * -(-self.room // tile) - visited)

    def _fits(self, name: str, x: Any, shape: tuple[int, ...]) -> None:
        if tuple(x.shape[: len(shape)]) != shape:
            raise ArgumentError(f"ragged batch: {name} has the shape {tuple(x.shape)}; it must begin with {shape}")


__all__ = ["Ragged", "Tiles"]
