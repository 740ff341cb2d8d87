"""Stage `parts`: the range of a serial loop is dealt to threads in parts, and behind a barrier their states are joined.

How two states are joined is found in the loop (`language/recurrences.py`). A thread leaves what its part came to in
memory; the tiles are dealt again for what joins the parts, in order, and for what follows the loop.
"""

from __future__ import annotations

from dataclasses import replace

from tilewright.design.design import Design
from tilewright.language import ir
from tilewright.language.recurrences import Carried, Namer, carried, joined
from tilewright.language.structure import names
from tilewright.lower.gpu.parts import parted
from tilewright.lower.gpu.rename import renamed


def parts(kernel: ir.Kernel, design: Design) -> ir.Kernel:
    """
    before:  for m in M, n in N parallel { acc = full 0.0;  for k in K { ...; acc := acc + d };  store c[m, n] = acc }
    after:   for m in M, n in N parallel {
               acc = full 0.0
               for ks in K step 4096 @bind=thread @how=two_pass {
                 acc_part = full 0.0;  for k in ks { ...; acc_part := acc_part + d }
                 alloc acc_parts : f32[m, n] @place=memory;  store acc_parts[m, n] = acc_part
                 sync parts barrier @scope=team
                 other = load acc_parts[m, n];  acc := acc + other }
               store c[m, n] = acc }
    """
    taken = Namer(names(kernel))
    body = tuple(_nest(s, design, taken) if isinstance(s, ir.Loop) and s.parallel else s for s in kernel.body)
    return replace(kernel, body=body)


def _nest(nest: ir.Loop, design: Design, taken: Namer) -> ir.Loop:
    loop = parted(nest, design)
    if loop is None:
        return nest
    at = nest.body.index(loop)
    known = {s.name: s for s in nest.body[:at] if isinstance(s, ir.Let)}
    states = carried(loop, known)
    assert not isinstance(states, str), states
    axis = loop.axes[0]
    outer, own = taken(f"{axis.name}s"), {s.name: taken(f"{s.name}_part") for s in states}
    begin = tuple(replace(known[n], name=new) for n, new in own.items())
    walk = replace(loop, axes=(replace(axis, over=outer), *loop.axes[1:]), body=renamed(loop.body, own))
    points = design.number(f"part.{axis.name}")
    dealt = ir.Loop(
        (replace(axis, name=outer, step=points, each=False),),
        (*begin, walk, *_meet(states, own, outer, design.names("lanes"), taken)),
        notes=(("bind", "thread"), ("how", "two_pass")),
    )
    return replace(nest, body=(*nest.body[:at], dealt, *nest.body[at + 1 :]))


def _meet(
    states: tuple[Carried, ...], own: dict[str, str], axis: str, lanes: tuple[str, ...], taken: Namer
) -> list[ir.Stmt]:
    """The states of a part pass through memory, and all are joined with those of the loop, in order."""
    allocs: list[ir.Stmt] = []
    stores: list[ir.Stmt] = []
    loads: list[ir.Stmt] = []
    buffers, other = [], {}
    for state in states:
        lane = next((a for a in lanes if a in state.type.axes), None)
        order = tuple(sorted(state.type.axes, key=lambda a: a == lane))  # what lies across lanes is stored along rows
        buffers.append(taken(f"{state.name}_parts"))
        ref, type_ = ir.Ref(buffers[-1], order), replace(state.type, axes=order)
        allocs.append(ir.Alloc(ref.buffer, type_.dtype, order, (("place", "memory"),)))
        value, loaded = own[state.name], taken(f"{state.name}_other")
        other[state.name] = loaded
        if order == state.type.axes:
            stores.append(ir.Store(ref, value))
            loads.append(ir.Let(loaded, type_, ir.Load(ref)))
            continue
        turned, rows = taken(f"{value}_rows"), taken(f"{loaded}_rows")
        stores += [ir.Let(turned, type_, ir.Permute(value)), ir.Store(ref, turned)]
        loads += [ir.Let(rows, type_, ir.Load(ref)), ir.Let(loaded, state.type, ir.Permute(rows))]
    guards: ir.Notes = (("guards", tuple(buffers)), ("scope", "team"), ("stage", axis))
    return [
        *allocs, *stores, ir.Sync(taken("parts"), "barrier", guards), *loads, *joined(states, other, taken),
    ]  # fmt: skip


__all__ = ["parts"]
