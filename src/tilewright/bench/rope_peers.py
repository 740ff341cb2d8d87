"""Rotary embedding as people write it: eager torch, torch.compile, Triton, and vendors' fused kernels where installed.

Each contestant is a function (x[B, S, H, D], cos[S, D], sin[S, D]) -> y that torch's autograd records.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from typing import Any

import torch

from tilewright import ops
from tilewright.bench.vendor import COMPILED, compiles

Tensor = Any
Contestant = Callable[[Tensor, Tensor, Tensor], Tensor]

OURS, IN_PLACE, EAGER, LIGER = "tilewright", "tilewright in place", "torch", "liger in place"


def eager(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """As the models of transformers write it."""
    half = x.shape[-1] // 2
    rotated = torch.cat((-x[..., half:], x[..., :half]), dim=-1)
    return x * cos[None, :, None] + rotated * sin[None, :, None]


def contestants(device: str) -> dict[str, Contestant]:
    """By name, eager torch first; those that this device or this installation lacks are left out."""
    found: dict[str, Contestant] = {EAGER: eager}
    if device == "cuda" or compiles():
        found[COMPILED] = torch.compile(eager, dynamic=False)
    found[OURS] = ops.rope
    if device == "cuda":
        found |= _fused()
    return found


def in_place(device: str, way: str) -> dict[str, Contestant]:
    """Those that overwrite x and, on the way back, the gradient that comes in: each needs operands of its own."""
    found: dict[str, Contestant] = {}
    if way == "forward":  # the way back of ours leaves the gradient as it is
        found[IN_PLACE] = _ours_in_place
    if device == "cuda" and importlib.util.find_spec("liger_kernel"):
        found[LIGER] = _liger
    return found


def _ours_in_place(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    return ops.rope(x, cos, sin, out=x)


def _fused() -> dict[str, Contestant]:
    """Kernels written by hand, on a GPU."""
    found: dict[str, Contestant] = {}
    if importlib.util.find_spec("triton"):
        from tilewright.bench.rope_triton import rope

        found["triton"] = rope
    if importlib.util.find_spec("transformer_engine"):
        found["transformer_engine"] = _transformer_engine
    return found


def _transformer_engine(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Takes angles and makes the table itself, inside the kernel."""
    from transformer_engine.pytorch.attention.rope import apply_rotary_pos_emb

    angles = torch.atan2(sin.float(), cos.float())[:, None, None]
    return apply_rotary_pos_emb(x, angles, tensor_format="bshd", fused=True)


def _liger(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turns q and k together, heads before positions: k is one head of anything, for it cannot do without."""
    from liger_kernel.transformers.rope import liger_rotary_pos_emb

    one = x.new_empty(x.shape[0], 1, x.shape[1], x.shape[3])
    turned, _ = liger_rotary_pos_emb(x.transpose(1, 2), one, cos[None], sin[None])
    return turned.transpose(1, 2)
