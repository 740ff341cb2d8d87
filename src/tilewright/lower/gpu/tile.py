"""Stage `tile`: tiles of the result go to the grid, parts of them to the blocks of a cluster and to warpgroups."""

from __future__ import annotations

from dataclasses import replace

from tilewright.design.default import Facts
from tilewright.design.design import Design
from tilewright.language import ir
from tilewright.language.structure import fresh, names, rewrite
from tilewright.lower.gpu.nest import ATOM_ROWS, dots, is_main, is_wgmma, roles
from tilewright.lower.gpu.rename import renamed


def tile(kernel: ir.Kernel, design: Design, facts: Facts) -> ir.Kernel:
    """
    before:  for m in M, n in N parallel { ... for k in K { ... } ... }
    after:   for m0 in M step 256, n0 in N step 256 parallel @bind=grid {
               for m1 in m0 step 128 parallel @bind=cluster {
                 for m in m1 step 64 parallel @bind=warpgroup { ... for k in K step 64 { ... } ... } } }
    """
    taken = names(kernel)
    body = tuple(
        _tiled(s, design, taken) if isinstance(s, ir.Loop) and s.parallel and is_wgmma(s.body, design) else s
        for s in kernel.body
    )
    return replace(kernel, body=body)


def _tiled(loop: ir.Loop, design: Design, taken: set[str]) -> ir.Loop:
    role = roles(loop.body, design)
    pingpong = design.get("schedule") == "pingpong"
    body = rewrite(loop.body, lambda s: _step(s, design))
    grid, clusters, new = [], [], {}
    for axis in loop.axes:
        if axis.each:
            grid.append(axis)
            continue
        points = design.number(f"tile.{axis.name}") * (
            design.number("warpgroups", 1) if pingpong and axis.name == role.row else 1
        )
        outer, blocks = fresh(f"{axis.name}0", taken), design.number(f"cluster.{axis.name}", 1)
        grid.append(replace(axis, name=outer, step=points * blocks))
        new[axis.name] = outer
        if blocks > 1:
            new[axis.name] = fresh(f"{axis.name}1", taken)
            clusters.append(ir.Axis(new[axis.name], outer, points))
    rows = _rows(body, role.row, role.column, new, pingpong, design, taken)
    if clusters:
        rows = ir.Loop(tuple(clusters), (rows,), True, (("bind", "cluster"),))
    return ir.Loop(tuple(grid), (rows,), True, ir.with_notes(loop.notes, bind="grid"))


def _rows(
    body: tuple[ir.Stmt, ...],
    row: str,
    column: str,
    new: dict[str, str],
    pingpong: bool,
    design: Design,
    taken: set[str],
) -> ir.Loop:
    """The loop over rows of the atom: dealt to warpgroups, or inside tiles that are."""
    body = renamed(body, {column: new[column]})
    if not pingpong:
        return ir.Loop((ir.Axis(row, new[row], ATOM_ROWS),), body, True, (("bind", "warpgroup"),))
    own = fresh(f"{row}1", taken)
    inner = ir.Loop((ir.Axis(row, own, ATOM_ROWS),), body, True)
    return ir.Loop((ir.Axis(own, new[row], design.number(f"tile.{row}")),), (inner,), True, (("bind", "warpgroup"),))


def _step(stmt: ir.Stmt, design: Design) -> ir.Stmt:
    """Main loops get their step, dots their atom."""
    if is_main(stmt):
        assert isinstance(stmt, ir.Loop)
        axes = tuple(replace(a, step=design.number(f"tile.{a.name}")) for a in stmt.axes)
        return replace(stmt, axes=axes)
    if isinstance(stmt, ir.Let) and stmt in dots((stmt,)):
        notes = ir.with_notes(stmt.notes, atom=str(design.get(f"atom.{stmt.name}", "wgmma")))
        return replace(stmt, notes=ir.with_notes(notes, swap=True) if design.get("swap") else notes)
    return stmt
