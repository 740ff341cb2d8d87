"""Stage `tile` of chained products: rows go to the grid and to warpgroups, columns get their step.

What bounds the loop over columns is computed for all rows of a block, so that all warpgroups take the same steps.
"""

from __future__ import annotations

from dataclasses import replace

from tilewright.design.default import Facts
from tilewright.design.design import Design
from tilewright.design.gpu.chain import Chain, chain, without_axes
from tilewright.language import ir
from tilewright.language.structure import fresh, names, rewrite
from tilewright.lower.gpu.nest import ATOM_ROWS
from tilewright.lower.gpu.rename import renamed


def tile_chain(kernel: ir.Kernel, design: Design, facts: Facts) -> ir.Kernel:
    """
    before:  for each h in H, i in S parallel {
               stop = ..i..;  acc = ..;  for t in T to stop { ... }  store o[h, i, D] = .. }
    after:   for each h in H, i0 in S step 128 parallel @bind=grid {
               stop = ..i0..
               for i in i0 step 64 parallel @bind=warpgroup {
                 acc = ..;  for t in T to stop step 128 { ... dot ... @atom=wgmma }  store o[h, i, D] = .. } }

    With heads g packed: for each h in H, g0 in G step 4, i0 in S step 16 parallel @bind=grid {
                           for each g in g0, i in i0 step 16 parallel @bind=warpgroup { ... } }
    """
    found = chain(kernel)
    assert isinstance(found, Chain)
    nest = kernel.body[0]
    assert isinstance(nest, ir.Loop)
    taken = names(kernel)
    body = without_axes(nest.body, frozenset(a.name for a in found.single))
    outer, height = fresh(f"{found.row.name}0", taken), design.number(f"tile.{found.row.name}")
    grid = [replace(a, each=True) for a in nest.axes if a.name != found.row.name]
    grid.append(ir.Axis(outer, found.row.over, height))
    axes, own = [ir.Axis(found.row.name, outer, min(height, ATOM_ROWS))], {found.row.name}
    if found.packed is not None and design.number(f"tile.{found.packed.name}", 1) > 1:
        side = ir.Axis(
            fresh(f"{found.packed.name}0", taken), found.packed.over, design.number(f"tile.{found.packed.name}")
        )
        grid = [side if a.name == found.packed.name else a for a in grid]
        axes.insert(0, ir.Axis(found.packed.name, side.name, each=True))
        own.add(found.packed.name)
    shared, rows = _parted(body, found.row.name, outer, taken, own)
    rows = rewrite(rows, lambda s: _noted(s, design))
    inner = ir.Loop(tuple(axes), rows, True, (("bind", "warpgroup"),))
    return replace(kernel, body=(ir.Loop(tuple(grid), (*shared, inner), True, (("bind", "grid"),)),))


def _noted(stmt: ir.Stmt, design: Design) -> ir.Stmt:
    """The step of the loop over columns, and the atom of products."""
    match stmt:
        case ir.Loop(axes=(axis,)):
            return replace(stmt, axes=(replace(axis, step=design.number(f"tile.{axis.name}")),))
        case ir.Let(expr=ir.Dot()):
            return replace(stmt, notes=ir.with_notes(stmt.notes, atom="wgmma"))
    return stmt


def _parted(
    body: tuple[ir.Stmt, ...], row: str, outer: str, taken: set[str], own: set[str]
) -> tuple[tuple[ir.Stmt, ...], tuple[ir.Stmt, ...]]:
    """What a block computes once, and what it computes for each of its rows."""
    at = next(n for n, s in enumerate(body) if isinstance(s, ir.Loop))
    before, main = [s for s in body[:at] if isinstance(s, ir.Let)], body[at]
    assert isinstance(main, ir.Loop)
    carried = {s.name for s in ir.walk(main.body) if isinstance(s, ir.Assign)}
    varying = {n for axis in own for n in of_rows(before, axis)}
    bounds = [x for x in (main.axes[0].start, main.axes[0].stop) if isinstance(x, str)]
    needed = closure(bounds, before)
    new = {row: outer, **{n: fresh(f"{n}_block", taken) for n in needed if n in varying}}
    shared: list[ir.Stmt] = []
    for s in before:
        if s.name in needed:
            shared += renamed((s,), new) if s.name in varying else (s,)
        elif s.name not in varying and not s.type.axes and s.name not in carried:
            shared.append(s)
    kept = {s.name for s in shared if isinstance(s, ir.Let)}
    axis = replace(main.axes[0], start=_new(main.axes[0].start, new), stop=_new(main.axes[0].stop, new))
    rest = (*(s for s in before if s.name not in kept), replace(main, axes=(axis,)), *body[at + 1 :])
    return tuple(shared), live(rest)


def _new(bound: str | int | None, new: dict[str, str]) -> str | int | None:
    return new.get(bound, bound) if isinstance(bound, str) else bound


def of_rows(lets: list[ir.Let], row: str) -> set[str]:
    """Values that depend on which rows these are."""
    found: set[str] = set()
    for s in lets:
        along = isinstance(s.expr, ir.Coord | ir.Reduce) and s.expr.axis == row
        if along or row in s.type.axes or found & set(ir.operands(s.expr)) or row in ir.operands(s.expr):
            found.add(s.name)
    return found


def closure(wanted: list[str] | set[str], lets: list[ir.Let]) -> set[str]:
    """The values among `lets` that `wanted` are computed of, themselves included."""
    by_name, found = {s.name: s for s in lets}, set()
    todo = [n for n in wanted if n in by_name]
    while todo:
        name = todo.pop()
        if name not in found:
            found.add(name)
            todo += [n for n in ir.operands(by_name[name].expr) if n in by_name]
    return found


def live(body: tuple[ir.Stmt, ...]) -> tuple[ir.Stmt, ...]:
    """`body` without values that nobody reads."""
    used: set[str] = set()
    for s in ir.walk(body):
        match s:
            case ir.Assign(name, value):
                used |= {name, value}
            case ir.Store(ref, value):
                used |= {value, *(str(i) for i in ref.index)}
            case ir.Copy(dst, src):
                used |= {str(i) for r in (dst, src) for i in r.index}
            case ir.Loop(axes):
                used |= {str(x) for a in axes for x in (a.start, a.stop)}
    lets = [s for s in ir.walk(body) if isinstance(s, ir.Let)]
    wanted = closure(used, lets)

    def kept(block: tuple[ir.Stmt, ...]) -> tuple[ir.Stmt, ...]:
        inner = [replace(s, body=kept(s.body)) if isinstance(s, ir.Loop | ir.When | ir.Role) else s for s in block]
        return tuple(s for s in inner if not isinstance(s, ir.Let) or s.name in wanted)

    return kept(body)


__all__ = ["closure", "live", "of_rows", "tile_chain"]
