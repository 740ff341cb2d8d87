"""Chains of products, and designs for the matrix unit, that tests share: attention, and programs of a user's own."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from tilewright.design.default import Facts
from tilewright.design.design import Design
from tilewright.language import (
    Scalar,
    Tensor,
    coord,
    dot,
    each,
    exp2,
    f32,
    full,
    ir,
    kernel,
    maximum,
    parallel,
    sigmoid,
    tanh,
    tiles,
    where,
    whole,
    zeros,
)  # fmt: skip
from tilewright.language.interpreter import run
from tilewright.machines.machine import Machine
from tilewright.operators import OPERATORS

SIZES = {"B": 2, "H": 2, "G": 1, "S": 150, "T": 210, "D": 64, "E": 64, "M": 150, "F": 210, "K": 64, "N": 64}


@kernel
def capped(
    q: Tensor["H", "S", "D"],
    k: Tensor["H", "T", "D"],
    v: Tensor["H", "T", "E"],
    slopes: Tensor["H"],
    o: Tensor["H", "S", "E"],
    top: Tensor["H", "S"],
    scale: Scalar["f32"],
):
    """Attention whose scores are capped by tanh, with a slope for distance (ALiBi); the logarithms of sums are kept."""
    for h, s in parallel(each("H"), "S"):
        d, e = whole("D"), whole("E")
        slope = slopes[h]
        query = q[h, s, d]
        m = full(s, value=-1e30, dtype=f32)
        l = zeros(s, dtype=f32)
        acc = zeros(s, e, dtype=f32)
        for t in tiles("T", stop=coord(s).max(s) + 1):
            z = tanh(dot(query, k[h, t, d].T) * (scale / 20.0)) * 20.0
            z = z - slope * (coord(s) - coord(t)).to(f32)
            z = where(coord(t) <= coord(s), z * math.log2(math.e), -math.inf)
            new = maximum(m, z.max(t))
            p, fade = exp2(z - new), exp2(m - new)
            l *= fade
            l += p.sum(t)
            acc *= fade
            acc += dot(p.to(v.dtype), v[h, t, e])
            m.update(new)
        o[h, s, e] = acc / l
        top[h, s] = m


@kernel
def two_layers(
    x: Tensor["M", "K"], up: Tensor["F", "K"], gate: Tensor["F", "K"], down: Tensor["F", "N"], y: Tensor["M", "N"]
):
    """A small network: two products of the input, one gating the other, and a product with that; never in memory."""
    for m in parallel("M"):
        k, n = whole("K"), whole("N")
        rows = x[m, k]
        acc = zeros(m, n, dtype=f32)
        for f in tiles("F"):
            g = dot(rows, gate[f, k].T)
            h = g * sigmoid(g) * dot(rows, up[f, k].T)
            acc += dot(h.to(down.dtype), down[f, n])
        y[m, n] = acc


def attention(lengths: bool = False, dtype: str = "bf16", lse: bool = False, **options: Any) -> ir.Kernel:
    """Attention as the operator traces it."""
    dtypes = dict.fromkeys(("q", "k", "v", "o"), dtype) | ({"lengths": "i32"} if lengths else {})
    dtypes |= {"lse": "f32"} if lse else {}
    return OPERATORS["attention"].kernel.trace(dtypes, options=options)


def packed(lse: bool = False) -> ir.Kernel:
    """Attention of packed sequences as the operator traces it."""
    dtypes = dict.fromkeys(("q", "k", "v", "o"), "bf16") | ({"lse": "f32"} if lse else {})
    return OPERATORS["packed_attention"].kernel.trace(dtypes)


PROGRAMS: dict[str, ir.Kernel] = {
    "full": attention(),
    "causal": attention(causal=True),
    "f16": attention(dtype="f16", causal=True),
    "window": attention(causal=True, window=70),
    "ragged": attention(lengths=True),
    "with sums": attention(lengths=True, causal=True, lse=True),
    "ragged window": attention(lengths=True, causal=True, window=131),
    "capped": capped.trace(dict.fromkeys(("q", "k", "v", "o"), "bf16") | {"slopes": "f32", "top": "f32"}),
    "two layers": two_layers.trace("bf16"),
    "packed": packed(),
    "packed, with sums": packed(lse=True),
}
BASE: dict[str, Any] = {"rows": 128, "columns": 128, "warpgroups": 2, "stages": 2}
DESIGNS: dict[str, dict[str, Any]] = {
    "plain": BASE,
    "one warpgroup": {**BASE, "rows": 64, "warpgroups": 1, "columns": 64, "stages": 3},
    "lagging": {**BASE, "overlap": True},
    "turns": {**BASE, "overlap": True, "schedule": "pingpong"},
    "staying": {**BASE, "overlap": True, "persistent": True, "grid.order": "grouped", "grid.group": 4},
    "drawn, by the engine": {
        **BASE, "columns": 96, "overlap": True, "schedule": "pingpong", "persistent": True, "drawn": True,
        "grid.descending": True, "store": "tma",
    },
    "rows ahead": {
        **BASE, "columns": 64, "overlap": True, "schedule": "pingpong", "persistent": True, "drawn": True,
        "stages.item": 2, "own": True, "store": "tma",
    },
    "three take turns": {
        **BASE, "rows": 192, "columns": 48, "warpgroups": 3, "overlap": True, "schedule": "pingpong", "stages.item": 2,
        "persistent": True, "stages": 3, "own": True,
    },
    "three warpgroups": {**BASE, "rows": 192, "columns": 64, "warpgroups": 3, "producer": "warpgroup", "own": True},
    "a warp that copies": {**BASE, "columns": 64, "producer": "warp"},
}  # fmt: skip


def facts(kernel: ir.Kernel, machine: str = "h200", **sizes: int) -> Facts:
    """All tensors row-major and aligned; dimensions that values lie along as a whole are part of the kernel."""
    rows = {"N": 150} if kernel.name == "packed_attention" else {}
    known = {d: {**SIZES, **rows, **sizes}[d] for d in kernel.dims}
    tensors = {p.name: p.dims for p in kernel.params if p.dims}
    unit = {t: (len(dims) - 1,) for t, dims in tensors.items()}
    fixed = frozenset(d for d in ("D", "E", "K", "N") if d in known and d not in rows)
    return Facts(known, unit, Machine.named(machine), frozenset(tensors), fixed)


def design(kernel: ir.Kernel, decisions: dict[str, Any]) -> Design:
    """Decisions by the names `rows`, `columns` and `store`, for any chain."""
    from tilewright.design.gpu.chain import chain

    found = chain(kernel)
    assert not isinstance(found, str), found
    names = {
        "rows": f"tile.{found.row.name}",
        "columns": f"tile.{found.step.name}",
        "store": f"store.{found.outputs[0]}",
    }
    chosen = {names.get(n, n): v for n, v in decisions.items()}
    return Design.of({**chosen, **{f"atom.{d.name}": "wgmma" for d in found.dots}})


def inputs(kernel: ir.Kernel, sizes: dict[str, int], seed: int = 0) -> dict[str, np.ndarray]:
    """Operands of a chain, drawn; results are NaN, lengths from 0 to all keys.

    Packed queries see what is before them of one of four sequences: a long one, one without keys, two short ones.
    """
    random = np.random.default_rng(seed)
    stores = {s.ref.buffer for s in ir.walk(kernel.body) if isinstance(s, ir.Store)}
    tensors = {}
    for p in kernel.params:
        if p.dims is None:
            continue
        shape = [sizes[str(d)] for d in p.dims]
        if p.name == "lengths":
            tensors[p.name] = np.linspace(0, sizes["T"] - 3, shape[0]).astype(p.dtype.numpy)
        elif p.name in ("first", "past"):
            query, all_keys = np.arange(shape[0]), sizes["T"]
            own = np.searchsorted(np.array([60, 67, 99]) * shape[0] // 150, query, "right")
            starts = np.array([0, 80, 80, 125, 192]) * all_keys // 210
            begin, end = starts[own], starts[own + 1]
            seen = np.clip(end - (np.searchsorted(own, own, "right") - 1 - query), begin, end)
            tensors[p.name] = (begin if p.name == "first" else seen).astype(np.int32)
        elif p.name in stores:
            tensors[p.name] = np.full(shape, np.nan).astype(p.dtype.numpy)
        else:
            tensors[p.name] = random.standard_normal(shape).astype(np.float32).astype(p.dtype.numpy)
    return tensors


def results(kernel: ir.Kernel, tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """What a program writes, in float64."""
    stores = {s.ref.buffer for s in ir.walk(kernel.body) if isinstance(s, (ir.Store, ir.Copy)) for s in _written(s)}
    own = {n: x.copy() for n, x in tensors.items()}
    scalars = {p.name: 0.125 for p in kernel.params if p.dims is None}
    run(kernel, own, scalars, steps=64)
    return {n: own[n].astype(np.float64) for n in stores if n in own}


def _written(stmt: ir.Store | ir.Copy) -> list[Any]:
    from types import SimpleNamespace

    return [SimpleNamespace(ref=stmt.ref if isinstance(stmt, ir.Store) else stmt.dst)]
