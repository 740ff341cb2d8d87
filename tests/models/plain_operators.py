"""The operators that models use, in a few lines of NumPy each: the model's own code is tested without any kernel.

Arithmetic is in f32 (sums in f64, then rounded), stores round to the type of `out`, as the kernels do.
"""

from __future__ import annotations

import math

import numpy as np


class PlainOperator:
    """An operator with the calling convention of `tilewright.ops`: call it, or bind it and call the launch."""

    def __init__(self, function):
        self.function = function

    def __call__(self, *operands, out=None, **options):
        results = self.function(*operands, **options)
        if out is None:
            return results
        self._store(results, out)
        return out

    def bind(self, *operands, out, **options):
        return lambda: self._store(self.function(*operands, **options), out)

    @staticmethod
    def _store(results, out):
        if results is None:
            return
        pairs = zip(results, out, strict=True) if isinstance(out, tuple) else [(results, out)]
        for result, place in pairs:
            place[...] = result


def wide(x):
    return np.asarray(x).astype(np.float64)


def rms(x, weight, eps):
    return x / np.sqrt((x * x).mean(-1, keepdims=True) + eps) * wide(weight)


def silu(x):
    return x / (1 + np.exp(-x))


@PlainOperator
def embedding(ids, table):
    return table[ids]


@PlainOperator
def rmsnorm(x, weight, eps=1e-6):
    return rms(wide(x), weight, eps)


@PlainOperator
def add_rmsnorm(x, residual, weight, eps=1e-6):
    total = wide(x) + wide(residual)
    return rms(total, weight, eps), total


@PlainOperator
def linear(x, w, bias=None):
    y = wide(x) @ wide(w).T
    return y if bias is None else y + wide(bias)


@PlainOperator
def gate_up(x, w_gate, w_up):
    return silu(wide(x) @ wide(w_gate).T) * (wide(x) @ wide(w_up).T)


@PlainOperator
def swiglu(gate, up):
    return silu(wide(gate)) * wide(up)


def turn(x, cos, sin):
    half = x.shape[-1] // 2
    return x * cos + np.concatenate([-x[..., half:], x[..., :half]], -1) * sin


@PlainOperator
def rope_cache(q, k, v, cos, sin, positions, k_cache, v_cache, *, q_norm=None, k_norm=None, eps=1e-6):
    q, k = wide(q), wide(k)
    q = q if q_norm is None else rms(q, q_norm, eps)
    k = k if k_norm is None else rms(k, k_norm, eps)
    cos, sin = wide(cos)[positions][:, :, None], wide(sin)[positions][:, :, None]
    for b, places in enumerate(positions):
        k_cache[b, :, places] = turn(k, cos, sin)[b]
        v_cache[b, :, places] = v[b]
    return turn(q, cos, sin)


@PlainOperator
def attention(q, k, v, *, causal=False, window=None, lengths=None, scale=None):
    batch, heads, queries, head_dim = q.shape
    group = heads // k.shape[1]
    out = np.zeros(q.shape)
    for b in range(batch):
        length = k.shape[2] if lengths is None else int(lengths[b])
        keys, values = (wide(x[b, :, :length]).repeat(group, axis=0) for x in (k, v))
        scores = wide(q[b]) @ keys.transpose(0, 2, 1) * (scale or 1 / math.sqrt(head_dim))
        position, key = length - queries + np.arange(queries)[:, None], np.arange(length)[None]
        seen = key <= position if causal else np.ones((queries, length), bool)
        if window is not None:
            seen &= key > position - window
        scores = np.where(seen, scores, -np.inf)
        p = np.exp(scores - scores.max(-1, keepdims=True))
        out[b] = p / p.sum(-1, keepdims=True) @ values
    return out
