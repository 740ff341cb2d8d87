"""The lowering of dataflow machines: ordered, named rewrites from the tile program to the scheduled program.

Decisions of a dataflow design, by the names of the tile program: `tile.AXIS` (points of a tile), `par.AXIS` (points
that one copy of a pipeline takes), `stages.VALUE` (depth of the buffer that a value crosses), `buffer.VALUE` (a stage
ends at the value), `units.ROLE` (compute units of a stage: row_par), `carry.VALUE` (`owner` or `buffer`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from tilewright.design.design import Design
from tilewright.language import ir
from tilewright.lower.dataflow.stage import stage
from tilewright.lower.dataflow.tile import tile

Stage = Callable[[ir.Kernel, Design], ir.Kernel]

STAGES: tuple[tuple[str, Stage], ...] = (("tile", tile), ("stage", stage))


def lower_dataflow(kernel: ir.Kernel, design: Design, machine: str) -> ir.Kernel:
    """The scheduled program of `kernel` for the dataflow machine called so; the interpreter gives both one meaning."""
    for _name, each in STAGES:
        kernel = each(kernel, design)
    return replace(kernel, notes=ir.with_notes(kernel.notes, machine=machine))
