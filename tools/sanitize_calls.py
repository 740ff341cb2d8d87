"""The calls of `sanitize.py`: every operator, products by designs of every kind, and kernels of every other kind.

Sizes are small: what a tool watches takes a hundred times as long. Each call is compared with its float64 reference.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

_TESTS = Path(__file__).parents[1] / "tests"
sys.path[:0] = [str(_TESTS / "gpu"), str(_TESTS / "lower" / "gpu")]

from operator_cases import NAMES, TYPES, Call, Draw, draw
from sanitize_ops import OPS

from tilewright.design.default import Facts, default_design
from tilewright.design.design import Design
from tilewright.language import ir, structure
from tilewright.operators import OPERATORS

Chosen = Callable[[ir.Kernel, Facts], Design]
SEEDS = (0, 1)
_WGMMA = {"tile.m": 128, "tile.n": 128, "tile.k": 64, "atom.dot0": "wgmma", "warpgroups": 2, "stages": 3}
_FEW = {
    "tile.m": 16, "tile.n": 64, "tile.k": 64, "atom.dot0": "wgmma", "warpgroups": 1, "stages": 4, "swap": True,
    "producer": "warp",
}  # fmt: skip
_TMA = {**_WGMMA, "persistent": True, "grid.order": "grouped", "grid.group": 2, "store.c": "tma"}
_RING = {
    "tile.m": 64, "tile.n": 64, "tile.k": 64, "atom.dot0": "mma", "warps": 4, "stages": 3,
    "engine.a": "cp_async", "engine.b": "cp_async",
}  # fmt: skip
_PLAIN = {**_RING, "engine.a": "plain", "engine.b": "plain", "stages": 2}
PRODUCTS: dict[str, tuple[tuple[int, int, int], str, str, dict[str, Any] | None]] = {
    "wgmma": ((256, 256, 192), "bf16", "", _WGMMA),
    "wgmma-ragged": ((200, 264, 136), "f16", "bias_gelu", _WGMMA),
    "persistent": ((520, 520, 128), "bf16", "residual", _TMA),
    "cluster": ((512, 256, 128), "bf16", "", {**_TMA, "cluster.m": 2}),
    "staggered": ((520, 264, 320), "bf16", "residual", {
        **_TMA, "cluster.m": 2, "stagger": 1, "early.residual": True,
    }),
    "early": ((200, 264, 136), "bf16", "bias_gelu", {**_WGMMA, "early.bias": True, "stagger": 1}),
    "packed": ((136, 264, 133), "bf16", "", {**_WGMMA, "pack.a": "row", "pack.b": "row"}),
    "tf32": ((256, 264, 128), "f32", "tf32", {**_WGMMA, "tile.k": 32}),
    "i8": ((136, 208, 256), "i8", "scales", None),
    "i8-mma": ((136, 208, 256), "i8", "scales", {**_RING, "tile.k": 128}),
    "f8": ((136, 208, 256), "f8e4m3", "scales", None),
    "atomic": ((256, 256, 512), "bf16", "bias_gelu", {**_WGMMA, "split.k": 2, "how.k": "atomic"}),
    "two-pass": ((256, 256, 512), "bf16", "bias_gelu", {**_WGMMA, "split.k": 2, "how.k": "two_pass"}),
    "pingpong": ((512, 256, 128), "bf16", "", {**_TMA, "schedule": "pingpong", "tile.m": 64, "tile.n": 128}),
    "few": ((16, 256, 512), "bf16", "bias_gelu", _FEW),
    "few-short": ((16, 264, 520), "bf16", "residual", {**_FEW, "swap": False, "tile.n": 48}),
    "few-ahead": ((5, 256, 1024), "bf16", "", {
        "atom.dot0": "mma", "tile.m": 16, "tile.n": 8, "tile.k": 64, "warps": 8, "warps.k": 8, "stages": 2,
    }),
    "few-flowing": ((5, 250, 1016), "bf16", "", {
        "atom.dot0": "mma", "tile.m": 16, "tile.n": 8, "tile.k": 64, "warps": 8, "warps.k": 8, "stages": 1,
    }),
    "few-cluster": ((16, 256, 512), "bf16", "", {**_FEW, "split.k": 2, "how.k": "cluster"}),
    "few-two-pass": ((16, 256, 512), "bf16", "residual", {**_FEW, "split.k": 2, "how.k": "two_pass"}),
    "few-atomic": ((16, 256, 512), "bf16", "residual", {**_FEW, "split.k": 2, "how.k": "atomic"}),
    "ring": ((130, 136, 200), "bf16", "bias_gelu", _RING),
    "plain": ((129, 131, 77), "bf16", "residual", _PLAIN),
    "fma": ((129, 131, 77), "f32", "bias_gelu", {**_PLAIN, "atom.dot0": "fma", "tile.k": 32}),
    "default": ((1, 512, 512), "bf16", "", None),
    "default-odd": ((33, 333, 777), "bf16", "bias_gelu", None),
    "default-many": ((257, 384, 256), "bf16", "residual", None),
}  # fmt: skip
"""Sizes M, N, K, elements, what follows the product, and the design; None is the default one."""


def product(name: str) -> tuple[Call, Design | None]:
    """A product by name."""
    import ml_dtypes

    (m, n, k), element, after, decisions = PRODUCTS[name]
    d = Draw(0, element if element in TYPES else "f32")
    if element == "i8":
        inputs = {"a": d.random.integers(-128, 128, (m, k)).astype(np.int8)}
        inputs["b"] = d.random.integers(-128, 128, (n, k)).astype(np.int8)
    elif element == "f8e4m3":
        inputs = {x: d.normal(r, k).astype(ml_dtypes.float8_e4m3fn) for x, r in (("a", m), ("b", n))}
    else:
        inputs = {"a": d.normal(m, k), "b": d.normal(n, k)}
    inputs |= {"residual": d.normal(m, n)} if after == "residual" else {}
    inputs |= {"bias": d.normal(n)} if after == "bias_gelu" else {}
    if after == "scales":
        inputs["row_scale"] = d.random.uniform(0.001, 0.1, m).astype(np.float32)
        inputs["column_scale"] = d.random.uniform(0.01, 1.0, n).astype(np.float32)
    options = {"activation": "gelu" if after == "bias_gelu" else None}
    options |= {"precision": "tf32"} if after == "tf32" else {}
    result = TYPES.get(element, TYPES["bf16" if element == "i8" else "f16"])
    call = Call(OPERATORS["matmul"], inputs, {"c": ((m, n), result)}, {}, options)
    return call, None if decisions is None else Design.of(decisions)


# ------------------------------------------------------------------------------------------- other kernels
def _rows(operator: str, rows: int, length: int, **options: Any) -> Call:
    """A call of an operator of rows at sizes of its own."""
    d = Draw(7, "bf16")
    inputs: dict[str, Any] = {"x": d.normal(rows, length)}
    outputs: dict[str, Any] = {"y": ((rows, length), d.type)}
    scalars: dict[str, float] = {}
    if operator == "argmax":
        outputs = {"index": ((rows,), np.dtype(np.int32))}
    if operator == "topk":
        outputs = {"values": ((rows, options["k"]), d.type), "index": ((rows, options["k"]), np.dtype(np.int32))}
    if operator == "rmsnorm":
        inputs, scalars = {**inputs, "weight": d.normal(length)}, {"eps": 1e-5}
    if operator == "rmsnorm_weight_backward":
        inputs |= {"dy": d.normal(rows, length), "scale": d.normal(rows)}
        outputs = {"dweight": ((length,), d.type)}
    return Call(OPERATORS[operator], inputs, outputs, scalars, options)


def _shared(kernel: ir.Kernel, facts: Facts) -> Design:
    """Blocks of a cluster share each row, and stay for the next one."""
    axes = [a for a in ("d", "d1", "d2") if a in structure.axes(kernel)]
    found = {"lanes": (*axes, "m"), "warps": 4, "tile.m": 1, "vec.x": 8, "persistent": True}
    return Design.of({**found, **{f"tile.{a}": 1024 for a in axes}, **{f"split.{a}": 4 for a in axes}})


def _changed(**changes: Any) -> Chosen:
    """The default design with some decisions changed; `part_axis` and `tile_axis` name others by a dot."""
    dotted = {name.replace("_", ".", 1): value for name, value in changes.items()}
    return lambda kernel, facts: Design.of({**dict(default_design(kernel, facts).decisions), **dotted})


def _turned(inverse: bool) -> Call:
    d = Draw(3, "bf16")
    cos, sin = (np.cos(a).astype(d.type) for a in d.random.standard_normal((2, 9, 2, 64)))
    inputs = {"x": d.normal(2, 9, 8, 2, 64), "cos": cos, "sin": sin}
    return Call(OPERATORS["rope"], inputs, {"y": ((2, 9, 8, 2, 64), d.type)}, {}, {"inverse": inverse})


def _attention(
    queries: int, keys: int, width: int, *, lengths: tuple[int, ...] = (), sums: bool = False, group: int = 2,
    pages: int = 0, narrow: bool = False, element: str = "bf16", **options: Any,
) -> Call:  # fmt: skip
    """Attention of two heads of keys in two sequences, or as many as there are lengths; pages of so many keys, if any.

    `narrow`: keys and values of 8 bits.
    """
    import ml_dtypes

    d, b, h = Draw(5, element), len(lengths) or 2, 2
    inputs: dict[str, Any] = {"q": d.normal(b, h, group, queries, width)}
    held = [d.normal(b, h, keys, width) for _ in "kv"]
    if narrow:
        held = [(x.astype(np.float32) * 8).astype(ml_dtypes.float8_e4m3fn) for x in held]
        inputs |= {f"{x}_scale": np.asarray([0.125, 0.0625], np.float32) for x in "kv"}
    if lengths:
        inputs["lengths"] = np.asarray(lengths, np.int32)
    if pages:
        table = d.random.permutation(b * keys // pages).astype(np.int32)
        for name, x in zip("kv", held, strict=True):
            cut = x.reshape(b, h, keys // pages, pages, width).swapaxes(1, 2).reshape(-1, h, pages, width)
            inputs[f"{name}_pages"] = np.empty_like(cut)
            inputs[f"{name}_pages"][table] = cut
        inputs["page_table"] = table.reshape(b, -1)
    else:
        inputs |= dict(zip("kv", held, strict=True))
    outputs: dict[str, Any] = {"o": (inputs["q"].shape, d.type)}
    outputs |= {"lse": (inputs["q"].shape[:-1], np.dtype(np.float32))} if sums else {}
    name = "paged_attention" if pages else "attention"
    return Call(OPERATORS[name], inputs, outputs, {"scale": width**-0.5}, options)


def _packed(width: int) -> Call:
    d, h, n = Draw(9, "bf16"), 2, 300
    ends = np.asarray([130, 130, 131, 300])  # a long sequence, one without tokens, one of one, another long one
    own = np.searchsorted(ends, np.arange(n), "right")
    first, past = np.concatenate([[0], ends])[own].astype(np.int32), (np.arange(n) + 1).astype(np.int32)
    inputs = {"q": d.normal(h, 2, n, width), "k": d.normal(h, n, width), "v": d.normal(h, n, width)}
    outputs = {"o": ((h, 2, n, width), d.type), "lse": ((h, 2, n), np.dtype(np.float32))}
    return Call(
        OPERATORS["packed_attention"], {**inputs, "first": first, "past": past}, outputs, {"scale": width**-0.5}
    )


def _chain(name: str) -> Chosen:
    """A design of a chain of products from the table that tests of chains share."""

    def chosen(kernel: ir.Kernel, facts: Facts) -> Design:
        from chains import DESIGNS, design

        decided: Design = design(kernel, DESIGNS[name])
        return decided

    return chosen


def _straight(*deal: Any, **more: Any) -> Chosen:
    """A product of few rows straight from memory to registers."""

    def chosen(kernel: ir.Kernel, facts: Facts) -> Design:
        from tilewright.design.gpu.product import product as product_of
        from tilewright.design.gpu.straight import straight

        return Design.of({**dict(straight(product_of(kernel), facts, *deal).decisions), **more})

    return chosen


def _few_rows(operator: str) -> Call:
    d = Draw(4, "bf16")
    if operator == "gate_up":
        inputs = {"x": d.normal(3, 1024), "gate": d.normal(96, 1024), "up": d.normal(96, 1024)}
        return Call(OPERATORS[operator], inputs, {"y": ((3, 96), d.type)})
    return Call(OPERATORS[operator], {"a": d.normal(3, 1024), "b": d.normal(96, 1024)}, {"c": ((3, 96), d.type)})


_RAGGED = (0, 700, 1, 333)
OTHERS: Mapping[str, tuple[Callable[[], Call], Chosen | None]] = {
    "rows.long": (lambda: _rows("softmax", 3, 40000), None),
    "rows.shared": (lambda: _rows("rmsnorm", 5, 4096), _shared),
    "rows.short": (lambda: _rows("rmsnorm", 999, 128), None),
    "rows.few": (lambda: _rows("rmsnorm", 1, 4096), None),
    "rows.argmax": (lambda: _rows("argmax", 3, 40000), None),
    "rows.rounds": (lambda: _rows("topk", 2, 40000, k=3), None),
    "rows.columns": (lambda: _rows("rmsnorm_weight_backward", 700, 1024), None),
    "rope.there": (lambda: _turned(False), None),
    "rope.back": (lambda: _turned(True), None),
    "chain.causal": (lambda: _attention(200, 300, 128, causal=True, sums=True), None),
    "chain.ragged": (lambda: _attention(150, 700, 64, lengths=_RAGGED, causal=True, window=100), None),
    "chain.256": (lambda: _attention(130, 130, 256, causal=True), None),
    "chain.turns": (lambda: _attention(300, 300, 128, causal=True), _chain("drawn, by the engine")),
    "chain.ahead": (lambda: _attention(300, 300, 64), _chain("rows ahead")),
    "chain.three": (lambda: _attention(300, 300, 64, causal=True), _chain("three warpgroups")),
    "chain.packed": (lambda: _packed(128), None),
    "chain.packed-80": (lambda: _packed(80), None),
    "decode.ragged": (lambda: _attention(1, 700, 128, lengths=_RAGGED, group=4, causal=True, sums=True), None),
    "decode.narrow": (lambda: _attention(1, 700, 128, lengths=_RAGGED, group=4, causal=True, narrow=True), None),
    "decode.pages": (lambda: _attention(1, 704, 64, lengths=_RAGGED, group=4, pages=16, sums=True), None),
    "decode.pages-narrow": (lambda: _attention(1, 704, 128, lengths=_RAGGED, group=4, pages=64, narrow=True), None),
    "decode.ring": (
        lambda: _attention(1, 700, 128, lengths=_RAGGED, causal=True),
        _changed(warps=4, tile_t=16, part_t=128, stages=3),
    ),
    "decode.engine": (
        lambda: _attention(1, 700, 128, lengths=_RAGGED, causal=True),
        _changed(warps=4, tile_t=16, part_t=128, stages=2, engine_k="tma", engine_v="tma"),
    ),
    "decode.turns": (
        lambda: _attention(1, 704, 64, lengths=_RAGGED, pages=16),
        _changed(warps=4, tile_p=16, part_l=8, stages=2, engine_k_pages="tma", engine_v_pages="tma", turns=True),
    ),
    "decode.f32": (lambda: _attention(1, 700, 64, lengths=_RAGGED, causal=True, element="f32"), None),
    "straight.mma": (lambda: _few_rows("matmul"), _straight(1, 4, 2, 1, "mma", stages=3)),
    "straight.fma": (lambda: _few_rows("matmul"), _straight(1, 4, 2, 1, "fma", stages=2)),
    "straight.gate": (lambda: _few_rows("gate_up"), _straight(1, 4, 1, 1, "mma", stages=3)),
    "few.gate": (lambda: draw("gate_up", 3, "bf16", large=False), None),
}
"""A call, and the design it goes by (None: the default one)."""


def names() -> list[str]:
    """Every call by name: `operator.seed`, a product, another kernel, or an op."""
    return [*(f"{name}.{seed}" for name in NAMES for seed in SEEDS), *PRODUCTS, *OTHERS, *OPS]


def call_of(name: str) -> tuple[Call, Chosen | None]:
    """A call with its operands as NumPy arrays, and the design it goes by (None: the default one)."""
    if name in PRODUCTS:
        call, design = product(name)
        return call, None if design is None else lambda kernel, facts: design
    if name in OTHERS:
        make, chosen = OTHERS[name]
        return make(), chosen
    operator, _, seed = name.partition(".")
    return draw(operator, int(seed), ("bf16", "f32")[int(seed) % 2]), None


def fixed_of(call: Call) -> tuple[str, ...]:
    """Dims that are a part of the kernel of a call by a design of its own."""
    return ("K",) if call.operator.name in ("matmul", "gate_up") else ()


def run(name: str) -> str:
    """Make one call and compare it with its reference; what came of it."""
    import torch

    worst = OPS[name]() if name in OPS else _compared(*call_of(name))
    torch.cuda.synchronize()
    return f"ok, {worst:.2f} of the bound"


def _compared(call: Call, chosen: Chosen | None) -> float:
    import torch
    from gpu_programs import facts_of, placed, request_of, to_numpy

    from tilewright.runtime import tolerance
    from tilewright.runtime.compiled import bind
    from tilewright.runtime.cuda.dispatch import loaded

    tensors = placed(call)
    if chosen is None:
        bind(call.operator, **tensors, **call.scalars, **call.options)()
    else:
        kernel, facts, buffers = facts_of(call, tensors, fixed_of(call))
        request = request_of(kernel, facts, buffers, chosen(kernel, facts))
        loaded(request, 0).bind(buffers, call.scalars, facts.sizes)()
    torch.cuda.synchronize()
    return max(
        tolerance.check(output, to_numpy(tensors[output], call.outputs[output][1]), exact)
        for output, exact in call.expected().items()
    )


__all__ = ["OTHERS", "PRODUCTS", "call_of", "fixed_of", "names", "run"]
