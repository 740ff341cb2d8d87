"""Rotary embedding in Triton: what a kernel engineer would write by hand, for `tilewright bench rope` on a GPU."""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl

Tensor = Any


@triton.jit  # type: ignore[untyped-decorator]
def _turn(x, cos, sin, y, positions, heads, sign, HALF: tl.constexpr, HEADS: tl.constexpr):  # type: ignore[no-untyped-def]
    """One token a program: all its heads share a row of cos and sin."""
    token = tl.program_id(0).to(tl.int64)
    pair = tl.arange(0, HALF)
    row = (token % positions) * 2 * HALF
    c = tl.load(cos + row + pair).to(tl.float32)[None, :]
    s = tl.load(sin + row + pair).to(tl.float32)[None, :] * sign
    head = tl.arange(0, HEADS)
    place = (token * heads + head[:, None]) * 2 * HALF + pair[None, :]
    here = head[:, None] < heads
    first = tl.load(x + place, mask=here).to(tl.float32)
    second = tl.load(x + place + HALF, mask=here).to(tl.float32)
    tl.store(y + place, first * c - second * s, mask=here)
    tl.store(y + place + HALF, second * c + first * s, mask=here)


def _launch(x: Tensor, cos: Tensor, sin: Tensor, sign: float) -> Tensor:
    x = x.contiguous()
    batch, positions, heads, size = x.shape
    y = torch.empty_like(x)
    _turn[(batch * positions,)](
        x, cos, sin, y, positions, heads, sign, HALF=size // 2, HEADS=triton.next_power_of_2(heads)
    )
    return y


class _Rope(torch.autograd.Function):  # type: ignore[misc]
    @staticmethod
    def forward(ctx: Any, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        ctx.save_for_backward(cos, sin)
        return _launch(x, cos, sin, 1.0)

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor, None, None]:
        cos, sin = ctx.saved_tensors
        return _launch(dy, cos, sin, -1.0), None, None


def rope(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """x[B, S, H, D] turned by cos and sin[S, D], whose halves are alike; D / 2 is a power of two."""
    return _Rope.apply(x, cos, sin)
