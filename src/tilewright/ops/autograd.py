"""Ops under torch's autograd: what is kept for the way back, and which op gives the gradient.

Imported when a tensor that asks for a gradient meets an op, so that torch is there already. Backward passes are ops
too: tile programs like all others. A gradient that comes in is never written to, since its owner may still read it.
mypy does not follow torch, so that classes and decorators of torch are untyped here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch.autograd.function import once_differentiable

from tilewright import ops
from tilewright.errors import ArgumentError

Tensor = Any


def recorded(name: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """The op `name` called such that autograd knows of it. ArgumentError where no gradient is defined."""
    if name not in _CALLS:
        raise ArgumentError(
            f"{name}: an operand asks for a gradient, which is defined for {', '.join(_CALLS)} only; "
            "call it under torch.no_grad() or pass x.detach()"
        )
    return _CALLS[name](*args, **kwargs)


class _Rope(torch.autograd.Function):  # type: ignore[misc]
    """Turning is linear: the gradient turns back by the same angles."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, cos: Tensor, sin: Tensor, options: dict[str, Any], in_place: bool) -> Tensor:
        ctx.save_for_backward(cos, sin)
        ctx.options = options
        if in_place:
            ctx.mark_dirty(x)
        turned: Tensor = ops.rope(x, cos, sin, **options, out=x if in_place else None)
        return turned

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        cos, sin = ctx.saved_tensors
        options = {**ctx.options, "inverse": not ctx.options.get("inverse", False)}
        return ops.rope(dy, cos, sin, **options), None, None, None, None


def _rope(x: Tensor, cos: Tensor, sin: Tensor, *, out: Tensor | None = None, **options: Any) -> Tensor:
    for name, table in (("cos", cos), ("sin", sin)):
        if table.requires_grad:
            raise ArgumentError(f"rope: {name} asks for a gradient, which only x has; pass {name}.detach()")
    in_place = out is not None and out is x
    if in_place and x.is_leaf and x.requires_grad:
        raise ArgumentError("rope: x is a leaf that asks for a gradient and cannot be overwritten; leave out= away")
    if not in_place:
        _no_place("rope", out)
    turned: Tensor = _Rope.apply(x, cos, sin, options, in_place)
    return turned


class _RMSNorm(torch.autograd.Function):  # type: ignore[misc]
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.eps = eps
        return ops.rmsnorm(x, weight, eps)

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        dx, dweight = ops.rmsnorm_backward(x.contiguous(), weight, dy.contiguous(), ctx.eps)
        return dx, dweight, None


def _rmsnorm(x: Tensor, weight: Tensor, eps: float = 1e-6, *, out: Tensor | None = None) -> Tensor:
    _no_place("rmsnorm", out)
    normed: Tensor = _RMSNorm.apply(x, weight, eps)
    return normed


class _Softmax(torch.autograd.Function):  # type: ignore[misc]
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        y: Tensor = ops.softmax(x)
        ctx.save_for_backward(y)
        return y

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, dy: Tensor) -> Tensor:
        (y,) = ctx.saved_tensors
        return ops.softmax_backward(y, dy)


def _softmax(x: Tensor, *, out: Tensor | None = None) -> Tensor:
    _no_place("softmax", out)
    shares: Tensor = _Softmax.apply(x)
    return shares


class _SwiGLU(torch.autograd.Function):  # type: ignore[misc]
    @staticmethod
    def forward(ctx: Any, gate: Tensor, up: Tensor) -> Tensor:
        ctx.save_for_backward(gate, up)
        return ops.swiglu(gate, up)

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor, Tensor]:
        gate, up = ctx.saved_tensors
        return ops.swiglu_backward(gate, up, dy)


def _swiglu(gate: Tensor, up: Tensor, *, out: Tensor | None = None) -> Tensor:
    _no_place("swiglu", out)
    y: Tensor = _SwiGLU.apply(gate, up)
    return y


class _GeGLU(torch.autograd.Function):  # type: ignore[misc]
    @staticmethod
    def forward(ctx: Any, gate: Tensor, up: Tensor, approximate: str) -> Tensor:
        ctx.save_for_backward(gate, up)
        ctx.approximate = approximate
        return ops.geglu(gate, up, approximate=approximate)

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        gate, up = ctx.saved_tensors
        return (*ops.geglu_backward(gate, up, dy, approximate=ctx.approximate), None)


def _geglu(gate: Tensor, up: Tensor, *, approximate: str = "none", out: Tensor | None = None) -> Tensor:
    _no_place("geglu", out)
    y: Tensor = _GeGLU.apply(gate, up, approximate)
    return y


def _no_place(name: str, out: Tensor | None) -> None:
    if out is not None:
        raise ArgumentError(f"{name}: autograd cannot record a call with out=; leave it away, or use torch.no_grad()")


_CALLS: dict[str, Callable[..., Tensor]] = {
    "rope": _rope, "rmsnorm": _rmsnorm, "softmax": _softmax, "swiglu": _swiglu, "geglu": _geglu,
}  # fmt: skip
