"""The lowering of x86: ordered, named rewrites from the tile program to the scheduled program."""

from __future__ import annotations

from collections.abc import Callable

from tilewright.design.design import Design
from tilewright.design.kept import keep
from tilewright.language import ir
from tilewright.lower.block import block
from tilewright.lower.pack import pack, pack_locally
from tilewright.lower.parts import parts
from tilewright.lower.tile import tile

Stage = Callable[[ir.Kernel, Design], ir.Kernel]

STAGES: tuple[tuple[str, Stage], ...] = (
    ("tile", tile),
    ("keep", keep),
    ("parts", parts),
    ("pack", pack),
    ("block", block),
    ("local", pack_locally),
)


def lower(kernel: ir.Kernel, design: Design) -> ir.Kernel:
    """The scheduled program of `kernel` under `design`; the interpreter gives both the same meaning."""
    for _name, stage in STAGES:
        kernel = stage(kernel, design)
    return kernel
