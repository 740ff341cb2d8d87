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
    return in_parts(_weights_first(stmt), body, points, (("bind", "warp"), ("how", "tree")), taken)


def _weights_first(loop: ir.Loop) -> ir.Loop:
    """The loads of a loop before all else in it, those of columns of the result first: there are more of them."""
    column = next(s for s in loop.body if isinstance(s, ir.Let) and isinstance(s.expr, ir.Dot)).type.axes[1]
    loads = [s for s in loop.body if isinstance(s, ir.Let) and isinstance(s.expr, ir.Load)]
    rest = tuple(s for s in loop.body if s not in loads)
    return replace(loop, body=(*sorted(loads, key=lambda s: column not in s.type.axes), *rest))


__all__ = ["straight"]
