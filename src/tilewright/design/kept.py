"""The change `keep`: what one loop over a row has computed, a later loop over the same row reads from scratch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace

from tilewright.design.design import Design
from tilewright.design.twins import Twin, twins
from tilewright.language import ir
from tilewright.language.structure import fresh, names


def keep(kernel: ir.Kernel, design: Design, place: str = "scratch") -> ir.Kernel:
    """
    before:  for m in M parallel { for d in D { e = exp ...; ... }  for d1 in D { e1 = exp ...; ... } }
    after:   for m in M parallel {
               alloc e_kept : f32[m, D] @place=scratch
               for d in D { e = exp ...; store e_kept[m, d] = e; ... }
               for d1 in D { e1 = load e_kept[m, d1]; ... } }
    """
    known = twins(kernel)
    kept = [known[name] for name, wanted in design.prefixed("keep") if wanted]
    taken = names(kernel)
    buffers = {name: fresh(f"{name}_kept", taken) for name in dict.fromkeys(t.earlier.name for t in kept)}

    def change(stmt: ir.Stmt) -> ir.Stmt:
        here = [t for t in kept if t.nest.loop == stmt]
        return _nest(stmt, here, buffers, place) if here and isinstance(stmt, ir.Loop) else stmt

    return replace(kernel, body=tuple(map(change, kernel.body)))


def _nest(nest: ir.Loop, kept: list[Twin], buffers: Mapping[str, str], place: str) -> ir.Loop:
    """A nest with room for what is kept, one row at a time, written and read by its loops."""
    allocs = {t.earlier.name: _alloc(t, buffers[t.earlier.name], place) for t in kept}
    body = (_loop(s, kept, buffers) if isinstance(s, ir.Loop) else s for s in nest.body)
    return replace(nest, body=(*allocs.values(), *body))


def _alloc(twin: Twin, buffer: str, place: str) -> ir.Alloc:
    row, type_ = twin.first.axes[0], twin.earlier.type
    dims = tuple(row.over if a == row.name else a for a in type_.axes)
    return ir.Alloc(buffer, type_.dtype, dims, (("place", place),))


def _loop(loop: ir.Loop, kept: list[Twin], buffers: Mapping[str, str]) -> ir.Loop:
    """A loop of a nest that writes what later ones read, and reads what earlier ones wrote."""
    body: list[ir.Stmt] = []
    reads = {t.later: buffers[t.earlier.name] for t in kept if t.second == loop}
    written = {t.earlier for t in kept if t.first == loop}
    for stmt in loop.body:
        if isinstance(stmt, ir.Let) and stmt in reads:
            body.append(replace(stmt, expr=ir.Load(ir.Ref(reads[stmt], stmt.type.axes)), notes=()))
        else:
            body.append(stmt)
        if isinstance(stmt, ir.Let) and stmt in written:
            body.append(ir.Store(ir.Ref(buffers[stmt.name], stmt.type.axes), stmt.name))
    return replace(loop, body=_needed(tuple(body)) if reads else tuple(body))


def _needed(body: tuple[ir.Stmt, ...]) -> tuple[ir.Stmt, ...]:
    """The statements of a loop without values that nothing reads any more."""
    used: Counter[str] = Counter()
    result: list[ir.Stmt] = []
    for stmt in reversed(body):
        if isinstance(stmt, ir.Let) and not used[stmt.name]:
            continue
        result.append(stmt)
        for inner in ir.walk((stmt,)):
            match inner:
                case ir.Let(_, _, expr):
                    used.update(ir.operands(expr))
                case ir.Assign(_, value):
                    used[value] += 1
                case ir.Store(ref, value):
                    used.update([value, *(i for i in ref.index if isinstance(i, str))])
                case ir.Loop(axes):
                    used.update(x for a in axes for x in (a.start, a.stop) if isinstance(x, str))
                case _:
                    pass
    return tuple(reversed(result))
