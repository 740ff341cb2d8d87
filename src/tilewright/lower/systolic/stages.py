"""The lowering of systolic arrays: ordered, named rewrites from the tile program to the scheduled program."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from tilewright.design.default import Facts
from tilewright.design.design import Design
from tilewright.design.systolic.shape import Shape, shape
from tilewright.errors import IllegalDesign
from tilewright.language import ir
from tilewright.lower.systolic.fold import fold
from tilewright.lower.systolic.place import place

Stage = Callable[[ir.Kernel, Shape, Design], ir.Kernel]

STAGES: tuple[tuple[str, Stage], ...] = (("fold", fold), ("place", place))


def lower_systolic(kernel: ir.Kernel, design: Design, facts: Facts) -> ir.Kernel:
    """The scheduled program of `kernel` under `design`; the interpreter gives both the same meaning.

    IllegalDesign for a program that no array takes.
    """
    found = shape(kernel)
    if isinstance(found, str):
        raise IllegalDesign(f"{kernel.name} does not run on the array of {facts.machine.name}: {found}")
    for _name, stage in STAGES:
        kernel = stage(kernel, found, design)
    machine = facts.machine.name.replace(":", "_").replace("=", "_")
    return replace(kernel, notes=ir.with_notes(kernel.notes, machine=machine, design=design.hash))
