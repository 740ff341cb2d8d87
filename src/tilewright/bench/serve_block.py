"""A decoder layer over a batch of prompts: each padded to the longest, or the rows that exist and no others.

On NumPy arrays, or on torch's tensors on a GPU.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from tilewright import ops
from tilewright.ops.ragged import Ragged

Array = Any
"""np.ndarray or torch.Tensor."""
_EPSILON = 1e-5


@dataclass(frozen=True)
class Sizes:
    """Of a layer: columns, heads of queries and of keys, columns of a head, columns of the gated hidden layer."""

    hidden: int
    heads: int
    kv_heads: int
    head: int
    wide: int

    @property
    def qkv(self) -> int:
        """Columns of queries, keys and values together."""
        return (self.heads + 2 * self.kv_heads) * self.head


SMALL = Sizes(256, 4, 2, 64, 768)
LLAMA = Sizes(2048, 32, 8, 64, 8192)
"""Llama 3.2 1B's."""


@dataclass(frozen=True)
class Layer:
    """Weights of one layer."""

    sizes: Sizes
    norm: Array  # [hidden]
    qkv: Array  # [qkv, hidden]
    output: Array  # [hidden, heads head]
    gate: Array  # [wide, hidden]
    up: Array
    down: Array  # [hidden, wide]

    @staticmethod
    def drawn(sizes: Sizes, random: Callable[[tuple[int, ...], int], Array]) -> Layer:
        """Weights that keep results near 1, of what `random(shape, seed)` draws from the normal distribution."""

        def weight(seed: int, rows: int, columns: int) -> Array:
            return random((rows, columns), seed) * columns**-0.5

        return Layer(
            sizes,
            1 + 0.1 * random((sizes.hidden,), 0),
            weight(1, sizes.qkv, sizes.hidden),
            weight(2, sizes.hidden, sizes.heads * sizes.head),
            weight(3, sizes.wide, sizes.hidden),
            weight(4, sizes.wide, sizes.hidden),
            weight(5, sizes.hidden, sizes.wide),
        )

    def mlp(self, x: Array) -> Array:
        """The gated hidden layer and its residual: x[rows, hidden] -> the same."""
        h = ops.rmsnorm(x, self.norm, _EPSILON)
        return ops.linear(ops.gate_up(h, self.gate, self.up), self.down, residual=x)

    def padded(self, x: Array) -> Array:
        """The layer on x[B, T, hidden], every position computed: what an engine does that does not know lengths."""
        batch, room, hidden = x.shape
        rows = x.reshape(-1, hidden)
        qkv = ops.linear(ops.rmsnorm(rows, self.norm, _EPSILON), self.qkv)
        q, k, v = heads_of(qkv.reshape(batch, room, -1), self.sizes)
        a = ops.attention(q, k, v, causal=True)
        o = ops.linear(turned(a).reshape(len(rows), -1), self.output, residual=rows)
        return self.mlp(o).reshape(x.shape)

    def ragged(self, rows: Array, batch: Ragged) -> Array:
        """The layer on the packed rows [tokens, hidden] of a batch; attention takes the true lengths."""
        qkv = ops.linear(ops.rmsnorm(rows, self.norm, _EPSILON), self.qkv)
        a = ragged_attention(qkv, batch, self.sizes)
        return self.mlp(ops.linear(a, self.output, residual=rows))


def ragged_attention(qkv: Array, batch: Ragged, sizes: Sizes) -> Array:
    """Causal attention of each sequence over itself: packed [tokens, ...] in and out, one launch a sequence.

    Each launch reads its rows where they lie: a view, no copy, and nothing for padding.
    """
    shape = (len(qkv), sizes.heads * sizes.head)
    out = np.empty(shape, qkv.dtype) if isinstance(qkv, np.ndarray) else qkv.new_empty(shape)
    start = 0
    for length in batch.lengths:
        rows = slice(start, start + int(length))
        q, k, v = heads_of(qkv[None, rows], sizes)
        place = turned(out[None, rows].reshape(1, int(length), sizes.heads, sizes.head))
        ops.attention(q, k, v, causal=True, out=place)
        start += int(length)
    return out


def heads_of(qkv: Array, sizes: Sizes) -> tuple[Array, Array, Array]:
    """q[B, heads, T, head], k and v[B, kv_heads, T, head] as views of [B, T, all]."""
    parts = turned(qkv.reshape(*qkv.shape[:2], -1, sizes.head))
    first, last = sizes.heads, sizes.heads + sizes.kv_heads
    return parts[:, :first], parts[:, first:last], parts[:, last:]


def turned(x: Array) -> Array:
    """[B, T, H, D] as [B, H, T, D], and back: a view."""
    return x.swapaxes(1, 2)


__all__ = ["LLAMA", "SMALL", "Array", "Layer", "Sizes", "heads_of", "ragged_attention", "turned"]
