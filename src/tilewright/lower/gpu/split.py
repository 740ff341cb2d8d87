"""Stage `split`: a long sum is cut in parts, which are dealt to blocks and joined in order."""

from __future__ import annotations

from dataclasses import replace

from tilewright.design.default import Facts
from tilewright.design.design import Design
from tilewright.language import ir
from tilewright.language.structure import fresh, names
from tilewright.lower.gpu.nest import is_main, is_rows, replaced
from tilewright.lower.gpu.rename import renamed


def split(kernel: ir.Kernel, design: Design, facts: Facts) -> ir.Kernel:
    """
    before:  acc = full 0.0;  for k in K step 64 { ... acc := acc + d };  store c[m, n] = acc
    after:   acc = full 0.0
             for s in K step 2048 @bind=grid @how=two_pass {
               part = full 0.0;  for k in s step 64 { ... part := part + d };  acc := acc + part }
             store c[m, n] = acc

    `@how=two_pass`: the last block to come adds up the parts, in their order; `cluster`: blocks of a cluster, each its
    share of the columns; `atomic`: each block adds its part to one sum in memory when it has it, in whatever order.
    """
    taken = names(kernel)

    def change(stmt: ir.Stmt) -> tuple[ir.Stmt, ...]:
        assert isinstance(stmt, ir.Loop)
        return (replace(stmt, body=tuple(_split(s, stmt.body, design, facts, taken) for s in stmt.body)),)

    return replace(kernel, body=replaced(kernel.body, is_rows, change))


def _split(stmt: ir.Stmt, body: tuple[ir.Stmt, ...], design: Design, facts: Facts, taken: set[str]) -> ir.Stmt:
    if not is_main(stmt):
        return stmt
    assert isinstance(stmt, ir.Loop)
    depth = stmt.axes[0]
    parts = design.number(f"split.{depth.name}", 1)
    if parts == 1:
        return stmt
    how = str(design.get(f"how.{depth.name}", "two_pass"))
    points = points_of_part(facts.sizes[depth.over], design.number(f"tile.{depth.name}"), parts)
    return in_parts(stmt, body, points, (("bind", "cluster" if how == "cluster" else "grid"), ("how", how)), taken)


def in_parts(loop: ir.Loop, body: tuple[ir.Stmt, ...], points: int, notes: ir.Notes, taken: set[str]) -> ir.Loop:
    """A loop of `body` that carries sums, as a loop over parts of `points` each, which are added in their order."""
    depth = loop.axes[0]
    carried = list(dict.fromkeys(s.name for s in ir.walk(loop.body) if isinstance(s, ir.Assign)))
    inits = {s.name: s for s in body if isinstance(s, ir.Let)}
    part = {name: fresh(f"{name}_part", taken) for name in carried}
    begin = tuple(replace(inits[name], name=part[name]) for name in carried)
    join: list[ir.Stmt] = []
    for name in carried:
        total = fresh(f"{name}_sum", taken)
        join += [ir.Let(total, inits[name].type, ir.Map("add", (name, part[name]))), ir.Assign(name, total)]
    outer = fresh(f"{depth.name}s", taken)
    inner = replace(loop, axes=(replace(depth, over=outer),), body=renamed(loop.body, part))
    return ir.Loop((replace(depth, name=outer, step=points),), (*begin, inner, *join), False, notes)


def points_of_part(size: int, step: int, parts: int) -> int:
    """How much of a sum of `size` terms each of at most `parts` parts takes: whole steps."""
    steps = -(-size // step)
    return -(-steps // parts) * step
