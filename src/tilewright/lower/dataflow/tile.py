"""Stage `tile`: every axis gets its step; `par.AXIS` deals ranges of a parallel loop to copies of its pipeline."""

from __future__ import annotations

from dataclasses import replace

from tilewright.design.design import Design
from tilewright.language import ir, structure


def tile(kernel: ir.Kernel, design: Design) -> ir.Kernel:
    """
    before:  for r in M parallel { ... }
    after:   for r_0 in M step 1024 parallel @bind=core { for r in r_0 step 16 { ... } }
    """
    taken = structure.names(kernel)

    def change(stmt: ir.Stmt) -> ir.Stmt:
        if not isinstance(stmt, ir.Loop):
            return stmt
        return replace(stmt, axes=tuple(_stepped(a, design) for a in stmt.axes))

    body = structure.rewrite(kernel.body, change)
    body = tuple(_dealt(s, design, taken) if isinstance(s, ir.Loop) and s.parallel else s for s in body)
    notes = ir.with_notes(kernel.notes, design=design.hash)
    return replace(kernel, body=body, notes=notes)


def _stepped(axis: ir.Axis, design: Design) -> ir.Axis:
    return axis if axis.each or axis.step else replace(axis, step=design.number(f"tile.{axis.name}", 16))


def _dealt(loop: ir.Loop, design: Design, taken: set[str]) -> ir.Stmt:
    outer, axes = [], []
    for axis in loop.axes:
        share = design.number(f"par.{axis.name}", 0)
        if not share:
            axes.append(axis)
            continue
        name = structure.fresh(f"{axis.name}_0", taken)
        outer.append(ir.Axis(name, axis.over, share, axis.start, axis.stop))
        axes.append(replace(axis, over=name, start=None, stop=None))
    inner = replace(loop, axes=tuple(axes), parallel=not outer)
    if not outer:
        return inner
    return ir.Loop(tuple(outer), (inner,), True, ir.with_notes(loop.notes, bind="core"))
