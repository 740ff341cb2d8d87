"""Activations: silu, gelu, swiglu and geglu, gradients of the gated ones, and the epilogue that others share."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from tilewright.errors import ArgumentError
from tilewright.language import Tensor, erf, exp, f32, kernel, maximum, minimum, parallel, sigmoid, tanh
from tilewright.operators.operator import Array64, Exact, operator, wide

ACTIVATIONS = ("silu", "gelu", "gelu_tanh", "relu")

# gelu_tanh(x) = x/2 (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))): Hendrycks and Gimpel, arXiv:1606.08415.
_GELU_SLOPE = math.sqrt(2 / math.pi)
_GELU_CUBIC = 0.044715
# Beyond this both gelus are 0 or x to the last bit of f32; their slopes are asked of no x further out, whose square
# or cube could overflow.
_GELU_FAR = 16.0
# sigmoid(x) underflows to 0 before x sigmoid(x) does; as a share of |x| that is far below any rounding.
_UNDERFLOW = 2.0**-100


def activate(v: Any, activation: str | None) -> Any:
    """`activation` of the f32 tile `v`, inside a kernel; None leaves it as it is."""
    match activation:
        case None:
            return v
        case "silu":
            return v * sigmoid(v)
        case "gelu":
            return 0.5 * v * (1.0 + erf(v * math.sqrt(0.5)))
        case "gelu_tanh":
            return 0.5 * v * (1.0 + tanh(_GELU_SLOPE * (v + _GELU_CUBIC * (v * v * v))))
        case "relu":
            return maximum(v, 0.0)
        case _:
            raise ArgumentError(f"unknown activation {activation!r}; choose one of {', '.join(ACTIVATIONS)} or None")


def activated(v: Array64, activation: str | None) -> Array64:
    """What `activate` means, in float64."""
    match activation:
        case None:
            return v
        case "silu":
            return v * _logistic(v)
        case "gelu":
            return 0.5 * v * (1.0 + _erf(v * math.sqrt(0.5)))
        case "gelu_tanh":
            return 0.5 * v * (1.0 + np.tanh(_GELU_SLOPE * (v + _GELU_CUBIC * v**3)))
        case _:
            return np.maximum(v, 0.0)


def reference_silu(x: Any) -> dict[str, Exact]:
    """y = x sigmoid(x)."""
    value = activated(wide(x), "silu")
    return {"y": Exact(value, np.abs(value) + _UNDERFLOW * np.abs(wide(x)))}


@operator(reference_silu, writes=("y",))
@kernel
def silu(x: Tensor["M", "D"], y: Tensor["M", "D"]):
    for i, d in parallel("M", "D"):
        y[i, d] = activate(x[i, d].to(f32), "silu")


def reference_gelu(x: Any, activation: str = "gelu") -> dict[str, Exact]:
    """y = x Phi(x); where x is very negative 1 + erf(x) cancels, so the error grows with |x|, not with |y|."""
    return {"y": Exact(activated(wide(x), activation), np.abs(wide(x)))}


@operator(reference_gelu, writes=("y",))
@kernel
def gelu(x: Tensor["M", "D"], y: Tensor["M", "D"], *, activation="gelu"):
    for i, d in parallel("M", "D"):
        y[i, d] = activate(x[i, d].to(f32), activation)


def reference_swiglu(gate: Any, up: Any) -> dict[str, Exact]:
    """y = silu(gate) up (Shazeer, arXiv:2002.05202)."""
    value = activated(wide(gate), "silu") * wide(up)
    return {"y": Exact(value, np.abs(value) + _UNDERFLOW * np.abs(wide(gate) * wide(up)))}


@operator(reference_swiglu, writes=("y",))
@kernel
def swiglu(gate: Tensor["M", "D"], up: Tensor["M", "D"], y: Tensor["M", "D"]):
    for i, d in parallel("M", "D"):
        y[i, d] = activate(gate[i, d].to(f32), "silu") * up[i, d]


def reference_geglu(gate: Any, up: Any, activation: str = "gelu") -> dict[str, Exact]:
    """y = gelu(gate) up (Shazeer, arXiv:2002.05202); the error grows as that of gelu."""
    return {"y": Exact(activated(wide(gate), activation) * wide(up), np.abs(wide(gate) * wide(up)))}


@operator(reference_geglu, writes=("y",))
@kernel
def geglu(gate: Tensor["M", "D"], up: Tensor["M", "D"], y: Tensor["M", "D"], *, activation="gelu"):
    for i, d in parallel("M", "D"):
        y[i, d] = activate(gate[i, d].to(f32), activation) * up[i, d]


def reference_swiglu_backward(gate: Any, up: Any, dy: Any) -> dict[str, Exact]:
    """dgate = dy up s (1 + gate (1 - s)) with s = sigmoid(gate); dup = dy silu(gate)."""
    gate, up, dy = wide(gate), wide(up), wide(dy)
    share = _logistic(gate)
    terms = np.abs(dy * up) * (share + _UNDERFLOW)
    dgate = Exact(dy * up * share * (1 + gate * (1 - share)), terms * (1 + np.abs(gate)))
    dup = dy * gate * share
    return {"dgate": dgate, "dup": Exact(dup, np.abs(dup) + _UNDERFLOW * np.abs(dy * gate))}


@operator(reference_swiglu_backward, writes=("dgate", "dup"))
@kernel
def swiglu_backward(
    gate: Tensor["M", "D"],
    up: Tensor["M", "D"],
    dy: Tensor["M", "D"],
    dgate: Tensor["M", "D"],
    dup: Tensor["M", "D"],
):
    for i, d in parallel("M", "D"):
        v, slope = gate[i, d].to(f32), dy[i, d].to(f32)
        share = sigmoid(v)
        dgate[i, d] = slope * up[i, d] * share * (1.0 + v * (1.0 - share))
        dup[i, d] = slope * (v * share)


def gelu_slope(v: Any, activation: str) -> Any:
    """The derivative of a gelu at the f32 tile `v`, inside a kernel."""
    near = minimum(maximum(v, -_GELU_FAR), _GELU_FAR)
    square = near * near
    if activation == "gelu":
        return 0.5 + 0.5 * erf(near * math.sqrt(0.5)) + near * (exp(-0.5 * square) * math.sqrt(0.5 / math.pi))
    # 1 + tanh(u) = 2 sigmoid(2 u), and what it falls short of 2 by is not found by subtraction: sigmoid(-2 u).
    twice = 2.0 * _GELU_SLOPE * near * (1.0 + _GELU_CUBIC * square)
    steep = 2.0 * _GELU_SLOPE * near * (1.0 + 3.0 * _GELU_CUBIC * square)
    share = sigmoid(twice)
    return share + steep * (share * sigmoid(-twice))


def _gelu_sloped(v: Array64, activation: str) -> tuple[Array64, Array64]:
    """What `gelu_slope` means, in float64, and what its error grows with."""
    near = np.clip(v, -_GELU_FAR, _GELU_FAR)
    if activation == "gelu":
        bell = near * np.exp(-0.5 * near**2) * math.sqrt(0.5 / math.pi)
        return 0.5 + 0.5 * _erf(near * math.sqrt(0.5)) + bell, 1 + np.abs(bell) * (1 + near**2)
    twice = 2 * _GELU_SLOPE * (near + _GELU_CUBIC * near**3)
    bell = 2 * _GELU_SLOPE * (near + 3 * _GELU_CUBIC * near**3) * _logistic(twice) * _logistic(-twice)
    return _logistic(twice) + bell, 1 + np.abs(bell) * (1 + 2 * np.abs(twice))


def reference_geglu_backward(gate: Any, up: Any, dy: Any, activation: str = "gelu") -> dict[str, Exact]:
    """dgate = dy up gelu'(gate); dup = dy gelu(gate)."""
    gate, up, dy = wide(gate), wide(up), wide(dy)
    slope, grows = _gelu_sloped(gate, activation)
    dup = Exact(dy * activated(gate, activation), np.abs(dy * gate))
    return {"dgate": Exact(dy * up * slope, np.abs(dy * up) * grows), "dup": dup}


@operator(reference_geglu_backward, writes=("dgate", "dup"))
@kernel
def geglu_backward(
    gate: Tensor["M", "D"],
    up: Tensor["M", "D"],
    dy: Tensor["M", "D"],
    dgate: Tensor["M", "D"],
    dup: Tensor["M", "D"],
    *,
    activation="gelu",
):
    for i, d in parallel("M", "D"):
        v, slope = gate[i, d].to(f32), dy[i, d].to(f32)
        dgate[i, d] = slope * up[i, d] * gelu_slope(v, activation)
        dup[i, d] = slope * activate(v, activation)


def _logistic(v: Array64) -> Array64:
    """1 / (1 + exp(-v)), with no overflow for any v."""
    decay = np.exp(-np.abs(v))
    result: Array64 = np.where(v >= 0, 1.0, decay) / (1.0 + decay)
    return result


def _erf(v: Array64) -> Array64:
    result: Array64 = np.vectorize(math.erf, otypes=[np.float64])(v)
    return result
