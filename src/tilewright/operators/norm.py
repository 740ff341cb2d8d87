"""Normalisations of rows: rmsnorm, rmsnorm after a residual sum, and layernorm."""

from __future__ import annotations

from typing import Any

import numpy as np

from tilewright.language import Scalar, Tensor, f32, kernel, parallel, rsqrt, size, tiles, zeros
from tilewright.operators.operator import Array64, Exact, operator, wide


def mean_of_rows(x: Array64) -> Array64:
    """The mean over the last axis, which is kept with size 1; 0 for rows without elements."""
    result: Array64 = np.sum(x, axis=-1, keepdims=True) / max(x.shape[-1], 1)
    return result


def reference_rmsnorm(x: Any, weight: Any, eps: float) -> dict[str, Exact]:
    """y = x / sqrt(mean(x^2) + eps) weight (Zhang and Sennrich, arXiv:1910.07467)."""
    x = wide(x)
    value = x / np.sqrt(mean_of_rows(x * x) + eps) * wide(weight)
    return {"y": Exact(value, np.abs(value), x.shape[1])}


@operator(reference_rmsnorm, writes=("y",))
@kernel
def rmsnorm(x: Tensor["M", "D"], weight: Tensor["D"], y: Tensor["M", "D"], eps: Scalar["f32"]):
    for i in parallel("M"):
        squares = zeros(i, dtype=f32)
        for d in tiles("D"):
            v = x[i, d].to(f32)
            squares += (v * v).sum(d)
        scale = rsqrt(squares / size("D").to(f32) + eps)
        for d in tiles("D"):
            y[i, d] = x[i, d] * scale * weight[d]


def reference_add_rmsnorm(x: Any, residual: Any, weight: Any, eps: float) -> dict[str, Exact]:
    """total = x + residual; y = rmsnorm(total), of the total before it is rounded to its element type."""
    total = wide(x) + wide(residual)
    terms = np.abs(wide(x)) + np.abs(wide(residual))
    gain = wide(weight) / np.sqrt(mean_of_rows(total * total) + eps)
    # A total that cancels to almost nothing keeps the rounding error of its terms through the division.
    return {"total": Exact(total, terms, 2), "y": Exact(total * gain, terms * np.abs(gain), x.shape[1])}


@operator(reference_add_rmsnorm, writes=("total", "y"))
@kernel
def add_rmsnorm(
    x: Tensor["M", "D"],
    residual: Tensor["M", "D"],
    weight: Tensor["D"],
    total: Tensor["M", "D"],
    y: Tensor["M", "D"],
    eps: Scalar["f32"],
):
    for i in parallel("M"):
        squares = zeros(i, dtype=f32)
        for d in tiles("D"):
            v = x[i, d].to(f32) + residual[i, d]
            squares += (v * v).sum(d)
        scale = rsqrt(squares / size("D").to(f32) + eps)
        for d in tiles("D"):
            v = x[i, d].to(f32) + residual[i, d]
            total[i, d] = v
            y[i, d] = v * scale * weight[d]


def reference_layernorm(x: Any, weight: Any, eps: float, bias: Any = None) -> dict[str, Exact]:
    """y = (x - mean) / sqrt(var + eps) weight + bias (Ba, Kiros and Hinton, arXiv:1607.06450)."""
    x, weight = wide(x), wide(weight)
    centred = x - mean_of_rows(x)
    gain = weight / np.sqrt(mean_of_rows(centred * centred) + eps)
    shift = 0.0 if bias is None else wide(bias)
    magnitude = (np.abs(x) + mean_of_rows(np.abs(x))) * np.abs(gain) + np.abs(shift)
    return {"y": Exact(centred * gain + shift, magnitude, x.shape[1])}


@operator(reference_layernorm, writes=("y",))
@kernel
def layernorm(
    x: Tensor["M", "D"],
    weight: Tensor["D"],
    y: Tensor["M", "D"],
    eps: Scalar["f32"],
    bias: Tensor["D"] = None,
):
    for i in parallel("M"):
        total = zeros(i, dtype=f32)
        for d in tiles("D"):
            total += x[i, d].to(f32).sum(d)
        mean = total / size("D").to(f32)
        # The squares of the centred values: mean(x^2) - mean^2 would cancel where the mean is large.
        squares = zeros(i, dtype=f32)
        for d in tiles("D"):
            v = x[i, d] - mean
            squares += (v * v).sum(d)
        scale = rsqrt(squares / size("D").to(f32) + eps)
        for d in tiles("D"):
            v = (x[i, d] - mean) * scale * weight[d]
            y[i, d] = v if bias is None else v + bias[d]
