"""What a user of torch writes instead of a tile program, on the same operands, by the program's name.

torch is imported when an expression is asked for. Expressions give a new tensor, as torch's users have it.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import ml_dtypes
import numpy as np
import numpy.typing as npt

from tilewright.models.memory import aligned_empty
from tilewright.runtime.inputs import Operands

if TYPE_CHECKING:
    from tilewright.runtime.subject import Subject

Tensors = Mapping[str, Any]
Expression = Callable[[Tensors], Any]
NAME, COMPILED = "torch", "torch.compile"


def vendor_of(subject: Subject, peer: str = NAME) -> Expression | None:
    """The expression that computes what `subject` does (its results are returned); None where there is none here.

    It takes tensors and scalars by the names of the program's parameters. `peer` is `torch` or `torch.compile`.
    """
    import torch

    options = {name: value for name, value in subject.options if value not in (None, False)}
    expression = None if subject.operator is None else _EXPRESSIONS.get(subject.operator.name)
    if expression is None or not set(options) <= _UNDERSTOOD.get(subject.kernel.name, set()):
        return None
    wanted: Expression = lambda t: expression({**t, **options})  # noqa: E731
    return torch.compile(wanted) if peer == COMPILED else wanted


def compiles() -> bool:
    """Whether torch.compile has the C++ compiler that its CPU backend needs."""
    return any(shutil.which(name) for name in (os.environ.get("CXX") or "", "g++", "clang++") if name)


_UNDERSTOOD = {"attention": {"causal"}, "gelu": {"activation"}}
"""Options of a program that its expression takes into account; with others there is nothing to compare with."""


def _matmul(t: Tensors) -> Any:
    import torch.nn.functional as F

    y = F.linear(t["a"], t["b"], t.get("bias"))
    return y if t.get("residual") is None else y + t["residual"]


def _attention(t: Tensors) -> Any:
    import torch.nn.functional as F

    q = t["q"].flatten(1, 2)
    causal = bool(t.get("causal"))
    return F.scaled_dot_product_attention(q, t["k"], t["v"], is_causal=causal, scale=t["scale"], enable_gqa=True)


def _rope(t: Tensors) -> Any:
    import torch

    x = t["x"].flatten(3, 4)
    cos, sin = (t[n].flatten(1, 2)[: x.shape[1], None] for n in ("cos", "sin"))
    half = x.shape[-1] // 2
    return x * cos + torch.cat((-x[..., half:], x[..., :half]), dim=-1) * sin


def _functional(call: Callable[[Any, Tensors], Any]) -> Expression:
    def run(t: Tensors) -> Any:
        import torch.nn.functional as F

        return call(F, t)

    return run


def _add_rmsnorm(F: Any, t: Tensors) -> Any:
    total = t["x"] + t["residual"]
    return total, F.rms_norm(total, t["weight"].shape, t["weight"], t["eps"])


_EXPRESSIONS: dict[str, Expression] = {
    "matmul": _matmul,
    "gate_up": _functional(lambda F, t: F.silu(F.linear(t["x"], t["gate"])) * F.linear(t["x"], t["up"])),
    "batched_matmul": lambda t: t["a"] @ t["b"].mT,
    "rmsnorm": _functional(lambda F, t: F.rms_norm(t["x"], t["weight"].shape, t["weight"], t["eps"])),
    "add_rmsnorm": _functional(_add_rmsnorm),
    "layernorm": _functional(lambda F, t: F.layer_norm(t["x"], t["weight"].shape, t["weight"], eps=t["eps"])),
    "softmax": _functional(lambda F, t: F.softmax(t["x"], dim=-1)),
    "silu": _functional(lambda F, t: F.silu(t["x"])),
    "gelu": _functional(lambda F, t: F.gelu(t["x"], approximate="none" if t["activation"] == "gelu" else "tanh")),
    "swiglu": _functional(lambda F, t: F.silu(t["gate"]) * t["up"]),
    "scale_add": lambda t: t["alpha"] * t["a"] + t["b"],
    "rope": _rope,
    "attention": _attention,
}


def tensors_of(operands: Operands) -> dict[str, Any]:
    """The operands as torch tensors that share their memory, with the scalars."""
    return {**{n: tensor_of(x) for n, x in operands.tensors.items()}, **operands.scalars}


def tensor_of(x: npt.NDArray[Any]) -> Any:
    """An array as a torch tensor on the same memory; bf16 too."""
    import torch

    if x.dtype == ml_dtypes.bfloat16:
        return torch.from_numpy(x.view(np.uint16)).view(torch.bfloat16)
    return torch.from_numpy(x)


def aligned(operands: Operands) -> Operands:
    """The same operands in memory that begins at a cache line, as weights and activations of a model do."""
    return Operands(dict(operands.sizes), {n: _aligned(x) for n, x in operands.tensors.items()}, dict(operands.scalars))


def _aligned(x: npt.NDArray[Any]) -> npt.NDArray[Any]:
    order = sorted(range(x.ndim), key=lambda d: -abs(x.strides[d]))
    copy = aligned_empty(tuple(x.shape[d] for d in order), x.dtype).transpose(np.argsort(order))
    copy[...] = x
    return copy
