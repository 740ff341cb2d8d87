"""The change `early`: what a later loop over a row loads is loaded in the first one, and waits in registers."""

from __future__ import annotations

from dataclasses import dataclass, replace

from tilewright.design.design import Design
from tilewright.design.twins import is_plain, twins
from tilewright.language import ir, structure
from tilewright.language.structure import fresh, names


@dataclass(frozen=True)
class Early:
    """A load of a later loop, and the first loop of its nest over the same dimension: names of their axes."""

    load: ir.Let
    first: str
    later: str


@structure.asked_once
def early_loads(kernel: ir.Kernel) -> dict[str, Early]:
    """Every load that could come early, by its name: of a tensor that nobody writes, at places known from the start."""
    written = {s.ref.buffer for s in ir.walk(kernel.body) if isinstance(s, ir.Store)}
    known, found = twins(kernel), {}
    for nest in structure.nests(kernel):
        loops = [s for s in nest.loop.body if isinstance(s, ir.Loop) and is_plain(s, kernel)]
        for n, later in enumerate(loops):
            first = next((f for f in loops[:n] if f.axes[0].over == later.axes[0].over), None)
            for let in later.body if first is not None else ():
                places = {a.name for a in nest.loop.axes} | {later.axes[0].name}
                if isinstance(let, ir.Let) and let.name not in known and _is_open(let, written, places):
                    assert first is not None
                    found[let.name] = Early(let, first.axes[0].name, later.axes[0].name)
    return found


def _is_open(let: ir.Let, written: set[str], places: set[str]) -> bool:
    """Whether a value is loaded from places that are known before the nest computes anything."""
    if not isinstance(let.expr, ir.Load) or let.expr.ref.buffer in written:
        return False
    return all(isinstance(i, int) or i in places for i in let.expr.ref.index)


def load_early(kernel: ir.Kernel, design: Design) -> ir.Kernel:
    """
    before:  for m in M parallel { for d in D { ... }  for d1 in D { w0 = load w[d1] ... } }
    after:   for m in M parallel {
               alloc w0_early : f32[D] @place=register
               for d in D { w0_ahead = load w[d]; store w0_early[d] = w0_ahead; ... }
               for d1 in D { w0 = load w0_early[d1] ... } }
    """
    known, taken = early_loads(kernel), names(kernel)
    chosen = {n: known[n] for n, wanted in design.prefixed("early") if wanted and n in known}
    for name, early in chosen.items():
        kernel = replace(
            kernel, body=tuple(_moved(s, early, fresh(f"{name}_early", taken), taken) for s in kernel.body)
        )
    return kernel


def _moved(stmt: ir.Stmt, early: Early, buffer: str, taken: set[str]) -> ir.Stmt:
    if not isinstance(stmt, ir.Loop) or not any(_is_over(s, early.later) for s in stmt.body):
        return stmt
    row = next(s.axes[0] for s in stmt.body if _is_over(s, early.later) and isinstance(s, ir.Loop))
    dims = tuple(row.over if a == row.name else a for a in early.load.type.axes)
    alloc = ir.Alloc(buffer, early.load.type.dtype, dims, (("place", "register"),))
    return replace(stmt, body=(alloc, *(_loop(s, early, buffer, taken) for s in stmt.body)))


def _loop(stmt: ir.Stmt, early: Early, buffer: str, taken: set[str]) -> ir.Stmt:
    load = early.load
    assert isinstance(load.expr, ir.Load)
    if _is_over(stmt, early.first) and isinstance(stmt, ir.Loop):
        axes, name = _renamed(load.type.axes, early), fresh(f"{load.name}_ahead", taken)
        ref = replace(load.expr.ref, index=tuple(early.first if i == early.later else i for i in load.expr.ref.index))
        ahead = replace(load, name=name, type=replace(load.type, axes=axes), expr=ir.Load(ref))
        return replace(stmt, body=(ahead, ir.Store(ir.Ref(buffer, axes), name), *stmt.body))
    if _is_over(stmt, early.later) and isinstance(stmt, ir.Loop):
        kept = replace(load, expr=ir.Load(ir.Ref(buffer, load.type.axes)), notes=())
        return replace(stmt, body=tuple(kept if s == load else s for s in stmt.body))
    return stmt


def _renamed(axes: tuple[str, ...], early: Early) -> tuple[str, ...]:
    return tuple(early.first if a == early.later else a for a in axes)


def _is_over(stmt: ir.Stmt, axis: str) -> bool:
    return isinstance(stmt, ir.Loop) and [a.name for a in stmt.axes] == [axis]


__all__ = ["Early", "early_loads", "load_early"]
