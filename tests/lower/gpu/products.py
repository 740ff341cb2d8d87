"""Products and designs for the matrix unit that several tests share, at sizes that an interpreter is quick with."""

from __future__ import annotations

from typing import Any

import numpy as np

from tilewright.design.default import Facts
from tilewright.design.design import Design
from tilewright.language import ir
from tilewright.language.interpreter import run
from tilewright.machines.machine import Machine
from tilewright.operators import OPERATORS

SIZES = {"M": 200, "N": 300, "K": 333, "B": 2}
BASE: dict[str, Any] = {"tile.m": 128, "tile.n": 256, "tile.k": 64, "warpgroups": 2, "stages": 4}
FEW: dict[str, Any] = {
    "tile.m": 16,
    "tile.n": 64,
    "tile.k": 64,
    "warpgroups": 1,
    "stages": 4,
    "swap": True,
    "producer": "warp",
}
DESIGNS: dict[str, dict[str, Any]] = {
    "plain": BASE,
    "three warpgroups": {**BASE, "tile.m": 192, "tile.n": 160, "warpgroups": 3},
    "two tiles a warpgroup": {**BASE, "tile.m": 256, "tile.n": 128},
    "cluster of rows": {**BASE, "cluster.m": 2, "persistent": True, "grid.order": "grouped", "grid.group": 4},
    "cluster of columns": {**BASE, "cluster.n": 2, "grid.order": "hilbert"},
    "turns": {**BASE, "schedule": "pingpong", "tile.m": 64},
    "turns, engine stores": {**BASE, "schedule": "pingpong", "tile.m": 64, "tile.n": 192, "store.OUT": "tma"},
    "turns of two tiles": {**BASE, "schedule": "pingpong", "tile.n": 128},
    "engine stores": {**BASE, "store.OUT": "tma", "persistent": True},
    "engine stores, half rows": {**BASE, "store.OUT": "tma", "tile.n": 224},
    "staggered": {**BASE, "tile.n": 192, "persistent": True, "store.OUT": "tma", "stagger": 2},
    "three, staggered": {**BASE, "tile.m": 192, "tile.n": 160, "warpgroups": 3, "stagger": 1},
    "swapped": FEW,
    "swapped, engine stores": {**FEW, "tile.m": 40, "store.OUT": "tma"},
    "two passes": {**BASE, "tile.n": 128, "split.k": 3, "how.k": "two_pass"},
    "two passes, swapped": {**FEW, "split.k": 2, "how.k": "two_pass"},
    "fewer rows than the atom": {**FEW, "swap": False, "tile.n": 48, "tile.k": 128},
    "fewer rows than the atom, swapped": {**FEW, "tile.n": 24},
    "fewer rows than the atom, blocks that stay": {**BASE, "tile.m": 40, "warpgroups": 1, "persistent": True},
    "fewer rows than the atom, joined in a cluster": {
        **FEW,
        "swap": False,
        "tile.n": 32,
        "split.k": 2,
        "how.k": "cluster",
    },
    "added in memory": {**BASE, "tile.n": 192, "split.k": 3, "how.k": "atomic"},
    "added in memory, swapped": {**FEW, "split.k": 2, "how.k": "atomic"},
    "joined in a cluster": {**FEW, "tile.m": 32, "split.k": 2, "how.k": "cluster"},
    "joined by one block": {**FEW, "tile.m": 8, "split.k": 3, "how.k": "cluster"},
}
PRODUCTS: dict[str, tuple[str, dict[str, str], dict[str, Any]]] = {
    "matmul": ("matmul", dict.fromkeys(("a", "b", "c"), "bf16"), {}),
    "epilogue": ("matmul", dict.fromkeys(("a", "b", "c", "bias", "residual"), "f16"), {"activation": "relu"}),
    "gate_up": ("gate_up", dict.fromkeys(("x", "gate", "up", "y"), "bf16"), {}),
    "batched": ("batched_matmul", dict.fromkeys(("a", "b", "c"), "bf16"), {}),
}


def traced(name: str) -> ir.Kernel:
    """The program of a product."""
    operator, dtypes, options = PRODUCTS[name]
    return OPERATORS[operator].kernel.trace(dtypes, options=options)


def facts(kernel: ir.Kernel, columns: tuple[str, ...] = (), machine: str = "h200", **sizes: int) -> Facts:
    """All sizes are part of the kernel; `columns` names tensors stored by columns."""
    known = {d: {**SIZES, **sizes}[d] for d in kernel.dims}
    tensors = {p.name: p.dims for p in kernel.params if p.dims}
    unit = {t: (len(dims) - (2 if t in columns else 1),) for t, dims in tensors.items()}
    return Facts(known, unit, Machine.named(machine), frozenset(tensors), frozenset(known))


def design(kernel: ir.Kernel, decisions: dict[str, Any]) -> Design:
    """Decisions by the names of a matmul, for any product."""
    stores = {s.ref.buffer for s in ir.walk(kernel.body) if isinstance(s, ir.Store)}
    dots = [s.name for s in ir.walk(kernel.body) if isinstance(s, ir.Let) and isinstance(s.expr, ir.Dot)]
    chosen = {f"store.{t}" if n == "store.OUT" else n: v for n, v in decisions.items() for t in stores}
    if len(dots) > 1:  # as many sums, so half the columns of each
        chosen["tile.n"] = max(64, chosen["tile.n"] // 2 // 32 * 32)
    return Design.of({**chosen, **{f"atom.{d}": "wgmma" for d in dots}})


def result(kernel: ir.Kernel, sizes: dict[str, int], authored: ir.Kernel) -> np.ndarray:
    """What a program writes, for small whole numbers: sums are exact, in whatever order."""
    random = np.random.default_rng(3)
    stores = {s.ref.buffer for s in ir.walk(authored.body) if isinstance(s, ir.Store)}
    tensors = {}
    for p in kernel.params:
        assert p.dims is not None
        shape = [sizes[str(d)] for d in p.dims]
        values = np.full(shape, np.nan) if p.name in stores else random.integers(-2, 3, shape)
        tensors[p.name] = values.astype(p.dtype.numpy)
    run(kernel, tensors, steps=64)
    return tensors[stores.pop()].astype(np.float64)
