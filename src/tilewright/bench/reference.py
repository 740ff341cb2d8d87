"""What each case should give: the operators' own float64 references, on operands named as the bench names them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from tilewright import operators
from tilewright.operators.operator import Array, Exact

EPSILON = 1e-6
ALPHA = 0.75

Operands = Mapping[str, Array]


def _rope(t: Operands) -> Exact:
    """Rotary embedding in the NeoX layout: the operator sees a head as its two halves."""
    halves = [t[name].reshape(*t[name].shape[:-1], 2, -1) for name in ("x", "cos", "sin")]
    exact = operators.rope.reference(*halves)["y"]
    return replace(exact, value=exact.value.reshape(t["x"].shape), magnitude=exact.magnitude.reshape(t["x"].shape))


REFERENCES: dict[str, Callable[[Operands], Exact]] = {
    "matmul": lambda t: operators.matmul.reference(t["a"], t["b"].T)["c"],
    "linear": lambda t: operators.matmul.reference(t["x"], t["w"])["c"],
    "rmsnorm": lambda t: operators.rmsnorm.reference(t["x"], t["weight"], EPSILON)["y"],
    "softmax": lambda t: operators.softmax.reference(t["x"])["y"],
    "swiglu": lambda t: operators.swiglu.reference(t["gate"], t["up"])["y"],
    "scale_add": lambda t: operators.scale_add.reference(t["a"], t["b"], ALPHA)["c"],
    "rope": _rope,
}
