"""Calls of every operator with drawn sizes: NumPy inputs in the kernel's layout, seeded."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import ml_dtypes
import numpy as np

from tilewright.operators import OPERATORS
from tilewright.operators.operator import Exact, Operator

TYPES = {"f32": np.dtype(np.float32), "bf16": np.dtype(ml_dtypes.bfloat16), "f16": np.dtype(np.float16)}


@dataclass
class Call:
    """One call: inputs, outputs by shape and type, scalars and options."""

    operator: Operator
    inputs: dict[str, Any]
    outputs: dict[str, tuple[tuple[int, ...], Any]]
    scalars: dict[str, float] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)

    def expected(self) -> dict[str, Exact]:
        found = self.operator.reference(**self.inputs, **self.scalars, **self.options)
        return {n: exact for n, exact in found.items() if n in self.outputs or n in self.operator.updates}

    @property
    def bytes(self) -> int:
        """Bytes of all operands."""
        out = sum(int(np.prod(s)) * np.dtype(t).itemsize for s, t in self.outputs.values())
        return out + sum(x.nbytes for n, x in self.inputs.items() if x is not None and n not in self.outputs)


class Draw:
    """Draws operands of one element type."""

    def __init__(self, seed: int, element: str) -> None:
        self.random, self.type = np.random.default_rng(seed), TYPES[element]

    def normal(self, *shape: int) -> Any:
        return self.random.standard_normal(shape, dtype=np.float32).astype(self.type)

    def whole(self, high: int, *shape: int) -> Any:
        return self.random.integers(0, max(high, 1), shape).astype(np.int32)

    def size(self, *choices: int) -> int:
        return int(self.random.choice(choices))


def draw(name: str, seed: int, element: str = "bf16", large: bool = False) -> Call:
    """A call of the operator `name`: odd sizes, or those of a model where `large`."""
    d = Draw(seed, element)
    return _MAKERS[name](d, large)


def _call(name: str, inputs: dict[str, Any], outputs: dict[str, Any], **more: Any) -> Call:
    return Call(OPERATORS[name], inputs, outputs, more.get("scalars", {}), more.get("options", {}))


def _rows(d: Draw, large: bool) -> tuple[int, int]:
    if large:
        return 4096, 4096
    return d.size(1, 3, 17, 64), d.size(1, 2, 7, 63, 64, 128, 257, 1000, 4096, 5003)


def _elementwise(name: str, operands: tuple[str, ...], *results: str, **scalars: float) -> Any:
    def make(d: Draw, large: bool) -> Call:
        m, n = _rows(d, large)
        outputs = dict.fromkeys(results, ((m, n), d.type))
        return _call(name, {o: d.normal(m, n) for o in operands}, outputs, scalars=dict(scalars))

    return make


def _norm(name: str, extra: tuple[str, ...], outputs: tuple[str, ...], vectors: tuple[str, ...]) -> Any:
    def make(d: Draw, large: bool) -> Call:
        m, n = _rows(d, large)
        inputs = {"x": d.normal(m, n), **{e: d.normal(m, n) for e in extra}, **{v: d.normal(n) for v in vectors}}
        return _call(name, inputs, dict.fromkeys(outputs, ((m, n), d.type)), scalars={"eps": 1e-5})

    return make


def _rmsnorm_backward(d: Draw, large: bool) -> Call:
    m, n = _rows(d, large)
    inputs = {"x": d.normal(m, n), "dy": d.normal(m, n), "weight": d.normal(n)}
    outputs = {"dx": ((m, n), d.type), "scale": ((m,), np.dtype(np.float32))}
    return _call("rmsnorm_backward", inputs, outputs, scalars={"eps": 1e-5})


def _rmsnorm_weight_backward(d: Draw, large: bool) -> Call:
    m, n = _rows(d, large)
    inputs = {"x": d.normal(m, n), "dy": d.normal(m, n), "scale": d.normal(m)}
    return _call("rmsnorm_weight_backward", inputs, {"dweight": ((n,), d.type)})


def _softmax(d: Draw, large: bool) -> Call:
    m, n = _rows(d, large)
    return _call("softmax", {"x": d.normal(m, n)}, {"y": ((m, n), d.type)})


def _argmax(d: Draw, large: bool) -> Call:
    m, n = (64, 128256) if large else _rows(d, False)
    return _call("argmax", {"x": d.normal(m, n)}, {"index": ((m,), np.dtype(np.int32))})


def _topk(d: Draw, large: bool) -> Call:
    m, n = (64, 128256) if large else (d.size(1, 3, 17), d.size(7, 63, 257, 1000))
    k, x = d.size(1, 5, 7), d.normal(m, n)
    if d.size(0, 1):  # ties, and rows of -inf
        x = d.random.integers(-3, 3, (m, n)).astype(d.type)
        x[0] = -np.inf
    outputs = {"values": ((m, k), d.type), "index": ((m, k), np.dtype(np.int32))}
    return _call("topk", {"x": x}, outputs, options={"k": k})


def _embedding(d: Draw, large: bool) -> Call:
    n, v, w = (4096, 32000, 4096) if large else (d.size(1, 5, 33), d.size(3, 100), d.size(1, 7, 64, 1000, 4096))
    return _call("embedding", {"ids": d.whole(v, n), "table": d.normal(v, w)}, {"y": ((n, w), d.type)})


def _matmul(d: Draw, large: bool) -> Call:
    m, n, k = (
        (1, 4096, 4096) if large else (d.size(1, 3, 8, 17, 70, 130), d.size(1, 16, 65, 200), d.size(1, 8, 31, 64, 500))
    )
    inputs: dict[str, Any] = {"a": d.normal(m, k), "b": d.normal(n, k)}
    options: dict[str, Any] = {}
    if not large and d.size(0, 1):
        inputs |= {"bias": d.normal(n), "residual": d.normal(m, n)}
        options["activation"] = ("gelu", "silu", "gelu_tanh", "relu")[d.size(0, 1, 2, 3)]
    if not large and d.size(0, 1):
        inputs |= {"row_scale": _positive(d, m), "column_scale": d.random.standard_normal(n, dtype=np.float32)}
    return _call("matmul", inputs, {"c": ((m, n), d.type)}, options=options)


def _gate_up(d: Draw, large: bool) -> Call:
    m, n, k = (4, 4096, 4096) if large else (d.size(1, 5, 17, 70), d.size(1, 16, 65, 200), d.size(8, 31, 64, 500))
    return _call(
        "gate_up", {"x": d.normal(m, k), "gate": d.normal(n, k), "up": d.normal(n, k)}, {"y": ((m, n), d.type)}
    )


def _batched(d: Draw, large: bool) -> Call:
    b, m, n, k = (
        (8, 128, 128, 128) if large else (d.size(1, 3), d.size(1, 9, 70), d.size(1, 65, 200), d.size(8, 31, 64))
    )
    return _call("batched_matmul", {"a": d.normal(b, m, k), "b": d.normal(b, n, k)}, {"c": ((b, m, n), d.type)})


def _angles(d: Draw, positions: int, half: int) -> tuple[Any, Any]:
    angle = d.random.standard_normal((positions, 2, half))
    return np.cos(angle).astype(d.type), np.sin(angle).astype(d.type)


def _rope(d: Draw, large: bool) -> Call:
    b, s, h, r = (8, 512, 32, 64) if large else (d.size(1, 2), d.size(1, 5), d.size(1, 3, 8), d.size(4, 16, 40, 64))
    cos, sin = _angles(d, 600, r)
    inputs = {"x": d.normal(b, s, h, 2, r), "cos": cos, "sin": sin, "positions": d.whole(600, b, s)}
    outputs = {"y": ((b, s, h, 2, r), d.type)}
    if not large and d.size(0, 1):
        inputs["rest"] = d.normal(b, s, h, 24)
        outputs["rest_y"] = ((b, s, h, 24), d.type)
    return _call("rope", inputs, outputs)


def _rope_cache(d: Draw, large: bool) -> Call:
    b, s, q, h, r, t = (
        (8, 128, 32, 8, 64, 512) if large else (d.size(1, 2), d.size(1, 5), d.size(2, 4), 2, d.size(8, 40, 64), 9)
    )
    cos, sin = _angles(d, t, r)
    places = np.stack([d.random.permutation(t)[:s] for _ in range(b)]).astype(np.int32)
    inputs = {
        "q": d.normal(b, s, q, 2, r), "k": d.normal(b, s, h, 2, r), "v": d.normal(b, s, h, 2 * r),
        "cos": cos, "sin": sin, "positions": places, "q_norm": d.normal(2, r), "k_norm": d.normal(2, r),
        "k_cache": d.normal(b, h, t, 2, r), "v_cache": d.normal(b, h, t, 2 * r),
    }  # fmt: skip
    outputs = {
        "q_out": ((b, s, q, 2, r), d.type), "k_cache": ((b, h, t, 2, r), d.type), "v_cache": ((b, h, t, 2 * r), d.type),
    }  # fmt: skip
    return _call("rope_cache", inputs, outputs, scalars={"eps": 1e-5})


def _paged_rope_cache(d: Draw, large: bool) -> Call:
    t, q, h, r, pages, length = (1024, 32, 8, 64, 128, 16) if large else (d.size(1, 7), 4, 2, d.size(8, 64), 4, 5)
    cos, sin = _angles(d, 100, r)
    slots = d.random.permutation(pages * length)[:t].astype(np.int32)
    inputs = {
        "q": d.normal(t, q, 2, r), "k": d.normal(t, h, 2, r), "v": d.normal(t, h, 2 * r), "cos": cos, "sin": sin,
        "positions": d.whole(100, t), "slots": slots,
        "k_pages": d.normal(pages, h, length, 2, r), "v_pages": d.normal(pages, h, length, 2 * r),
    }  # fmt: skip
    outputs = {
        "q_out": ((t, q, 2, r), d.type),
        "k_pages": ((pages, h, length, 2, r), d.type),
        "v_pages": ((pages, h, length, 2 * r), d.type),
    }
    return _call("paged_rope_cache", inputs, outputs, scalars={"eps": 1e-5})


def _attention(d: Draw, large: bool) -> Call:
    b, h, g, s, t, w = (
        (4, 8, 4, 1, 2048, 128) if large else (2, 2, d.size(1, 3), d.size(1, 5, 20), d.size(20, 45), d.size(16, 64, 80))
    )
    inputs = {
        "q": d.normal(b, h, g, s, w), "k": d.normal(b, h, t, w), "v": d.normal(b, h, t, w),
        "lengths": d.random.integers(s, t + 1, (b,)).astype(np.int32),
    }  # fmt: skip
    options = {"causal": bool(d.size(0, 1)), "window": None if d.size(0, 1) else 7} if not large else {"causal": True}
    outputs = {"o": ((b, h, g, s, w), d.type), **_sums(d, (b, h, g, s))}
    return _call("attention", inputs, outputs, scalars={"scale": w**-0.5}, options=options)


def _sums(d: Draw, shape: tuple[int, ...]) -> dict[str, Any]:
    """Logarithms of sums, of some calls."""
    return {"lse": (shape, np.dtype(np.float32))} if d.size(0, 1) else {}


def _paged_attention(d: Draw, large: bool) -> Call:
    b, h, g, s, pages, page, w = (
        (4, 8, 4, 1, 128, 16, 128) if large else (2, 2, d.size(1, 3), d.size(1, 5), 6, d.size(4, 16), d.size(16, 64))
    )
    table = np.stack([d.random.permutation(b * pages)[:pages] for _ in range(b)]).astype(np.int32)
    inputs = {
        "q": d.normal(b, h, g, s, w),
        "k_pages": d.normal(b * pages, h, page, w), "v_pages": d.normal(b * pages, h, page, w),
        "page_table": table, "lengths": d.random.integers(s, pages * page + 1, (b,)).astype(np.int32),
    }  # fmt: skip
    outputs = {"o": ((b, h, g, s, w), d.type), **_sums(d, (b, h, g, s))}
    return _call("paged_attention", inputs, outputs, scalars={"scale": w**-0.5})


def _packed_attention(d: Draw, large: bool) -> Call:
    h, g, n, t, w = (8, 4, 4096, 4096, 128) if large else (2, d.size(1, 4), d.size(1, 20, 150), 200, d.size(16, 64, 80))
    ends = np.sort(d.random.integers(0, t + 1, 4))  # sequences of keys, one after the other, and causal
    own = np.searchsorted(ends, np.arange(n) * t // n, "right")
    first = np.concatenate([[0], ends])[own].astype(np.int32)
    past = np.maximum(first, np.minimum(np.arange(n) * t // n + 1, np.append(ends, t)[own])).astype(np.int32)
    inputs = {"q": d.normal(h, g, n, w), "k": d.normal(h, t, w), "v": d.normal(h, t, w), "first": first, "past": past}
    outputs = {"o": ((h, g, n, w), d.type), "lse": ((h, g, n), np.dtype(np.float32))}
    options = {"single": False if large else bool(d.size(0, 1))}
    return _call("packed_attention", inputs, outputs, scalars={"scale": w**-0.5}, options=options)


def _key_ranges(d: Draw, large: bool) -> Call:
    count = 256 if large else d.size(1, 5, 33)
    sides = [np.concatenate([[0], d.whole(64 if large else 9, count).cumsum()]).astype(np.int32) for _ in "qk"]
    sides[0][-1] = max(sides[0][-1], 1)
    inputs = {f"{x}_{word}": at for x, found in zip("qk", sides, strict=True)
              for word, at in (("from", found[:-1].copy()), ("to", found[1:].copy()))}  # fmt: skip
    outputs = dict.fromkeys(("first", "past"), ((int(sides[0][-1]),), np.dtype(np.int32)))
    options = {"causal": bool(d.size(0, 1)), "window": None if d.size(0, 1) else 3}
    return _call("key_ranges", inputs, outputs, options=options)


F32, I32 = np.dtype(np.float32), np.dtype(np.int32)


def _shares(j: int) -> Any:
    return np.arange(j, dtype=F32) / np.float32(j)


def _positive(d: Draw, *shape: int) -> Any:
    """f32, some of them 0."""
    return np.maximum(d.random.standard_normal(shape, dtype=np.float32) + 1, 0)


def _sample_parts(d: Draw, large: bool) -> Call:
    b, c, n = (16, 256, 501) if large else (d.size(1, 3), d.size(1, 7), d.size(1, 33, 500))
    keys = {name: d.whole(1000, b) for name in ("seeds", "places")}
    inputs = {"logits": d.normal(b, c, n), "temperatures": np.zeros(b, F32), **keys}  # ties are drawn apart elsewhere
    if d.size(0, 1):
        inputs["floors"] = d.random.standard_normal(b, dtype=np.float32)
    return _call("sample_parts", inputs, {"score": ((b, c), F32), "token": ((b, c), I32)})


def _sample_join(d: Draw, large: bool) -> Call:
    b, c = (16, 256) if large else (d.size(1, 3, 17), d.size(1, 7, 64, 501))
    inputs = {
        "score": d.whole(5, b, c).astype(F32), "token": np.sort(d.whole(100_000, b, c)),  # ties; parts lie in order
        "place": d.whole(1000, b), "length": d.whole(1000, b),
    }  # fmt: skip
    outputs = {"chosen": ((b,), I32), "peak": ((b,), F32), "place": ((b,), I32), "length": ((b,), I32)}
    return _call("sample_join", inputs, outputs)


def _level_begin(d: Draw, large: bool) -> Call:
    b, c, j = (16, 64, 64) if large else (d.size(1, 3), d.size(1, 7, 64), d.size(1, 5, 64))
    inputs = {
        "score": d.random.standard_normal((b, c), dtype=np.float32), "temperatures": _positive(d, b),
        "cuts": -_positive(d, b), "shares": _shares(j),
    }  # fmt: skip
    return _call("level_begin", inputs, {**dict.fromkeys(("top", "low", "high"), ((b,), F32)), "levels": ((b, j), F32)})


def _level_again(d: Draw, large: bool) -> Call:
    b, j = (16, 64) if large else (d.size(1, 3), d.size(1, 5, 64))
    inputs = {
        "top": _positive(d, b), "low": -_positive(d, b), "kept": _positive(d, b),
        "portions": np.minimum(_positive(d, b), 1).astype(F32), "shares": _shares(j),
    }  # fmt: skip
    return _call("level_again", inputs, {**dict.fromkeys(("least", "high"), ((b,), F32)), "levels": ((b, j), F32)})


def _level_parts(d: Draw, large: bool) -> Call:
    b, c, n, j = (16, 64, 2004, 64) if large else (d.size(1, 3), d.size(1, 7), d.size(1, 33, 500), d.size(1, 5, 64))
    x = d.normal(b, c, n)
    inputs = {
        "logits": x, "levels": d.random.standard_normal((b, j), dtype=np.float32),
        "top": x.astype(F32).max((1, 2)), "temperatures": _positive(d, b),
    }  # fmt: skip
    return _call("level_parts", inputs, dict.fromkeys(("count", "mass"), ((b, j, c), F32)))


def _level_join(d: Draw, large: bool) -> Call:
    b, j, c = (16, 64, 64) if large else (d.size(1, 3), d.size(1, 5, 64), d.size(1, 7, 64))
    falling = [np.sort(d.whole(5, b, j, c), axis=1)[:, ::-1].astype(F32) for _ in range(2)]
    levels = np.sort(d.random.standard_normal((b, j), dtype=np.float32))
    inputs = {
        "count": falling[0], "mass": falling[1], "levels": levels, "shares": _shares(j),
        "fewest": d.whole(3 * c, b).astype(F32), "least": d.whole(3 * c, b).astype(F32),
        "low": levels[:, 0].copy(), "high": levels[:, -1] + 1,
    }  # fmt: skip
    ends = dict.fromkeys(("low", "high", "kept"), ((b,), F32))
    return _call("level_join", inputs, {**ends, "finer": ((b, j), F32)})


def _marks(d: Draw, *shape: int) -> Any:
    """Marks of tokens, most of them 0."""
    return d.whole(7, *shape) * (d.whole(3, *shape) == 0)


def _penalise(d: Draw, large: bool) -> Call:
    b, v = (16, 128256) if large else (d.size(1, 3), d.size(1, 7, 64, 501, 5003))
    inputs = {
        "logits": d.normal(b, v), "marks": _marks(d, b, v).astype(I32), "repetitions": _positive(d, b) + F32.type(0.5),
        "frequencies": d.random.standard_normal(b, dtype=np.float32), "presences": _positive(d, b),
    }  # fmt: skip
    return _call("penalise", inputs, {"y": ((b, v), F32)})


def _mark(d: Draw, large: bool) -> Call:
    b, v = (16, 128256) if large else (d.size(1, 3, 17), d.size(1, 7, 501))
    inputs = {"chosen": d.whole(v, b), "marks": _marks(d, b, v).astype(I32)}
    return _call("mark", inputs, {"marks": ((b, v), I32)})


def _few(d: Draw, *shape: int) -> Any:
    """f32, with ties and hidden ones."""
    x = d.whole(9, *shape).astype(F32)
    return np.where(d.whole(5, *shape) == 0, F32.type(-np.inf), x)


def _likeliest_parts(d: Draw, large: bool) -> Call:
    b, c, n, k = (16, 64, 2004, 20) if large else (d.size(1, 3), d.size(1, 7), d.size(1, 33, 500), d.size(1, 5, 20))
    x = _few(d, b, c, n).astype(d.type) if d.size(0, 1) else d.normal(b, c, n)
    best = {"value": ((b, c, k), F32), "token": ((b, c, k), I32)}
    return _call("likeliest_parts", {"logits": x}, {**best, "part": ((b, c), F32)}, options={"k": k})


def _likeliest_join(d: Draw, large: bool) -> Call:
    b, c, v, k = (16, 64, 128256, 20) if large else (d.size(1, 3), d.size(1, 7), d.size(1, 33, 500), d.size(1, 5, 20))
    n = c * k
    inputs = {
        "value": _few(d, b, n), "token": np.tile(np.arange(n, dtype=I32), (b, 1)),
        "part": d.random.standard_normal((b, c), dtype=np.float32), "logits": d.normal(b, v), "chosen": d.whole(v, b),
    }  # fmt: skip
    best, one = {"values": ((b, k), F32), "tokens": ((b, k), I32)}, dict.fromkeys(("lse", "logit"), ((b,), F32))
    return _call("likeliest_join", inputs, {**best, **one}, options={"k": k})


_MAKERS: dict[str, Any] = {
    "silu": _elementwise("silu", ("x",), "y"),
    "gelu": _elementwise("gelu", ("x",), "y"),
    "geglu": _elementwise("geglu", ("gate", "up"), "y"),
    "swiglu": _elementwise("swiglu", ("gate", "up"), "y"),
    "scale_add": _elementwise("scale_add", ("a", "b"), "c", alpha=0.7),
    "rmsnorm": _norm("rmsnorm", (), ("y",), ("weight",)),
    "add_rmsnorm": _norm("add_rmsnorm", ("residual",), ("total", "y"), ("weight",)),
    "layernorm": _norm("layernorm", (), ("y",), ("weight", "bias")),
    "rmsnorm_backward": _rmsnorm_backward, "rmsnorm_weight_backward": _rmsnorm_weight_backward,
    "softmax_backward": _elementwise("softmax_backward", ("y", "dy"), "dx"),
    "swiglu_backward": _elementwise("swiglu_backward", ("gate", "up", "dy"), "dgate", "dup"),
    "geglu_backward": _elementwise("geglu_backward", ("gate", "up", "dy"), "dgate", "dup"),
    "softmax": _softmax, "argmax": _argmax, "topk": _topk, "embedding": _embedding,
    "matmul": _matmul, "gate_up": _gate_up, "batched_matmul": _batched,
    "rope": _rope, "rope_cache": _rope_cache, "paged_rope_cache": _paged_rope_cache,
    "attention": _attention, "paged_attention": _paged_attention,
    "packed_attention": _packed_attention, "key_ranges": _key_ranges, "sample_parts": _sample_parts,
    "sample_join": _sample_join,
    "level_begin": _level_begin, "level_again": _level_again, "level_parts": _level_parts, "level_join": _level_join,
    "penalise": _penalise, "mark": _mark, "likeliest_parts": _likeliest_parts, "likeliest_join": _likeliest_join,
}  # fmt: skip
NAMES = tuple(_MAKERS)
