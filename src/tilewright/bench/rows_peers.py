"""Row operators as people write them in torch: eager, and what torch.compile is given."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from tilewright.bench.rows_cases import RowCase

EPS, ALPHA = 1e-5, 0.7


def peer_of(case: RowCase, tensors: Mapping[str, Any]) -> tuple[Callable[..., Any], tuple[Any, ...]]:
    """The function of a case and its arguments."""
    if case.operator == "rope":
        return _rope_of(case, tensors)
    names, function = _PEERS[case.operator]
    return function, tuple(tensors[n] for n in names)


def _rope_of(case: RowCase, tensors: Mapping[str, Any]) -> tuple[Callable[..., Any], tuple[Any, ...]]:
    cos, sin = (_whole_heads(tensors[n]) for n in ("cos", "sin"))
    if case.interleaved:
        return _rope_interleaved, (tensors["x"].transpose(-1, -2), tensors["cos"][:, 0], tensors["sin"][:, 0])
    x = _whole_heads(tensors["x"])
    if "rest" in tensors:
        return _rope_of_a_part, (x, tensors["rest"], cos, sin)
    if "positions" in tensors:
        return _rope_at, (x, cos, sin, tensors["positions"])
    return (_rope_backward if dict(case.options).get("inverse") else _rope), (x, cos, sin)


def _whole_heads(x: Any) -> Any:
    """[..., 2, R] as [..., 2 R]: the halves of a head are neighbours in memory."""
    return x.reshape(*x.shape[:-2], -1)


def _functional() -> Any:
    import torch

    return torch.nn.functional


def _rmsnorm(x: Any, weight: Any) -> Any:
    return _functional().rms_norm(x, (x.shape[-1],), weight, EPS)


def _add_rmsnorm(x: Any, residual: Any, weight: Any) -> Any:
    total = x + residual
    return total, _functional().rms_norm(total, (x.shape[-1],), weight, EPS)


def _layernorm(x: Any, weight: Any, bias: Any) -> Any:
    return _functional().layer_norm(x, (x.shape[-1],), weight, bias, EPS)


def _softmax(x: Any) -> Any:
    return x.softmax(-1)


def _silu(x: Any) -> Any:
    return _functional().silu(x)


def _gelu(x: Any) -> Any:
    return _functional().gelu(x)


def _swiglu(gate: Any, up: Any) -> Any:
    return _functional().silu(gate) * up


def _geglu(gate: Any, up: Any) -> Any:
    return _functional().gelu(gate) * up


def _scale_add(a: Any, b: Any) -> Any:
    return ALPHA * a + b


def _embedding(ids: Any, table: Any) -> Any:
    return _functional().embedding(ids, table)


def _argmax(x: Any) -> Any:
    return x.argmax(-1)


def _topk(x: Any) -> Any:
    return x.topk(8)


def _rope(x: Any, cos: Any, sin: Any) -> Any:
    import torch

    half = x.shape[-1] // 2
    crossed = torch.cat((-x[..., half:], x[..., :half]), -1)
    return x * cos[None, :, None] + crossed * sin[None, :, None]


def _rope_interleaved(x: Any, cos: Any, sin: Any) -> Any:
    """x[B, S, H, R, 2], as complex numbers times those of the tables; the result as x stands, [..., 2, R]."""
    import torch

    turned, c, s = x.float(), cos[None, :, None], sin[None, :, None]
    first, second = turned[..., 0], turned[..., 1]
    y = torch.stack((first * c - second * s, second * c + first * s), -1)
    return y.to(x.dtype).transpose(-1, -2)


def _rope_of_a_part(x: Any, rest: Any, cos: Any, sin: Any) -> Any:
    return _rope(x, cos, sin), rest.clone()


def _rope_at(x: Any, cos: Any, sin: Any, positions: Any) -> Any:
    import torch

    half = x.shape[-1] // 2
    crossed = torch.cat((-x[..., half:], x[..., :half]), -1)
    return x * cos[positions][:, :, None] + crossed * sin[positions][:, :, None]


def _rope_backward(dy: Any, cos: Any, sin: Any) -> Any:
    import torch

    half = dy.shape[-1] // 2
    turned = dy * sin[None, :, None]
    return dy * cos[None, :, None] + torch.cat((turned[..., half:], -turned[..., :half]), -1)


def _rmsnorm_backward(x: Any, weight: Any, dy: Any) -> Any:
    import torch

    wide, slope = x.float(), weight.float() * dy.float()
    scale = torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + EPS)
    along = (slope * wide).mean(-1, keepdim=True)
    return (scale * (slope - wide * scale * scale * along)).to(x.dtype), scale


def _rmsnorm_weight_backward(x: Any, dy: Any, scale: Any) -> Any:
    return (x.float() * dy.float() * scale[:, None]).sum(0).to(x.dtype)


def _softmax_backward(y: Any, dy: Any) -> Any:
    wide, slope = y.float(), dy.float()
    return (wide * (slope - (wide * slope).sum(-1, keepdim=True))).to(y.dtype)


def _swiglu_backward(gate: Any, up: Any, dy: Any) -> Any:
    import torch

    wide, slope = gate.float(), dy.float()
    share = torch.sigmoid(wide)
    dgate = slope * up.float() * share * (1 + wide * (1 - share))
    return dgate.to(gate.dtype), (slope * wide * share).to(gate.dtype)


def _geglu_backward(gate: Any, up: Any, dy: Any) -> Any:
    import torch

    dgate = torch.ops.aten.gelu_backward(dy * up, gate)
    return dgate, dy * _functional().gelu(gate)


_PEERS: dict[str, tuple[tuple[str, ...], Callable[..., Any]]] = {
    "rmsnorm": (("x", "weight"), _rmsnorm),
    "add_rmsnorm": (("x", "residual", "weight"), _add_rmsnorm),
    "layernorm": (("x", "weight", "bias"), _layernorm),
    "softmax": (("x",), _softmax),
    "silu": (("x",), _silu),
    "gelu": (("x",), _gelu),
    "swiglu": (("gate", "up"), _swiglu),
    "geglu": (("gate", "up"), _geglu),
    "scale_add": (("a", "b"), _scale_add),
    "embedding": (("ids", "table"), _embedding),
    "argmax": (("x",), _argmax),
    "topk": (("x",), _topk),
    "rmsnorm_backward": (("x", "weight", "dy"), _rmsnorm_backward),
    "rmsnorm_weight_backward": (("x", "dy", "scale"), _rmsnorm_weight_backward),
    "softmax_backward": (("y", "dy"), _softmax_backward),
    "swiglu_backward": (("gate", "up", "dy"), _swiglu_backward),
    "geglu_backward": (("gate", "up", "dy"), _geglu_backward),
}

__all__ = ["peer_of"]
