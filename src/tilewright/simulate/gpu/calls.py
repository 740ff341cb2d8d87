"""The operators that one step of a decoder-only model calls, at their sizes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from tilewright.operators import OPERATORS
from tilewright.runtime.compiled import dtypes_of
from tilewright.simulate.decoder import Decoder


@dataclass(frozen=True)
class Step:
    """One pass: `batch` sequences of `tokens` new tokens each, which look back on `context`, the new ones included."""

    batch: int
    tokens: int
    context: int


@dataclass(frozen=True)
class Call:
    """An operator at its sizes, called `count` times in a step; `role` says for what."""

    role: str
    operator: str
    sizes: dict[str, int]
    count: int
    dtypes: dict[str, str]
    options: dict[str, Any] = field(default_factory=dict)


def calls(model: Decoder, step: Step, dtype: str) -> list[Call]:
    """The calls of a step as the engine makes them: logits for the last token of each sequence only.

    Of a prompt, the last layer works on the last token from its attention on; rows of keys and values are read as far
    as the context goes.
    """
    prompt = step.tokens > 1
    full = model.layers - 1 if prompt else model.layers
    rows = step.batch * step.tokens
    found = list(_before(model, step, dtype, rows))
    found += _layer(model, step, dtype, rows, step.tokens, full)
    if prompt:
        found += _layer(model, step, dtype, step.batch, 1, 1)
    head = _call("head", "matmul", dtype, 1, M=step.batch, N=model.vocab, K=model.hidden)
    return [*found, Call(head.role, head.operator, head.sizes, 1, {**head.dtypes, "c": "f32"}, head.options)]


def _before(model: Decoder, step: Step, dtype: str, rows: int) -> Iterator[Call]:
    """What runs on all tokens in every layer, and what comes before the first."""
    yield _call("embedding", "embedding", dtype, 1, N=rows, V=model.vocab, D=model.hidden)
    yield _call("first norm", "rmsnorm", dtype, 1, M=rows, D=model.hidden)
    qkv = (model.heads + 2 * model.kv_heads) * model.head_dim
    yield _call("qkv", "matmul", dtype, model.layers, M=rows, N=qkv, K=model.hidden)
    yield _call(
        "rope and cache", "rope_cache", dtype, model.layers,
        B=step.batch, S=step.tokens, Q=model.heads, R=model.head_dim // 2, H=model.kv_heads, D=model.head_dim,
        P=step.context, T=step.context,
    )  # fmt: skip


def _layer(model: Decoder, step: Step, dtype: str, rows: int, queries: int, count: int) -> list[Call]:
    """Attention and what follows it in a layer, on `rows` tokens, `queries` of each sequence."""
    if not count:
        return []
    group = model.heads // model.kv_heads
    return [
        _call(
            "attention", "attention", dtype, count, {"causal": True},
            B=step.batch, H=model.kv_heads, G=group, S=queries, D=model.head_dim, T=step.context, E=model.head_dim,
        ),
        _call("output", "matmul", dtype, count, M=rows, N=model.hidden, K=model.heads * model.head_dim),
        _call("norms", "add_rmsnorm", dtype, 2 * count, M=rows, D=model.hidden),
        _call("gate and up", "gate_up", dtype, count, M=rows, N=model.intermediate, K=model.hidden),
        _call("down", "matmul", dtype, count, M=rows, N=model.hidden, K=model.intermediate),
    ]  # fmt: skip


_FLOAT32 = {"cos", "sin"}
_PRESENT = {"attention": ("lengths",)}


def _call(role: str, name: str, dtype: str, count: int, options: dict[str, Any] | None = None, /, **sizes: int) -> Call:
    found = dtypes_of(OPERATORS[name].kernel, dtype, _PRESENT.get(name, ()))
    dtypes = {n: "f32" if n in _FLOAT32 else str(getattr(d, "name", d)) for n, d in found.items()}
    for n in _PRESENT.get(name, ()):
        dtypes[n] = "i32"
    return Call(role, name, sizes, count, dtypes, options or {})


__all__ = ["Call", "Step", "calls"]
