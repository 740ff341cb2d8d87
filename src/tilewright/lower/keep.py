"""Stage `keep`: what one loop over a row has computed, a later loop over the same row reads from scratch."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

from tilewright.design.design import Design
from tilewright.design.twins import Twin, twins
from tilewright.language import ir
from tilewright.language.structure import fresh, names


def keep(kernel: ir.Kernel, design: Design) -> ir.Kernel:
    """
    before:  for m in M parallel { for d in D { e = exp ...; ... }  for d1 in D { e1 = exp ...; ... } }
    after:   for m in M parallel {
               alloc e_kept : f32[m, D] @place=scratch
               for d in D { e = exp ...; store e_kept[m, d] = e; ... }
               for d1 in D { e1 = load e_kept[m, d1]; ... } }
    """
    taken = names(kernel)
    for name, wanted in design.prefixed("keep"):
        if wanted:
            kernel = _kept(kernel, twins(kernel)[name], taken)
    return kernel


def _kept(kernel: ir.Kernel, twin: Twin, taken: set[str]) -> ir.Kernel:
    value, again = twin.earlier, twin.later
    row, dim = twin.first.axes[0].name, twin.first.axes[0].over
    buffer = fresh(f"{value.name}_kept", taken)
    dims = tuple(dim if a == row else a for a in value.type.axes)
    alloc = ir.Alloc(buffer, value.type.dtype, dims, (("place", "scratch"),))
    store = ir.Store(ir.Ref(buffer, value.type.axes), value.name)
    at = twin.first.body.index(value) + 1
    first = replace(twin.first, body=(*twin.first.body[:at], store, *twin.first.body[at:]))
    read = replace(again, expr=ir.Load(ir.Ref(buffer, again.type.axes)), notes=())
    second = replace(twin.second, body=_needed(tuple(read if s == again else s for s in twin.second.body)))
    changed = {twin.first: first, twin.second: second}
    body = (alloc, *(changed.get(s, s) if isinstance(s, ir.Loop) else s for s in twin.nest.loop.body))
    nest = replace(twin.nest.loop, body=body)
    return replace(kernel, body=tuple(nest if s == twin.nest.loop else s for s in kernel.body))


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
