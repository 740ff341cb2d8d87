"""Stage `straight`: operands of dots go straight to registers: parts of a sum to warps, weights asked for first."""

from __future__ import annotations

from dataclasses import replace

from tilewright.design.default import Facts
from tilewright.design.design import Design
from tilewright.language import ir
from tilewright.language.structure import names
from tilewright.lower.gpu.nest import is_main
from tilewright.lower.gpu.split import in_parts, points_of_part


def straight(kernel: ir.Kernel, design: Design, facts: Facts) -> ir.Kernel:
    """
    before:  acc = full 0.0;  for k in K step 512 { a0 = load a[m, k]; b0 = load b[n, k]; ... acc := acc + d };  ...
    after:   acc = full 0.0
             for ks in K step 1024 @bind=warp @how=tree {
               part = full 0.0;  for k in ks step 512 { b0 = load b[n, k]; a0 = load a[m, k]; ... part := part + d }
               acc := acc + part };  ...
    """
    taken = names(kernel)

    def nest(stmt: ir.Stmt) -> ir.Stmt:
        if not isinstance(stmt, ir.Loop):
            return stmt
        return replace(stmt, body=tuple(_dealt(s, stmt.body, design, facts, taken) for s in stmt.body))

    return replace(kernel, body=tuple(nest(s) for s in kernel.body))


def _dealt(stmt: ir.Stmt, body: tuple[ir.Stmt, ...], design: Design, facts: Facts, taken: set[str]) -> ir.Stmt:
    if not is_main(stmt):
        return stmt
    assert isinstance(stmt, ir.Loop)
    depth = stmt.axes[0]
    points = points_of_part(facts.sizes[depth.over], depth.step or 1, design.number(f"warps.{depth.name}", 1))
    return in_parts(_asked(stmt, design.number("stages", 0)), body, points, (("bind", "warp"), ("how", "tree")), taken)


def _asked(loop: ir.Loop, stages: int) -> ir.Loop:
    """The loads of a loop before all else in it: those of columns of the result first, as there are more of them.

    Where these are on their way `stages` steps ahead, the others are asked for before the step waits for them.
    """
    column = next(s for s in loop.body if isinstance(s, ir.Let) and isinstance(s.expr, ir.Dot)).type.axes[1]
    loads = [s for s in loop.body if isinstance(s, ir.Let) and isinstance(s.expr, ir.Load)]
    rest = tuple(s for s in loop.body if s not in loads)
    weights = [s for s in loads if column in s.type.axes]
    others = [s for s in loads if s not in weights]
    if not stages:
        return replace(loop, body=(*weights, *others, *rest))
    ahead = (replace(s, notes=ir.with_notes(s.notes, prefetch=stages)) for s in weights)
    return replace(loop, body=(*others, *ahead, *rest))


__all__ = ["straight"]
