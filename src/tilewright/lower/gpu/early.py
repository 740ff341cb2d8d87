"""Stage `early`: loads of a step that wait for nothing come first in it, so that all are on their way at once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType

from tilewright.design.design import Choice
from tilewright.language import ir
from tilewright.language.structure import rewrite, source


def early(kernel: ir.Kernel, stages: int = 0, engines: Mapping[str, Choice] = MappingProxyType({})) -> ir.Kernel:
    """
    before:  for t in T { k = load k[t, D]  z = dot q k  p = exp z  v = load v[t, E]  d = dot p v }
    after:   for t in T {
               k = load k[t, D] @prefetch=2  v = load v[t, E] @prefetch=2  z = dot q k  p = exp z  d = dot p v }

    With `stages`, what dots of the innermost loop read is loaded so many steps ahead; `engines` names what moves it.
    """
    written = {s.ref.buffer for s in ir.walk(kernel.body) if isinstance(s, ir.Store)}
    tensors = {p.name for p in kernel.params if p.dims is not None} - written

    def change(stmt: ir.Stmt) -> ir.Stmt:
        if isinstance(stmt, ir.Loop) and not stmt.parallel:
            return replace(stmt, body=_ahead(_ordered(stmt.body, tensors), tensors, stages, engines))
        return stmt

    return replace(kernel, body=rewrite(kernel.body, change))


def _ordered(body: tuple[ir.Stmt, ...], tensors: set[str]) -> tuple[ir.Stmt, ...]:
    made = {s.name for s in body if isinstance(s, ir.Let)}
    first = [s for s in body if _is_free(s, tensors, made)]
    return (*first, *(s for s in body if not any(s is f for f in first)))


def _ahead(
    body: tuple[ir.Stmt, ...], tensors: set[str], stages: int, engines: Mapping[str, Choice]
) -> tuple[ir.Stmt, ...]:
    lets = {s.name: s for s in body if isinstance(s, ir.Let)}
    dots = [s.expr for s in lets.values() if isinstance(s.expr, ir.Dot)]
    read = {source(lets, n).name for d in dots for n in (d.a, d.b) if n in lets} if stages else set()
    made = {s.name for s in body if isinstance(s, ir.Let)}
    return tuple(
        replace(s, notes=ir.with_notes(s.notes, prefetch=stages, **_engine(s, engines)))
        if isinstance(s, ir.Let) and s.name in read and _is_free(s, tensors, made)
        else s
        for s in body
    )


def _engine(let: ir.Let, engines: Mapping[str, Choice]) -> dict[str, ir.Note]:
    assert isinstance(let.expr, ir.Load)
    engine = engines.get(let.expr.ref.buffer)
    return {"engine": str(engine)} if engine is not None else {}


def _is_free(stmt: ir.Stmt, tensors: set[str], made: set[str]) -> bool:
    """Whether a statement loads from a tensor that nobody writes, at a place that the loop itself says."""
    if not (isinstance(stmt, ir.Let) and isinstance(stmt.expr, ir.Load)):
        return False
    ref = stmt.expr.ref
    return ref.buffer in tensors and not made & {i for i in ref.index if isinstance(i, str)}


__all__ = ["early"]
