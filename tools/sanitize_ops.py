"""Ops under autograd as users call them, for `sanitize.py`: results and gradients beside those of float64."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any


def _gradients(function: Callable[..., Any], reference: Callable[..., Any], *shapes: tuple[int, ...]) -> float:
    """The share of their bound by which gradients of an op are beside those of float64 through `reference`."""
    import torch

    torch.manual_seed(0)
    operands = [torch.randn(shape, device="cuda").bfloat16().requires_grad_() for shape in shapes]
    wide = [x.detach().double().requires_grad_() for x in operands]
    y, exact = function(*operands), reference(*wide)
    dy = torch.randn_like(y)
    got, wanted = torch.autograd.grad(y, operands, dy), torch.autograd.grad(exact, wide, dy.double())
    worst = 0.0
    for ours, right in zip((y, *got), (exact, *wanted), strict=True):
        far = (ours.double() - right).norm() / right.norm()
        worst = max(worst, float(far.detach()) / 2**-7)
    if not worst <= 1:
        raise ArithmeticError(f"{worst:.2f} of the bound")
    return worst


def _rope(interleaved: bool) -> float:
    import torch

    from tilewright import ops

    angle = torch.rand(7, 40, device="cuda")
    angle = angle.repeat_interleave(2, -1) if interleaved else angle.repeat(1, 2)
    cos, sin = angle.cos().bfloat16(), angle.sin().bfloat16()

    def exact(x: Any) -> Any:
        first, second = (x[..., ::2], x[..., 1::2]) if interleaved else x.chunk(2, -1)
        crossed = torch.stack((-second, first), -1).flatten(-2) if interleaved else torch.cat((-second, first), -1)
        return x * cos.double()[:, None] + crossed * sin.double()[:, None]

    return _gradients(lambda x: ops.rope(x, cos, sin, interleaved=interleaved), exact, (2, 7, 3, 80))


def _norm() -> float:
    from torch.nn import functional as f

    from tilewright import ops

    return _gradients(
        lambda x, w: ops.rmsnorm(x, w, 1e-5), lambda x, w: f.rms_norm(x, x.shape[-1:], w, 1e-5), (70, 1000), (1000,)
    )


def _gated() -> float:
    from torch.nn import functional as f

    from tilewright import ops

    return max(
        _gradients(ops.swiglu, lambda a, b: f.silu(a) * b, (9, 520), (9, 520)),
        _gradients(ops.geglu, lambda a, b: f.gelu(a) * b, (9, 520), (9, 520)),
        _gradients(ops.softmax, lambda x: x.softmax(-1), (9, 520)),
    )


def _sequences() -> float:
    """Packed sequences by the op: the ranges that queries see, and attention over them."""
    import torch

    from tilewright import ops

    q, k, v = (torch.randn(150, heads, 64, device="cuda").bfloat16() for heads in (4, 2, 2))
    ends = torch.tensor([0, 90, 90, 150], device="cuda", dtype=torch.int32)
    ours, _ = ops.varlen_attention(q, k, v, ends, causal=True, return_lse=True)
    worst = 0.0
    for begin, end in ((0, 90), (90, 150)):
        one = [x[begin:end].double().transpose(0, 1)[None] for x in (q, k, v)]
        right = torch.nn.functional.scaled_dot_product_attention(*one, is_causal=True, enable_gqa=True)[0]
        right = right.transpose(0, 1)
        worst = max(worst, float((ours[begin:end].double() - right).norm() / right.norm()) / 2**-7)
    if not worst <= 1:
        raise ArithmeticError(f"{worst:.2f} of the bound")
    return worst


OPS: Mapping[str, Callable[[], float]] = {
    "ops.rope": lambda: _rope(False),
    "ops.rope-neighbours": lambda: _rope(True),
    "ops.norm": _norm,
    "ops.gated": _gated,
    "ops.sequences": _sequences,
}
"""What is called as users call it, and gives the share of its bound by which it is off."""


__all__ = ["OPS"]
