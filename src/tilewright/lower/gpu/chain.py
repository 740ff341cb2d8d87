"""The lowering of chained products to roles: ordered, named rewrites from the tile program to the scheduled program."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from tilewright.design.default import Facts
from tilewright.design.design import Design
from tilewright.language import ir
from tilewright.language.structure import rewrite
from tilewright.lower.gpu.chain_free import free_columns
from tilewright.lower.gpu.chain_place import place_chain
from tilewright.lower.gpu.chain_roles import roles_of_chain
from tilewright.lower.gpu.chain_tile import tile_chain

Stage = Callable[[ir.Kernel, Design, Facts], ir.Kernel]


def annotate_chain(kernel: ir.Kernel, design: Design, facts: Facts) -> ir.Kernel:
    """
    before:  for each h in H, i0 in S step 128 parallel @bind=grid { .. pv = dot pb vt over t @atom=wgmma .. }
    after:   for each h in H, i0 in S step 128 parallel @bind=grid @order=row {
               .. pv = dot pb vt over t @atom=wgmma @behind=1 .. }
    """
    split = _split_sums(kernel)
    loaded = {s.name for s in ir.walk(kernel.body) if isinstance(s, ir.Let) and isinstance(s.expr, ir.Load)}

    def change(stmt: ir.Stmt) -> ir.Stmt:
        match stmt:
            case ir.Loop(parallel=False, notes=notes) if design.get("own") and ir.note(notes, "stages"):
                return replace(stmt, notes=ir.with_notes(notes, own=True))
            case ir.Loop(parallel=True, notes=notes) if ir.note(notes, "bind") == "grid":
                return replace(stmt, notes=_order(notes, design))
            case ir.Let(expr=ir.Dot(a, b)) if design.get("overlap") and not {a, b} <= loaded:
                return replace(stmt, notes=ir.with_notes(stmt.notes, behind=1))
            case ir.Let(name, _, ir.Reduce()) if name in split:
                return replace(stmt, notes=ir.with_notes(stmt.notes, how="split"))
            case ir.Copy(_, src, notes) if (cache := design.get(f"cache.{src.buffer}")) is not None:
                return replace(stmt, notes=ir.with_notes(notes, cache=str(cache)))
        return stmt

    body = rewrite(kernel.body, change)
    warps = {s.name: ir.number(s.notes, "warps", 4) for s in ir.walk(body) if isinstance(s, ir.Role)}
    notes = ir.with_notes(
        kernel.notes, machine=facts.machine.name, design=design.hash, threads=32 * sum(warps.values())
    )
    return replace(kernel, body=body, notes=notes)


def _order(notes: ir.Notes, design: Design) -> ir.Notes:
    order = str(design.get("grid.order", "row"))
    notes = ir.with_notes(notes, order=order)
    if order == "grouped":
        notes = ir.with_notes(notes, group=design.number("grid.group", 8))
    if design.get("grid.descending"):
        notes = ir.with_notes(notes, descending=True)
    if design.get("drawn"):
        notes = ir.with_notes(notes, drawn=True)
    return ir.with_notes(notes, persistent=True) if design.get("persistent") else notes


def _rows_of(kernel: ir.Kernel) -> tuple[ir.Loop, tuple[ir.Stmt, ...]]:
    """The loop over columns, and what one of its steps does for rows."""
    loops = [s for s in ir.walk(kernel.body) if isinstance(s, ir.Loop)]
    main = next(s for s in loops if ir.note(s.notes, "stages") and not s.parallel)
    return main, next(s for s in ir.walk(main.body) if isinstance(s, ir.Loop)).body


def _split_sums(kernel: ir.Kernel) -> set[str]:
    """Reductions that threads may keep to themselves until the loop ends: v = v x + sum, from 0 on, else unread."""
    main, body = _rows_of(kernel)
    lets = {s.name: s for s in body if isinstance(s, ir.Let)}
    reads: dict[str, int] = {}
    for s in body:
        for n in ir.operands(s.expr) if isinstance(s, ir.Let) else (s.value,) if isinstance(s, ir.Store) else ():
            reads[n] = reads.get(n, 0) + 1
    begins = {
        s.ref.buffer: next(x for x in ir.walk(kernel.body) if isinstance(x, ir.Let) and x.name == s.value)
        for s in ir.walk(kernel.body)
        if isinstance(s, ir.Store) and s not in body and s.value.startswith(f"{s.ref.buffer}_begin")
    }
    found = set()
    for s in body:
        if not isinstance(s, ir.Store) or s.ref.buffer not in begins or begins[s.ref.buffer].expr != ir.Full(0.0):
            continue
        add = lets.get(s.value)
        if add is None or reads[add.name] != 1 or not isinstance(add.expr, ir.Map) or add.expr.op != "add":
            continue
        for total, part in (add.expr.args, add.expr.args[::-1]):
            if _is_part(lets, reads, s.ref.buffer, total) and _is_sum(lets, reads, part, main.axes[0].name):
                found.add(part)
    return found


def _is_sum(lets: dict[str, ir.Let], reads: dict[str, int], name: str, axis: str) -> bool:
    let = lets.get(name)
    return (
        let is not None
        and reads[name] == 1
        and isinstance(let.expr, ir.Reduce)
        and let.expr.op == "sum"
        and (let.expr.axis == axis)
    )


def _is_part(lets: dict[str, ir.Let], reads: dict[str, int], buffer: str, name: str) -> bool:
    """Whether a value is what the buffer held, or a multiple of it, and read nowhere else."""
    let = lets.get(name)
    if let is None or reads[name] != 1:
        return False
    match let.expr:
        case ir.Load(ref):
            return ref.buffer == buffer
        case ir.Map("mul", (x, y)):
            return any(_is_part(lets, reads, buffer, v) for v in (x, y))
    return False


CHAIN_STAGES: tuple[tuple[str, Stage], ...] = (
    ("tile", tile_chain),
    ("place", place_chain),
    ("pipeline", roles_of_chain),
    ("free", free_columns),
    ("annotate", annotate_chain),
)


def lower_chain(kernel: ir.Kernel, design: Design, facts: Facts) -> ir.Kernel:
    """The scheduled program of a chain; the interpreter gives both the same meaning."""
    for _name, stage in CHAIN_STAGES:
        kernel = stage(kernel, design, facts)
    return kernel


__all__ = ["CHAIN_STAGES", "lower_chain"]
