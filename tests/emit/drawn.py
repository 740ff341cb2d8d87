"""Strategies for calls of every operator: shapes with zeros, ones, odd sizes; every optional operand and option."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from cases import FLOATS, Case, Memory
from hypothesis import strategies as st

from tilewright import operators
from tilewright.operators.activation import ACTIVATIONS

Draw = Callable[[Any], Any]
SIZES = st.sampled_from((0, 1, 2, 3, 5, 8, 13, 16, 17, 33, 70))
SMALL = st.sampled_from((1, 2, 3, 5, 9))
HEADS = st.sampled_from((1, 2, 3))
# Whole dimensions are part of a kernel: few of them, or every case would be compiled for itself.
WHOLE = st.sampled_from((3, 16))
WIDTHS = st.sampled_from(((5, 7), (16, 16)))


def _matmul(draw: Draw, memory: Memory, kind: Any) -> Case:
    m, n, k = draw(SIZES), draw(SIZES), draw(SIZES)
    inputs = {"a": memory.normal((m, k), kind), "b": memory.normal((n, k), kind)}
    full = draw(st.booleans())
    if full:
        inputs |= {"bias": memory.normal((n,), kind), "residual": memory.normal((m, n), kind)}
    options = {"activation": "silu" if full else None}
    return Case(operators.matmul, inputs, {"c": ((m, n), kind)}, options=options)


def _gate_up(draw: Draw, memory: Memory, kind: Any) -> Case:
    m, n, k = draw(SIZES), draw(SIZES), draw(SIZES)
    inputs = {"x": memory.normal((m, k), kind), "gate": memory.normal((n, k), kind), "up": memory.normal((n, k), kind)}
    return Case(operators.gate_up, inputs, {"y": ((m, n), kind)})


def _batched_matmul(draw: Draw, memory: Memory, kind: Any) -> Case:
    b, m, n, k = draw(SMALL), draw(SIZES), draw(SIZES), draw(SIZES)
    inputs = {"a": memory.normal((b, m, k), kind), "b": memory.normal((b, n, k), kind)}
    return Case(operators.batched_matmul, inputs, {"c": ((b, m, n), kind)})


def _rmsnorm(draw: Draw, memory: Memory, kind: Any) -> Case:
    m, d = draw(SIZES), draw(SIZES)
    inputs = {"x": memory.normal((m, d), kind), "weight": memory.normal((d,), kind)}
    return Case(operators.rmsnorm, inputs, {"y": ((m, d), kind)}, {"eps": 1e-5})


def _add_rmsnorm(draw: Draw, memory: Memory, kind: Any) -> Case:
    m, d = draw(SIZES), draw(SIZES)
    inputs = {n: memory.normal((m, d), kind) for n in ("x", "residual")} | {"weight": memory.normal((d,), kind)}
    outputs = {"total": ((m, d), kind), "y": ((m, d), kind)}
    return Case(operators.add_rmsnorm, inputs, outputs, {"eps": 1e-5})


def _layernorm(draw: Draw, memory: Memory, kind: Any) -> Case:
    m, d = draw(SIZES), draw(SIZES)
    inputs = {"x": memory.normal((m, d), kind), "weight": memory.normal((d,), kind)}
    if draw(st.booleans()):
        inputs["bias"] = memory.normal((d,), kind)
    return Case(operators.layernorm, inputs, {"y": ((m, d), kind)}, {"eps": 1e-5})


def _rmsnorm_backward(draw: Draw, memory: Memory, kind: Any) -> Case:
    m, d = draw(SIZES), draw(SIZES)
    inputs = {n: memory.normal((m, d), kind) for n in ("x", "dy")} | {"weight": memory.normal((d,), kind)}
    outputs = {"dx": ((m, d), kind), "scale": ((m,), np.float32)}
    return Case(operators.rmsnorm_backward, inputs, outputs, {"eps": 1e-5})


def _rmsnorm_weight_backward(draw: Draw, memory: Memory, kind: Any) -> Case:
    m, d = draw(SIZES), draw(SIZES)
    inputs = {n: memory.normal((m, d), kind) for n in ("x", "dy")} | {"scale": memory.normal((m,))}
    return Case(operators.rmsnorm_weight_backward, inputs, {"dweight": ((d,), kind)})


def _rows(
    name: str, inputs: tuple[str, ...], spread: float = 1.0, outputs: tuple[str, ...] = ("y",)
) -> Callable[..., Case]:
    def case(draw: Draw, memory: Memory, kind: Any) -> Case:
        m, d = draw(SIZES), draw(SIZES)
        values = {n: memory.laid_out((memory.normal((m, d)) * np.float32(spread)).astype(kind)) for n in inputs}
        return Case(operators.OPERATORS[name], values, dict.fromkeys(outputs, ((m, d), kind)))

    return case


def _gelu(draw: Draw, memory: Memory, kind: Any) -> Case:
    case = _rows("gelu", ("x",), 4.0)(draw, memory, kind)
    case.options = {"activation": draw(st.sampled_from(ACTIVATIONS[1:3]))}
    return case


def _scale_add(draw: Draw, memory: Memory, kind: Any) -> Case:
    m, d = draw(SIZES), draw(SIZES)
    inputs = {n: memory.normal((m, d), kind) for n in ("a", "b")}
    return Case(operators.scale_add, inputs, {"c": ((m, d), kind)}, {"alpha": draw(st.sampled_from((0.0, -1.5)))})


def _rope(draw: Draw, memory: Memory, kind: Any) -> Case:
    b, s, h, r = draw(SMALL), draw(SMALL), draw(HEADS), draw(WHOLE)
    inputs = {"x": memory.normal((b, s, h, 2, r), kind)}
    inputs |= {n: memory.normal((s + 3, 2, r), np.float32) for n in ("cos", "sin")}
    outputs = {"y": ((b, s, h, 2, r), kind)}
    if draw(st.booleans()):
        inputs["positions"] = memory.laid_out(memory.random.integers(0, s + 3, (b, s)))
        inputs["rest"] = memory.normal((b, s, h, 5), kind)
        outputs["rest_y"] = ((b, s, h, 5), kind)
    return Case(operators.rope, inputs, outputs, options={"inverse": draw(st.booleans())})


def _cached(memory: Memory, kind: Any, lead: tuple[int, ...], heads: tuple[int, int], r: int) -> dict[str, Any]:
    q, h = heads
    return {
        "q": memory.normal((*lead, q, 2, r), kind),
        "k": memory.normal((*lead, h, 2, r), kind),
        "v": memory.normal((*lead, h, 2 * r), kind),
        "cos": memory.normal((12, 2, r)),
        "sin": memory.normal((12, 2, r)),
    }


def _rope_cache(draw: Draw, memory: Memory, kind: Any) -> Case:
    b, s, q, h, r = draw(SMALL), draw(SMALL), draw(SMALL), draw(HEADS), draw(WHOLE)
    first = memory.random.integers(0, 12 - s, b)
    inputs = _cached(memory, kind, (b, s), (q, h), r) | {
        "positions": memory.laid_out(first[:, None] + np.arange(s)),
        "k_cache": memory.normal((b, h, 12, 2, r), kind),
        "v_cache": memory.normal((b, h, 12, 2 * r), kind),
    }
    if draw(st.booleans()):
        inputs |= {n: memory.normal((2, r), kind) for n in ("q_norm", "k_norm")}
    sources = {"q_out": "q", "k_cache": "k_cache", "v_cache": "v_cache"}
    outputs = {n: (inputs[source].shape, kind) for n, source in sources.items()}
    return Case(operators.rope_cache, inputs, outputs, {"eps": 1e-6})


def _paged_rope_cache(draw: Draw, memory: Memory, kind: Any) -> Case:
    tokens, q, h, r = draw(st.sampled_from((0, 1, 4, 9))), draw(SMALL), draw(HEADS), draw(WHOLE)
    size, pages = 3, tokens // 2 + 1
    inputs = _cached(memory, kind, (tokens,), (q, h), r) | {
        "positions": memory.laid_out(memory.random.integers(0, 9, (tokens,))),
        "slots": memory.laid_out(memory.random.permutation(size * pages)[:tokens]),
        "k_pages": memory.normal((pages, h, size, 2, r), kind),
        "v_pages": memory.normal((pages, h, size, 2 * r), kind),
    }
    sources = {"q_out": "q", "k_pages": "k_pages", "v_pages": "v_pages"}
    outputs = {n: (inputs[source].shape, kind) for n, source in sources.items()}
    return Case(operators.paged_rope_cache, inputs, outputs, {"eps": 1e-6})


def _attention(draw: Draw, memory: Memory, kind: Any) -> Case:
    b, h, g, s = draw(HEADS), draw(HEADS), draw(SMALL), draw(SIZES)
    t, (d, e) = draw(SIZES), draw(WIDTHS)
    inputs = {
        "q": memory.normal((b, h, g, s, d), kind),
        "k": memory.normal((b, h, t, d), kind),
        "v": memory.normal((b, h, t, e), kind),
    }
    if draw(st.booleans()):
        inputs["lengths"] = memory.laid_out(memory.random.integers(0, t + 1, (b,)))
        for i, length in enumerate(inputs["lengths"]):  # what lies behind a sequence must not matter
            inputs["k"][i, :, length:], inputs["v"][i, :, length:] = np.nan, np.nan
    outputs = {"o": ((b, h, g, s, e), kind), **_sums(draw, (b, h, g, s))}
    case = Case(operators.attention, inputs, outputs, {"scale": 0.4})
    causal = draw(st.booleans())
    case.options = {"causal": causal, "window": 5 if causal and draw(st.booleans()) else None}
    return case


def _paged_attention(draw: Draw, memory: Memory, kind: Any) -> Case:
    b, h, g, s, page, row = draw(HEADS), draw(HEADS), draw(SMALL), draw(SMALL), draw(st.sampled_from((1, 4, 16))), 3
    d = draw(WHOLE)
    table = memory.random.permutation(b * row + 2)[: b * row].reshape(b, row)
    lengths = memory.laid_out(memory.random.integers(0, row * page + 1, (b,)))
    inputs = {
        "q": memory.normal((b, h, g, s, d), kind),
        "k_pages": memory.normal((b * row + 2, h, page, d), kind),
        "v_pages": memory.normal((b * row + 2, h, page, d), kind),
        "page_table": memory.laid_out(table),
        "lengths": lengths,
    }
    for i, length in enumerate(lengths):
        for place in range(int(length), row * page):
            for name in ("k_pages", "v_pages"):
                inputs[name][table[i, place // page], :, place % page] = np.nan
    outputs = {"o": ((b, h, g, s, d), kind), **_sums(draw, (b, h, g, s))}
    case = Case(operators.paged_attention, inputs, outputs, {"scale": 0.4})
    case.options = {"causal": draw(st.booleans()), "window": None}
    return case


def _sums(draw: Draw, shape: tuple[int, ...]) -> dict[str, Any]:
    """Logarithms of sums, of some calls."""
    return {"lse": (shape, np.float32)} if draw(st.booleans()) else {}


def _packed_attention(draw: Draw, memory: Memory, kind: Any) -> Case:
    h, g, n, t, (d, e) = draw(HEADS), draw(SMALL), draw(SIZES), draw(SIZES), draw(WIDTHS)
    first, past = (memory.laid_out(memory.random.integers(0, t + 1, (n,)).astype(np.int32)) for _ in range(2))
    inputs = {
        "q": memory.normal((h, g, n, d), kind),
        "k": memory.normal((h, t, d), kind),
        "v": memory.normal((h, t, e), kind),
        "first": first,
        "past": past,
    }
    low, high = int(first.min(initial=t)), int(past.max(initial=0))
    for name in ("k", "v"):  # what no query sees must not matter
        inputs[name][:, :low], inputs[name][:, max(low, high) :] = np.nan, np.nan
    outputs = {"o": ((h, g, n, e), kind), **_sums(draw, (h, g, n))}
    return Case(operators.packed_attention, inputs, outputs, {"scale": 0.4}, {"single": draw(st.booleans())})


def _key_ranges(draw: Draw, memory: Memory, kind: Any) -> Case:
    count = draw(SIZES)
    ends = [np.concatenate([[0], memory.random.integers(0, 40, count).cumsum()]).astype(np.int32) for _ in "qk"]
    inputs = {f"{x}_{word}": memory.laid_out(at) for x, found in zip("qk", ends, strict=True)
              for word, at in (("from", found[:-1]), ("to", found[1:]))}  # fmt: skip
    outputs = dict.fromkeys(("first", "past"), ((int(ends[0][-1]),), np.int32))
    options = {"causal": draw(st.booleans()), "window": 5 if draw(st.booleans()) else None}
    return Case(operators.key_ranges, inputs, outputs, options=options)


def _embedding(draw: Draw, memory: Memory, kind: Any) -> Case:
    n, vocabulary, d = draw(SIZES), draw(SMALL), draw(SIZES)
    ids = memory.laid_out(memory.random.integers(0, vocabulary, (n,)))
    inputs = {"ids": ids, "table": memory.normal((vocabulary, d), kind)}
    return Case(operators.embedding, inputs, {"y": ((n, d), kind)})


def _argmax(draw: Draw, memory: Memory, kind: Any) -> Case:
    m, d = draw(SIZES), draw(st.sampled_from((1, 2, 3, 16, 33, 70)))
    x = memory.normal((m, d), kind)
    if draw(st.booleans()):  # ties
        x[...] = memory.random.integers(-2, 2, (m, d)).astype(kind)
    return Case(operators.argmax, {"x": x}, {"index": ((m,), np.int64)})


def _topk(draw: Draw, memory: Memory, kind: Any) -> Case:
    m, d, k = draw(SIZES), draw(st.sampled_from((5, 16, 33, 70))), draw(st.sampled_from((1, 2, 5)))
    x = memory.normal((m, d), kind)
    if draw(st.booleans()):  # ties
        x[...] = memory.random.integers(-2, 2, (m, d)).astype(kind)
    outputs = {"values": ((m, k), kind), "index": ((m, k), np.int64)}
    return Case(operators.topk, {"x": x}, outputs, options={"k": k})


BUILDERS: dict[str, Callable[..., Case]] = {
    "matmul": _matmul,
    "gate_up": _gate_up,
    "batched_matmul": _batched_matmul,
    "rmsnorm": _rmsnorm,
    "add_rmsnorm": _add_rmsnorm,
    "layernorm": _layernorm,
    "softmax": _rows("softmax", ("x",), 20.0),
    "silu": _rows("silu", ("x",), 10.0),
    "gelu": _gelu,
    "geglu": _rows("geglu", ("gate", "up"), 3.0),
    "swiglu": _rows("swiglu", ("gate", "up"), 3.0),
    "scale_add": _scale_add,
    "rope": _rope,
    "rope_cache": _rope_cache,
    "paged_rope_cache": _paged_rope_cache,
    "attention": _attention,
    "paged_attention": _paged_attention,
    "packed_attention": _packed_attention,
    "key_ranges": _key_ranges,
    "embedding": _embedding,
    "argmax": _argmax,
    "topk": _topk,
    "rmsnorm_backward": _rmsnorm_backward,
    "rmsnorm_weight_backward": _rmsnorm_weight_backward,
    "softmax_backward": _rows("softmax_backward", ("y", "dy"), 1.0, ("dx",)),
    "swiglu_backward": _rows("swiglu_backward", ("gate", "up", "dy"), 3.0, ("dgate", "dup")),
    "geglu_backward": _rows("geglu_backward", ("gate", "up", "dy"), 3.0, ("dgate", "dup")),
}
elements = st.sampled_from(FLOATS)


def case(draw: Draw, name: str, memory: Memory, kind: Any) -> Case:
    """A drawn call of the operator `name` on elements of type `kind`."""
    return BUILDERS[name](draw, memory, kind)
