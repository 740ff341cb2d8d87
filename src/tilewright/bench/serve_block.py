"""A small decoder layer over a batch of prompts: each padded to the longest, or the rows that exist and no others."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from tilewright import ops
from tilewright.ops.ragged import Ragged

Array = npt.NDArray[Any]
HIDDEN, HEADS, KV_HEADS, HEAD, WIDE = 256, 4, 2, 64, 768
_EPSILON = 1e-5


@dataclass(frozen=True)
class Layer:
    """Weights of one layer, f32."""

    norm: Array  # [HIDDEN]
    qkv: Array  # [(HEADS + 2 KV_HEADS) HEAD, HIDDEN]
    output: Array  # [HIDDEN, HEADS HEAD]
    gate: Array  # [WIDE, HIDDEN]
    up: Array
    down: Array  # [HIDDEN, WIDE]

    @staticmethod
    def drawn(seed: int = 0) -> Layer:
        """Random weights that keep results near 1."""
        random = np.random.default_rng(seed)

        def weight(rows: int, columns: int) -> Array:
            return random.standard_normal((rows, columns), np.float32) / np.float32(math.sqrt(columns))

        return Layer(
            1 + 0.1 * random.standard_normal(HIDDEN, np.float32),
            weight((HEADS + 2 * KV_HEADS) * HEAD, HIDDEN),
            weight(HIDDEN, HEADS * HEAD),
            weight(WIDE, HIDDEN),
            weight(WIDE, HIDDEN),
            weight(HIDDEN, WIDE),
        )

    def mlp(self, x: Array) -> Array:
        """The gated hidden layer and its residual: x[rows, HIDDEN] -> the same."""
        h = ops.rmsnorm(x, self.norm, _EPSILON)
        return ops.linear(ops.gate_up(h, self.gate, self.up), self.down, residual=x)  # type: ignore[no-any-return]

    def padded(self, x: Array) -> Array:
        """The layer on x[B, T, HIDDEN], every position computed: what an engine does that does not know lengths."""
        batch, room, _ = x.shape
        rows = x.reshape(-1, HIDDEN)
        qkv = ops.linear(ops.rmsnorm(rows, self.norm, _EPSILON), self.qkv)
        q, k, v = heads_of(qkv.reshape(batch, room, -1))
        a = ops.attention(q, k, v, causal=True)
        o = ops.linear(a.transpose(0, 2, 1, 3).reshape(-1, HEADS * HEAD), self.output, residual=rows)
        return self.mlp(o).reshape(x.shape)

    def ragged(self, rows: Array, batch: Ragged) -> Array:
        """The layer on the packed rows [tokens, HIDDEN] of a batch; attention takes the true lengths."""
        qkv = ops.linear(ops.rmsnorm(rows, self.norm, _EPSILON), self.qkv)
        a = ragged_attention(qkv, batch)
        return self.mlp(ops.linear(a, self.output, residual=rows))


def ragged_attention(qkv: Array, batch: Ragged) -> Array:
    """Causal attention of each sequence over itself: packed [tokens, ...] in and out, one call for all of them.

    It reads rows where they lie: views, no copy, and nothing for padding.
    """
    parts = qkv.reshape(len(qkv), -1, HEAD)
    q, k, v = parts[:, :HEADS], parts[:, HEADS : HEADS + KV_HEADS], parts[:, HEADS + KV_HEADS :]
    return ops.varlen_attention(q, k, v, batch.starts, causal=True).reshape(len(qkv), -1)  # type: ignore[no-any-return]


def heads_of(qkv: Array) -> tuple[Array, Array, Array]:
    """q[B, HEADS, T, HEAD], k and v[B, KV_HEADS, T, HEAD] as views of [B, T, all]."""
    parts = qkv.reshape(*qkv.shape[:2], -1, HEAD).transpose(0, 2, 1, 3)
    return parts[:, :HEADS], parts[:, HEADS : HEADS + KV_HEADS], parts[:, HEADS + KV_HEADS :]


__all__ = ["HEAD", "HEADS", "HIDDEN", "KV_HEADS", "WIDE", "Layer", "heads_of", "ragged_attention"]
