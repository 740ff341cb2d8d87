"""Stage `simt`: programs whose threads all do the same: tiles to the grid, steps, lanes, widths of accesses.

before:  for m in M parallel { for d in D { x = load x[m, d] ... } }
after:   for m in M step 2 parallel @bind=grid { for d in D step 1024 @unroll=2 { x = load x[m, d] @vec=8 ... } }
"""

from __future__ import annotations

from dataclasses import replace

from tilewright.design.default import Facts
from tilewright.design.design import Design
from tilewright.design.early import load_early
from tilewright.design.gpu.straight import is_straight
from tilewright.design.hold import hold
from tilewright.design.kept import keep
from tilewright.language import ir
from tilewright.language.structure import rewrite
from tilewright.lower.gpu.early import early
from tilewright.lower.gpu.parts import parts
from tilewright.lower.gpu.ring import ring
from tilewright.lower.gpu.straight import straight


def lower_simt(kernel: ir.Kernel, design: Design, facts: Facts) -> ir.Kernel:
    """The scheduled program; loops over the grid have `bind=grid`, the kernel its `threads` and `lanes`."""

    def change(stmt: ir.Stmt) -> ir.Stmt:
        match stmt:
            case ir.Loop():
                return _loop(stmt, design)
            case ir.Let(name, _, ir.Load(ref)):
                return replace(stmt, notes=_access(stmt.notes, ref.buffer, design))
            case ir.Let(name, _, ir.Dot()):
                notes = ir.with_notes(stmt.notes, atom=str(design.get(f"atom.{name}", "fma")))
                return replace(stmt, notes=ir.with_notes(notes, swap=True) if design.get("swap") else notes)
            case ir.Store(ref):
                return replace(stmt, notes=_access(stmt.notes, ref.buffer, design))
            case _:
                return stmt

    kernel = load_early(keep(kernel, design, "register"), design)
    kernel, like = hold(replace(kernel, body=rewrite(kernel.body, change)), design)
    if dict(design.prefixed("part")):
        kernel = parts(early(kernel, design.number("stages", 0), dict(design.prefixed("engine"))), design, facts)
    else:
        kernel = ring(kernel, design, facts)
        if is_straight(design):
            kernel = straight(kernel, design, facts)
    body = tuple(_bound(s, design) for s in kernel.body)
    notes = ir.with_notes(
        kernel.notes, machine=facts.machine.name, design=design.hash, threads=32 * design.number("warps", 4)
    )
    if (resident := design.number("resident", 1)) > 1:
        notes = ir.with_notes(notes, resident=resident)
    if lanes := design.names("lanes"):
        filled = tuple(x for a in lanes for x in (a, *(new for new, old in like.items() if old == a)))
        notes = ir.with_notes(notes, lanes=filled)
    return replace(kernel, body=body, notes=notes)


def _bound(stmt: ir.Stmt, design: Design) -> ir.Stmt:
    if not (isinstance(stmt, ir.Loop) and stmt.parallel):
        return stmt
    notes = ir.with_notes(stmt.notes, bind="grid")
    if (order := design.get("grid.order")) is not None:
        notes = ir.with_notes(notes, order=str(order))
    if order == "grouped":
        notes = ir.with_notes(notes, group=design.number("grid.group", 8))
    if design.get("persistent"):
        notes = ir.with_notes(notes, persistent=True)
    return replace(stmt, notes=notes)


def _loop(loop: ir.Loop, design: Design) -> ir.Loop:
    axes = tuple(replace(a, step=None if a.each else design.number(f"tile.{a.name}", 1)) for a in loop.axes)
    unroll = design.number(f"unroll.{loop.axes[-1].name}", 1)
    notes = ir.with_notes(loop.notes, unroll=unroll) if unroll > 1 else loop.notes
    if (blocks := design.number(f"split.{loop.axes[-1].name}", 1)) > 1:
        notes = ir.with_notes(notes, bind="cluster", how="cluster", split=blocks)
    return replace(loop, axes=axes, notes=notes)


def _access(notes: ir.Notes, tensor: str, design: Design) -> ir.Notes:
    vec, cache = design.number(f"vec.{tensor}", 1), design.get(f"cache.{tensor}")
    notes = ir.with_notes(notes, vec=vec) if vec > 1 else notes
    return notes if cache is None else ir.with_notes(notes, cache=str(cache))


__all__ = ["lower_simt"]
