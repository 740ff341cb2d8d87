"""Stage `parts`: the range of a serial loop is dealt to blocks, and each block's share of it to warps.

A part begins with states of its own. Behind a barrier they are joined as the loop's own recurrences say
(`language/recurrences.py`): states pass through shared memory between the warps of a block, through memory between
blocks.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from tilewright.design.default import Facts
from tilewright.design.design import Design
from tilewright.language import ir
from tilewright.language.recurrences import Carried, Namer, carried, joined
from tilewright.language.structure import names
from tilewright.lower.gpu.rename import renamed


def parts(kernel: ir.Kernel, design: Design, facts: Facts) -> ir.Kernel:
    """
    before:  q = load q[b, s, D];  acc = full 0.0
             for t in T to length step 16 { k = load k[b, t, D] ... acc := acc + d }
             store o[b, s] = acc
    after:   acc = full 0.0
             for ts in T to length step 512 @bind=grid @how=two_pass {
               acc_block = full 0.0
               for tw in ts step 64 @bind=warp @how=two_pass {
                 q1 = load q[b, s, D];  acc_warp = full 0.0
                 for t in tw step 16 { k = load k[b, t, D] ... acc_warp := acc_warp + d }
                 alloc acc_warps: f32[s] @place=shared;  store acc_warps[s] = acc_warp
                 sync warps barrier @scope=block
                 other = load acc_warps[s];  acc_block := acc_block + other }
               alloc acc_blocks: f32[s] @place=memory;  store acc_blocks[s] = acc_block
               sync blocks barrier @scope=grid
               other1 = load acc_blocks[s];  acc := acc + other1 }
             store o[b, s] = acc
    """
    taken = Namer(names(kernel))
    body = tuple(_nest(s, design, taken) if isinstance(s, ir.Loop) and s.parallel else s for s in kernel.body)
    return replace(kernel, body=body)


def parted(nest: ir.Loop, design: Design) -> ir.Loop | None:
    """The serial loop of a nest that the design deals out in parts."""
    loops = (s for s in nest.body if isinstance(s, ir.Loop))
    return next((s for s in loops if design.get(f"part.{s.axes[0].name}") is not None), None)


def _nest(nest: ir.Loop, design: Design, taken: Namer) -> ir.Loop:
    loop = parted(nest, design)
    if loop is None:
        return nest
    at = nest.body.index(loop)
    before, after = nest.body[:at], nest.body[at + 1 :]
    known = {s.name: s for s in before if isinstance(s, ir.Let)}
    states = carried(loop, known)
    assert not isinstance(states, str), states
    dealt = _Dealt(loop, known, states, design, taken).blocks()
    return replace(nest, body=_needed((*before, dealt, *after)))


class _Dealt:
    """A loop dealt to blocks and to warps."""

    def __init__(
        self, loop: ir.Loop, known: dict[str, ir.Let], states: tuple[Carried, ...], design: Design, taken: Namer
    ) -> None:
        self.loop, self.known, self.states, self.new = loop, known, states, taken
        self.axis = loop.axes[0]
        self.points = design.number(f"part.{self.axis.name}")
        self.warps = design.number("warps", 4)
        self.turns = bool(design.get("turns"))

    def blocks(self) -> ir.Loop:
        """The loop over the parts of blocks."""
        outer = self.new(f"{self.axis.name}s")
        axis = replace(self.axis, name=outer, step=self.points, each=False)
        mine, begin = self._begin("block")
        body = (
            *begin,
            self._warps(outer, mine),
            *self._meet(mine, {n: n for n in mine}, "blocks", "memory", "grid", outer),
        )
        return ir.Loop((axis,), body, False, (("bind", "grid"), ("how", "two_pass")))

    def _warps(self, outer: str, block: dict[str, str]) -> ir.Loop:
        """The loop over the parts of warps, in the part of a block whose states are called `block`."""
        share = self.new(f"{self.axis.name}w")
        mine, begin = self._begin("warp")
        copies, own = self._copies()
        inner = replace(self.axis, over=share, start=None, stop=None)
        walk = replace(self.loop, axes=(inner, *self.loop.axes[1:]), body=renamed(self.loop.body, {**own, **mine}))
        if self.turns:
            walk = replace(walk, notes=ir.with_notes(walk.notes, turns=self.warps))
        body = (*copies, *begin, walk, *self._meet(mine, block, "warps", "shared", "block", share))
        axis = ir.Axis(share, outer, self.points // self.warps)
        return ir.Loop((axis,), body, False, (("bind", "warp"), ("how", "two_pass")))

    def _begin(self, whose: str) -> tuple[dict[str, str], list[ir.Stmt]]:
        """Names of the states of a part, and the statements that they begin with."""
        own = {s.name: self.new(f"{s.name}_{whose}") for s in self.states}
        return own, [replace(self.known[n], name=new) for n, new in own.items()]

    def _copies(self) -> tuple[list[ir.Stmt], dict[str, str]]:
        """Tiles that the loop reads and that are made before it, made again by each warp: values pass no border."""
        own: dict[str, str] = {}
        copies: list[ir.Stmt] = []
        wanted = _reads((self.loop,)) - {s.name for s in self.states}
        for let in reversed(self.known.values()):
            if let.name in wanted and let.type.axes:
                own[let.name] = self.new(f"{let.name}_own")
                wanted |= set(ir.operands(let.expr))
        for name in reversed(own):
            (copy,) = renamed((self.known[name],), own)
            assert isinstance(copy, ir.Let)
            copies.append(replace(copy, name=own[name]))
        return copies, own

    def _meet(
        self, mine: dict[str, str], into: dict[str, str], word: str, place: str, scope: str, axis: str
    ) -> list[ir.Stmt]:
        """The states `mine` pass through buffers, and all are joined with the states `into`, in order."""
        buffers = {s.name: self.new(f"{s.name}_{word}") for s in self.states}
        allocs = [ir.Alloc(buffers[s.name], s.type.dtype, s.type.axes, (("place", place),)) for s in self.states]
        cache: ir.Notes = (("cache", "cg"),) if place == "memory" else ()  # other SMs have written it
        stores = [ir.Store(ir.Ref(buffers[s.name], s.type.axes), mine[s.name], cache) for s in self.states]
        guards: ir.Notes = (("guards", tuple(buffers.values())), ("scope", scope), ("stage", axis))
        other = {s.name: self.new(f"{s.name}_other") for s in self.states}
        loads = [
            ir.Let(other[s.name], s.type, ir.Load(ir.Ref(buffers[s.name], s.type.axes)), cache) for s in self.states
        ]
        named = tuple(_called(s, into) for s in self.states)
        join = joined(named, {into[s.name]: other[s.name] for s in self.states}, self.new)
        return [*allocs, *stores, ir.Sync(self.new(word), "barrier", guards), *loads, *join]


def _called(state: Carried, names_: dict[str, str]) -> Carried:
    return replace(state, name=names_[state.name], extreme=names_.get(state.extreme, ""))


def _reads(body: Iterable[ir.Stmt]) -> set[str]:
    """Names that statements read, at any depth."""
    found: set[str] = set()
    for stmt in ir.walk(tuple(body)):
        match stmt:
            case ir.Let(_, _, expr):
                found.update(ir.operands(expr))
            case ir.Assign(_, value):
                found.add(value)
            case ir.Store(ref, value):
                found.update((value, *(i for i in ref.index if isinstance(i, str))))
            case ir.Loop(axes):
                found.update(b for a in axes for b in (a.start, a.stop) if isinstance(b, str))
    return found


def _needed(body: tuple[ir.Stmt, ...]) -> tuple[ir.Stmt, ...]:
    """`body` without values that nobody reads any more."""
    kept: list[ir.Stmt] = []
    for stmt in reversed(body):
        updated = any(isinstance(s, ir.Assign) and s.name == getattr(stmt, "name", "") for s in ir.walk(tuple(kept)))
        if not isinstance(stmt, ir.Let) or updated or stmt.name in _reads(kept):
            kept.append(stmt)
    return tuple(reversed(kept))


__all__ = ["parted", "parts"]
