"""Stage `ring`: operands of dots pass through shared memory, several steps of the sum ahead."""

from __future__ import annotations

from dataclasses import replace

from tilewright.design.default import Facts
from tilewright.design.design import Design
from tilewright.language import ir
from tilewright.language.structure import fresh, names, rewrite


def ring(kernel: ir.Kernel, design: Design, facts: Facts) -> ir.Kernel:
    """
    before:  for k in K step 64 { x = load a[m, k]; y = load b[n, k]; d = dot x y over k ... }
    after:   for k in K step 64 @stages=3 {
               alloc s_a: bf16[m, k] @layout=swizzle128 @place=shared @stages=3
               copy s_a[m, k] <- a[m, k] @engine=cp_async;  (b likewise)
               sync ring barrier @guards=(s_a,s_b) @scope=block @stage=k
               x = load s_a[m, k]; y = load s_b[n, k]; d = dot x y over k ... }
    """
    taken = names(kernel)

    def change(stmt: ir.Stmt) -> ir.Stmt:
        if isinstance(stmt, ir.Loop) and not stmt.parallel and _operands(stmt, design):
            return _staged(stmt, design, facts, taken)
        return stmt

    return replace(kernel, body=rewrite(kernel.body, change))


def _operands(loop: ir.Loop, design: Design) -> list[ir.Let]:
    """Loads of tensors with an engine that nothing but dots of the loop reads."""
    read = {n for s in loop.body if isinstance(s, ir.Let) and isinstance(s.expr, ir.Dot) for n in (s.expr.a, s.expr.b)}
    engines = dict(design.prefixed("engine"))
    lets = [s for s in loop.body if isinstance(s, ir.Let) and s.name in read]
    return [s for s in lets if isinstance(s.expr, ir.Load) and s.expr.ref.buffer in engines]


def _staged(loop: ir.Loop, design: Design, facts: Facts, taken: set[str]) -> ir.Loop:
    stages = design.number("stages", 2)
    allocs: list[ir.Stmt] = []
    copies: list[ir.Stmt] = []
    loads: dict[str, ir.Stmt] = {}
    for let in _operands(loop, design):
        assert isinstance(let.expr, ir.Load)
        ref = let.expr.ref
        unit = [ref.index[d] for d in facts.unit.get(ref.buffer, ())]
        order = tuple(sorted(let.type.axes, key=lambda a: a in unit))  # rows in shared memory as in memory
        name = fresh(f"s_{ref.buffer}", taken)
        notes = (("layout", "swizzle128"), ("place", "shared"), ("stages", stages))
        allocs.append(ir.Alloc(name, let.type.dtype, order, notes))
        copies.append(ir.Copy(ir.Ref(name, order), ref, (("engine", str(design.get(f"engine.{ref.buffer}"))),)))
        type_ = replace(let.type, axes=order)
        loads[let.name] = ir.Let(let.name, type_, ir.Load(ir.Ref(name, order)))
    guards = tuple(a.name for a in allocs if isinstance(a, ir.Alloc))
    when: ir.Notes = (("guards", guards), ("scope", "block"), ("stage", loop.axes[-1].name))
    sync = ir.Sync(fresh("ring", taken), "barrier", when)
    body = tuple(loads.get(s.name, s) if isinstance(s, ir.Let) else s for s in loop.body)
    return replace(loop, body=(*allocs, *copies, sync, *body), notes=ir.with_notes(loop.notes, stages=stages))


__all__ = ["ring"]
