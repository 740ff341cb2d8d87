"""Stage `annotate`: order of tiles, caches, multicast, and the notes of the whole."""

from __future__ import annotations

import math
from dataclasses import replace

from tilewright.design.default import Facts
from tilewright.design.design import Design
from tilewright.language import ir
from tilewright.language.structure import rewrite


def annotate(kernel: ir.Kernel, design: Design, facts: Facts) -> ir.Kernel:
    """
    before:  for m0 in M step 128, n0 in N step 256 parallel @bind=grid { ... dot ... @atom=wgmma }
    after:   for m0 in M step 128, n0 in N step 256 parallel @bind=grid @group=8 @order=grouped @persistent=true {
               ... dot ... @atom=wgmma @inflight=1 }
    """
    clusters = [s for s in ir.walk(kernel.body) if isinstance(s, ir.Loop) and ir.note(s.notes, "bind") == "cluster"]
    spread = [a for s in clusters if s.parallel for a in s.axes]

    tensors = {p.name for p in kernel.params}

    def change(stmt: ir.Stmt) -> ir.Stmt:
        match stmt:
            case ir.Loop(notes=notes) if ir.note(notes, "bind") == "grid" and stmt.parallel:
                return replace(stmt, notes=_order(notes, design))
            case ir.Copy(_, src, notes) if ir.note(notes, "engine") == "tma" and src.buffer in tensors:
                return replace(stmt, notes=_copy(stmt, spread, design))
            case ir.Let(_, _, ir.Dot(), notes) if ir.note(notes, "atom") == "wgmma":
                return replace(stmt, notes=ir.with_notes(notes, inflight=design.number("inflight", 1)))
            case ir.Alloc(notes=notes) if ir.note(notes, "place") == "memory":
                return replace(stmt, notes=ir.with_notes(notes, stages=_parts(kernel)))
            case ir.Store(ref, _, notes) if (cache := design.get(f"cache.{ref.buffer}")) is not None:
                return replace(stmt, notes=ir.with_notes(notes, cache=str(cache)))
            case _:
                return stmt

    body = rewrite(kernel.body, change)
    threads = 32 * sum(_warps(body).values())
    notes = ir.with_notes(kernel.notes, machine=facts.machine.name, design=design.hash, threads=threads)
    return replace(kernel, body=body, notes=notes)


def _warps(body: tuple[ir.Stmt, ...]) -> dict[str, int]:
    return {s.name: ir.number(s.notes, "warps", 4) for s in ir.walk(body) if isinstance(s, ir.Role)}


def _order(notes: ir.Notes, design: Design) -> ir.Notes:
    order = str(design.get("grid.order", "row"))
    notes = ir.with_notes(notes, order=order)
    if order == "grouped":
        notes = ir.with_notes(notes, group=design.number("grid.group", 8))
    return ir.with_notes(notes, persistent=True) if design.get("persistent") else notes


def _copy(copy: ir.Copy, spread: list[ir.Axis], design: Design) -> ir.Notes:
    """A copy whose source does not depend on an axis of the cluster is made once for all blocks along it."""
    cache = design.get(f"cache.{copy.src.buffer}")
    notes = copy.notes if cache is None else ir.with_notes(copy.notes, cache=str(cache))
    if (rows := design.number(f"box.{copy.src.buffer}", 0)) > 0:
        notes = ir.with_notes(notes, box=rows)
    shared = [a for a in spread if a.name not in copy.src.index]
    blocks = math.prod(design.number(f"cluster.{_root(a)}", 1) for a in shared)
    return ir.with_notes(notes, multicast=blocks) if blocks > 1 else notes


def _root(axis: ir.Axis) -> str:
    return axis.name[:-1]  # m1 is a part of m0, a tile of m


def _parts(kernel: ir.Kernel) -> int:
    """Parts of a split sum are kept for all splits at once; how many there are is the loop's business."""
    return 1
