"""Stage `tile`: every axis gets its step, every loop its binding and unrolling, every dot its atom."""

from __future__ import annotations

from dataclasses import replace

from tilewright.design.design import Choice, Design
from tilewright.language import ir
from tilewright.language.structure import rewrite

# How the threads come to their tiles, as notes of a parallel loop.
_DEALT: dict[Choice | None, dict[str, ir.Note]] = {None: {}, "turns": {"dealt": "turns"}, "drawn": {"drawn": True}}


def tile(kernel: ir.Kernel, design: Design) -> ir.Kernel:
    """
    before:  for m in M, n in N parallel { ... for k in K { ... } }
    after:   for m in M step 8, n in N step 32 parallel @bind=thread { ... for k in K step 1 @unroll=4 { ... } }

    Positions of a tile may lie apart: for n in N step 4 apart 16 ...
    """

    def change(stmt: ir.Stmt) -> ir.Stmt:
        match stmt:
            case ir.Loop():
                return _loop(stmt, design)
            case ir.Let(name, _, ir.Dot()) if design.get(f"atom.{name}") is not None:
                return replace(stmt, notes=ir.with_notes(stmt.notes, atom=str(design.get(f"atom.{name}"))))
            case ir.Let(name, _, ir.Load()) if design.get(f"prefetch.{name}"):
                return replace(stmt, notes=ir.with_notes(stmt.notes, prefetch=design.number(f"prefetch.{name}")))
            case ir.Let(name, _, ir.Load()) if design.get(f"ahead.{name}"):
                return replace(stmt, notes=ir.with_notes(stmt.notes, ahead=design.number(f"ahead.{name}")))
            case ir.Store(ref) if design.get(f"nontemporal.{ref.buffer}"):
                return replace(stmt, notes=ir.with_notes(stmt.notes, nontemporal=True))
            case _:
                return stmt

    body = rewrite(kernel.body, change)
    dealt = _DEALT[design.get("dealt")]
    top = tuple(
        replace(s, notes=ir.with_notes(s.notes, bind="thread", **dealt)) if isinstance(s, ir.Loop) and s.parallel else s
        for s in body
    )
    notes = ir.with_notes(kernel.notes, design=design.hash)
    if lanes := design.names("lanes"):
        notes = ir.with_notes(notes, lanes=lanes)
    return replace(kernel, body=_ordered(top, design.names("order")), notes=notes)


def _loop(loop: ir.Loop, design: Design) -> ir.Loop:
    axes = tuple(a if a.each else _stepped(a, design) for a in loop.axes)
    unroll = design.number(f"unroll.{loop.axes[-1].name}", 1)
    notes = ir.with_notes(loop.notes, unroll=unroll) if unroll > 1 else loop.notes
    split = design.number(f"split.{loop.axes[-1].name}", 1)
    if split > 1 and not loop.parallel:
        notes = ir.with_notes(notes, split=split)
    return replace(loop, axes=axes, notes=notes)


def _stepped(axis: ir.Axis, design: Design) -> ir.Axis:
    step, apart = (design.number(f"{what}.{axis.name}", 1) for what in ("tile", "apart"))
    return replace(axis, step=step, apart=apart)


def _ordered(body: tuple[ir.Stmt, ...], order: tuple[str, ...]) -> tuple[ir.Stmt, ...]:
    """Parallel loops with their axes in the order of the design."""
    if not order:
        return body
    rank = {name: n for n, name in enumerate(order)}
    return tuple(
        replace(s, axes=tuple(sorted(s.axes, key=lambda a: rank.get(a.name, -1))))
        if isinstance(s, ir.Loop) and s.parallel
        else s
        for s in body
    )
