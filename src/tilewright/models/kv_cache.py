"""The keys and values of the tokens seen so far: one row per sequence, contiguous along the tokens.

Rows and tokens are added as they are needed, so a model with a context of 128k tokens costs no more than what its
conversations hold. Growing moves memory: `layout` then changes, and whoever bound addresses must bind again.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import count

import numpy as np
import numpy.typing as npt

from tilewright.errors import ContextError
from tilewright.models.memory import HOST, Array, Memory

CHUNK = HOST.grain  # tokens; capacity grows in multiples of it, by at least half
_layouts = count()
Scales = tuple[Array | None, Array | None]


class KVCache:
    """`keys[layer]` and `values[layer]`, each [rows, kv_heads, capacity, head_dim]; `lengths` i32[rows] tokens held.

    Invariant: `lengths[row] <= capacity <= limit` and `rows <= max_rows`. What lies at or beyond a row's length is
    undefined. `layout` numbers the memory that the arrays lie in: no two caches, and no cache twice, have the same.
    `scales[layer]`: what keys and values of each head are multiples of, f32[kv_heads] each, in a cache of 8 bits;
    a pair of None in any other.
    """

    def __init__(
        self,
        layers: int,
        kv_heads: int,
        head_dim: int,
        dtype: npt.DTypeLike,
        *,
        limit: int,
        max_rows: int = 1,
        memory: Memory = HOST,
        scales: Sequence[Scales] = (),
    ) -> None:
        self.scales: tuple[Scales, ...] = tuple(scales) or ((None, None),) * layers
        self.limit = limit
        self.max_rows = max_rows
        self.layout = next(_layouts)
        self.lengths: npt.NDArray[np.int32] = np.zeros(0, np.int32)
        self._memory = memory
        self._dtype = np.dtype(dtype)
        self._marks: Array | None = None
        empty = (0, kv_heads, 0, head_dim)
        self.keys: list[Array] = [memory.empty(empty, dtype) for _ in range(layers)]
        self.values: list[Array] = [memory.empty(empty, dtype) for _ in range(layers)]

    @property
    def rows(self) -> int:
        """Sequences that there is room for."""
        return len(self.lengths)

    @property
    def capacity(self) -> int:
        """Tokens that there is room for in every row."""
        return int(self.keys[0].shape[2])

    @property
    def bytes(self) -> int:
        """Bytes allocated; pages never written are not resident."""
        return sum(array.nbytes for array in (*self.keys, *self.values))

    def marks(self, vocab: int) -> Array:
        """i32[max_rows, vocab]: which tokens each sequence has, for penalties; zeros until somebody writes them."""
        if self._marks is None:
            self._marks = self._memory.zeros((self.max_rows, vocab), np.int32)
        return self._marks

    def reserve(self, rows: int, tokens: int) -> None:
        """Make room for `rows` sequences of `tokens` tokens each; ContextError beyond `limit` tokens or `max_rows`."""
        if tokens > self.limit:
            raise ContextError(f"{tokens} tokens do not fit the context of {self.limit}; shorten the prompt")
        if rows > self.max_rows:
            raise ContextError(f"{rows} sequences do not fit the {self.max_rows} rows of this cache; raise max_batch")
        if rows <= self.rows and tokens <= self.capacity:
            return
        capacity = self.capacity
        if tokens > capacity:
            grain = self._memory.grain
            capacity = min(self.limit, -(-max(tokens, capacity + capacity // 2) // grain) * grain)
        rows = self.rows if rows <= self.rows else min(self.max_rows, max(rows, 2 * self.rows))
        for arrays in (self.keys, self.values):
            for layer, old in enumerate(arrays):  # one by one: never two whole caches at once
                arrays[layer] = self._grown(old, rows, capacity)
        self.lengths = np.concatenate([self.lengths, np.zeros(rows - self.rows, np.int32)])
        self.layout = next(_layouts)

    def move(self, source: int, target: int) -> None:
        """Copy row `source` over row `target` and empty `source`."""
        length = int(self.lengths[source])
        for array in (*self.keys, *self.values):
            self._memory.copy(array[target, :, :length], array[source, :, :length])
        self.lengths[target] = length
        self.lengths[source] = 0

    def clear(self, row: int) -> None:
        """Forget the tokens of a row."""
        self.lengths[row] = 0

    def _grown(self, old: Array, rows: int, capacity: int) -> Array:
        """A larger array with the live tokens of `old` in place."""
        new = self._memory.empty((rows, old.shape[1], capacity, old.shape[3]), self._dtype)
        for row, length in enumerate(self.lengths.tolist()):
            self._memory.copy(new[row, :, :length], old[row, :, :length])
        return new
