"""Softmax of rows of any length, in three passes: maximum, sum, result. A row stays in cache after the first."""

from __future__ import annotations

from typing import Any

import numpy as np

from tilewright.language import Tensor, exp, f32, full, kernel, maximum, parallel, tiles, zeros
from tilewright.operators.operator import Array64, Exact, operator, wide

# Where a running maximum starts: finite, so that a row that begins with -inf does not compute -inf - (-inf).
LOWEST = float(np.finfo(np.float32).min)


def softened(x: Array64) -> Array64:
    """Softmax over the last axis, in float64; NaN where a row is all -inf."""
    with np.errstate(invalid="ignore"):
        powers = np.exp(x - np.max(x, axis=-1, keepdims=True, initial=-np.inf))
        result: Array64 = powers / np.sum(powers, axis=-1, keepdims=True)
    return result


def reference_softmax(x: Any) -> dict[str, Exact]:
    """y = exp(x) / sum(exp(x)); a rounded x - max is off by |x - max| u, and its exponential by as much again."""
    x = wide(x)
    value = softened(x)
    with np.errstate(invalid="ignore"):
        distance = np.max(x, axis=-1, keepdims=True, initial=-np.inf) - x
        magnitude = np.where(value > 0, value * (1 + distance), 0.0)
    return {"y": Exact(value, magnitude, x.shape[1])}


@operator(reference_softmax, writes=("y",))
@kernel
def softmax(x: Tensor["M", "D"], y: Tensor["M", "D"]):
    for i in parallel("M"):
        top = full(i, value=LOWEST, dtype=f32)
        for d in tiles("D"):
            top.update(maximum(top, x[i, d].to(f32).max(d)))
        total = zeros(i, dtype=f32)
        for d in tiles("D"):
            total += exp(x[i, d] - top).sum(d)
        share = 1.0 / total
        for d in tiles("D"):
            y[i, d] = exp(x[i, d] - top) * share


def reference_softmax_backward(y: Any, dy: Any) -> dict[str, Exact]:
    """dx = y (dy - sum(y dy)), from the result y of softmax."""
    y, dy = wide(y), wide(dy)
    along = np.sum(y * dy, axis=-1, keepdims=True)
    magnitude = np.abs(y) * (np.abs(dy) + np.sum(np.abs(y * dy), axis=-1, keepdims=True))
    return {"dx": Exact(y * (dy - along), magnitude, y.shape[1])}


@operator(reference_softmax_backward, writes=("dx",))
@kernel
def softmax_backward(y: Tensor["M", "D"], dy: Tensor["M", "D"], dx: Tensor["M", "D"]):
    for i in parallel("M"):
        along = zeros(i, dtype=f32)
        for d in tiles("D"):
            along += (y[i, d].to(f32) * dy[i, d]).sum(d)
        for d in tiles("D"):
            dx[i, d] = y[i, d] * (dy[i, d].to(f32) - along)
