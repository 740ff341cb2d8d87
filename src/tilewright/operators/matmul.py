"""Matrix products: one matrix by the rows of another, with epilogues; gate and up together; and a batch of them.

The second matrix is given by its rows, `b[N, K]`, as weights are stored. Any layout of any operand is a
matter of strides.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tilewright.language import Tensor, dot, each, f32, kernel, parallel, sum_type, tiles, zeros
from tilewright.language.ir import PRECISIONS
from tilewright.operators.activation import activate, activated
from tilewright.operators.operator import Array64, Exact, operator, wide

# The steepest slope of silu, gelu and relu: an error before the activation grows by no more than this.
_STEEPEST = 1.13

_BLOCK = 1 << 22
"""Elements of the second matrix that are in float64 at a time: all of a vocabulary's would take gigabytes."""


def _products(a: Any, b: Any) -> tuple[Array64, Array64]:
    """a b^T in float64, and the same of the magnitudes."""
    left, size = wide(a), np.abs(wide(a))
    value, magnitude = (np.empty((a.shape[0], b.shape[0])) for _ in range(2))
    rows = max(1, _BLOCK // max(1, b.shape[1]))
    for j in range(0, b.shape[0], rows):
        right = wide(b[j : j + rows]).T
        value[:, j : j + rows] = left @ right
        magnitude[:, j : j + rows] = size @ np.abs(right)
    return value, magnitude


def reference_matmul(
    a: Any,
    b: Any,
    bias: Any = None,
    residual: Any = None,
    activation: str | None = None,
    *,
    row_scale: Any = None,
    column_scale: Any = None,
    precision: str | None = None,
) -> dict[str, Exact]:
    """c = activation(row_scale column_scale (a b^T) + bias) + residual, a scale for each row and each column.

    With a precision each operand may be off by its share (`ir.PRECISIONS`).
    """
    value, magnitude = _products(a, b)
    for scale in (None if row_scale is None else wide(row_scale)[:, None], column_scale):
        if scale is not None:
            value, magnitude = value * wide(scale), magnitude * np.abs(wide(scale))
    short = PRECISIONS.get(precision or "", 0.0)
    narrowing = (2 * short + short**2) * magnitude
    if bias is not None:
        value, magnitude = value + wide(bias), magnitude + np.abs(wide(bias))
    if activation is not None:
        value, magnitude = activated(value, activation), magnitude * _STEEPEST
        narrowing = narrowing * _STEEPEST
    if residual is not None:
        value, magnitude = value + wide(residual), magnitude + np.abs(wide(residual))
    return {"c": Exact(value, magnitude, a.shape[1], narrowing)}


@operator(reference_matmul, writes=("c",))
@kernel
def matmul(
    a: Tensor["M", "K"],
    b: Tensor["N", "K"],
    c: Tensor["M", "N"],
    bias: Tensor["N"] = None,
    residual: Tensor["M", "N"] = None,
    row_scale: Tensor["M"] = None,
    column_scale: Tensor["N"] = None,
    *,
    activation=None,
    precision=None,
):
    for i, j in parallel("M", "N"):
        acc = zeros(i, j, dtype=sum_type(a.dtype))
        for k in tiles("K"):
            acc += dot(a[i, k], b[j, k].T, precision=precision)
        v = acc if row_scale is None else acc.to(f32) * row_scale[i]
        v = v if column_scale is None else v.to(f32) * column_scale[j]
        v = v if bias is None else v + bias[j]
        v = activate(v, activation)
        c[i, j] = v if residual is None else v + residual[i, j]


def reference_gate_up(x: Any, gate: Any, up: Any) -> dict[str, Exact]:
    """y = silu(x gate^T) (x up^T); the error of each factor is scaled by the other."""
    (g, around_g), (u, around_u) = _products(x, gate), _products(x, up)
    magnitude = _STEEPEST * around_g * np.abs(u) + np.abs(activated(g, "silu")) * around_u
    return {"y": Exact(activated(g, "silu") * u, magnitude, x.shape[1])}


@operator(reference_gate_up, writes=("y",))
@kernel
def gate_up(x: Tensor["M", "K"], gate: Tensor["N", "K"], up: Tensor["N", "K"], y: Tensor["M", "N"]):
    for i, j in parallel("M", "N"):
        g = zeros(i, j, dtype=f32)
        u = zeros(i, j, dtype=f32)
        for k in tiles("K"):
            v = x[i, k]
            g += dot(v, gate[j, k].T)
            u += dot(v, up[j, k].T)
        y[i, j] = activate(g, "silu") * u


def reference_batched_matmul(a: Any, b: Any, *, precision: str | None = None) -> dict[str, Exact]:
    """c[n] = a[n] b[n]^T for every n; with a precision each operand may be off by its share (`ir.PRECISIONS`)."""
    transposed = wide(b).swapaxes(1, 2)
    magnitude, short = np.abs(wide(a)) @ np.abs(transposed), PRECISIONS.get(precision or "", 0.0)
    return {"c": Exact(wide(a) @ transposed, magnitude, a.shape[2], (2 * short + short**2) * magnitude)}


@operator(reference_batched_matmul, writes=("c",))
@kernel
def batched_matmul(a: Tensor["B", "M", "K"], b: Tensor["B", "N", "K"], c: Tensor["B", "M", "N"], *, precision=None):
    for n, i, j in parallel(each("B"), "M", "N"):
        acc = zeros(i, j, dtype=sum_type(a.dtype))
        for k in tiles("K"):
            acc += dot(a[n, i, k], b[n, j, k].T, precision=precision)
        c[n, i, j] = acc
