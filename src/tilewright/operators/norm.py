"""Normalisations of rows: rmsnorm, rmsnorm after a residual sum, and layernorm."""

from __future__ import annotations

from typing import Any

import numpy as np

from tilewright.language import Scalar, Tensor, f32, kernel, maximum, parallel, rsqrt, size, tiles, zeros
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


def reference_rmsnorm_backward(x: Any, weight: Any, dy: Any, eps: float) -> dict[str, Exact]:
    """scale = 1 / sqrt(mean(x^2) + eps); dx = scale (weight dy - x scale^2 mean(weight dy x))."""
    x, slope = wide(x), wide(weight) * wide(dy)
    scale = 1.0 / np.sqrt(mean_of_rows(x * x) + eps)
    dx = scale * (slope - x * scale**2 * mean_of_rows(slope * x))
    terms = scale * (np.abs(slope) + np.abs(x) * scale**2 * mean_of_rows(np.abs(slope * x)))
    return {"dx": Exact(dx, terms, x.shape[1]), "scale": Exact(scale[:, 0], scale[:, 0], x.shape[1])}


@operator(reference_rmsnorm_backward, writes=("dx", "scale"))
@kernel
def rmsnorm_backward(
    x: Tensor["M", "D"],
    weight: Tensor["D"],
    dy: Tensor["M", "D"],
    dx: Tensor["M", "D"],
    scale: Tensor["M"],
    eps: Scalar["f32"],
):
    for i in parallel("M"):
        squares, along = zeros(i, dtype=f32), zeros(i, dtype=f32)
        for d in tiles("D"):
            v = x[i, d].to(f32)
            squares += (v * v).sum(d)
            along += (v * weight[d] * dy[i, d]).sum(d)
        count = maximum(size("D").to(f32), 1.0)  # a row without elements has a scale, too
        inverse = rsqrt(squares / count + eps)
        pull = along / count * inverse * inverse
        scale[i] = inverse
        for d in tiles("D"):
            dx[i, d] = inverse * (dy[i, d] * weight[d].to(f32) - x[i, d] * pull)


def reference_rmsnorm_weight_backward(x: Any, dy: Any, scale: Any) -> dict[str, Exact]:
    """dweight = the sum over rows of dy x scale."""
    terms = wide(x) * wide(dy) * wide(scale)[:, None]
    return {"dweight": Exact(terms.sum(axis=0), np.abs(terms).sum(axis=0), x.shape[0])}


@operator(reference_rmsnorm_weight_backward, writes=("dweight",))
@kernel
def rmsnorm_weight_backward(x: Tensor["M", "D"], dy: Tensor["M", "D"], scale: Tensor["M"], dweight: Tensor["D"]):
    for d in parallel("D"):
        total = zeros(d, dtype=f32)
        for i in tiles("M"):
            total += (x[i, d].to(f32) * dy[i, d] * scale[i]).sum(i)
        dweight[d] = total


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
