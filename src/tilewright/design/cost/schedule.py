"""The loops that a design makes of a program: which axes step by how much, in which order, and what lies inside.

The same rules as the stages of lowering (`lower/`: tile, pack, block, local), without their rewriting: phases, cache
blocks, slabs of the summed axis, copies into panels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from tilewright.design.cost.tiling import Tiling
from tilewright.design.panels import copied_depth
from tilewright.language import ir, structure


@dataclass(frozen=True)
class Access:
    """A place that a body reads or writes: the axes of each dimension, and how elements lie."""

    buffer: str
    index: tuple[str | None, ...]
    dims: tuple[int, ...]  # full sizes
    itemsize: int
    unit: int | None  # the dimension with neighbours side by side; None for panels, which are one piece
    write: bool = False
    around: bool = False  # written around the caches
    copied: bool = False  # read in order to be packed


@dataclass(frozen=True)
class Copy:
    """The filling of a panel: its tensor's access and the panel's."""

    tensor: str
    layout: str
    lane: str
    depth: str
    widened: bool


@dataclass(frozen=True)
class Work:
    """Statements without loops, and the places they touch."""

    stmts: tuple[ir.Stmt, ...]
    accesses: tuple[Access, ...]
    copy: Copy | None = None
    spills: bool = False  # reloads and saves unfinished tiles


@dataclass(frozen=True)
class Level:
    """One axis of a loop: its name and the points of a step."""

    axis: str
    step: int


@dataclass(frozen=True)
class Loop:
    """Levels from the outermost to the innermost, and the body."""

    levels: tuple[Level, ...]
    body: tuple[Loop | Work, ...]
    serial: bool = False
    unroll: int = 1
    source: ir.Loop | None = None


@dataclass(frozen=True)
class Phase:
    """A top-level loop; its tiles are dealt to threads unless it is serial."""

    loop: Loop
    parallel: bool


class Schedule:
    """The phases of a design."""

    def __init__(self, tiling: Tiling) -> None:
        self.t, self.program = tiling, tiling.program
        self.panels = {
            tensor: str(layout)
            for name, layout in tiling.decisions.items()
            if name.startswith("pack.") and (tensor := name[5:]) in self.program.operands
        }
        self.local = {x for x in self.panels if tiling.decisions.get(f"local.{x}")}
        self.phases = self._phases()

    def _phases(self) -> tuple[Phase, ...]:
        copies = [Phase(self._copy_loop(x), True) for x in self.panels if x not in self.local]
        return (*copies, *(phase for n in self.program.nests for phase in self._phases_of(n)))

    def _phases_of(self, nest: structure.Nest) -> tuple[Phase, ...]:
        """One phase; two where a loop is dealt out in parts: the parts, then the tiles that join them."""
        dealt = next((s for s in nest.serial if self.t.number(f"part.{s.axes[0].name}")), None)
        if dealt is None or not nest.loop.parallel:
            return (Phase(self._nest(nest), nest.loop.parallel),)
        axis, at = dealt.axes[0].name, nest.loop.body.index(dealt)
        part = Level(axis, self.t.number(f"part.{axis}"))
        meet = Work((), self._carried(dealt), spills=True)
        outer = self._nest(nest).levels
        first = (*self._body(nest.loop.body[: at + 1]), meet)
        join = Loop((part,), (meet,), serial=True)
        rest = (join, *self._body(nest.loop.body[at + 1 :]))
        loops = (Loop((*outer, part), first, source=nest.loop), Loop(outer, rest, source=nest.loop))
        return tuple(Phase(loop, True) for loop in loops)

    # ------------------------------------------------------------------------------------------- nests
    def _nest(self, nest: structure.Nest) -> Loop:
        loop = nest.loop
        order = self.t.decisions.get("order", ()) if loop.parallel else ()
        rank = {a: n for n, a in enumerate(order)} if isinstance(order, tuple) else {}
        axes = sorted((a for a in loop.axes), key=lambda a: rank.get(a.name, -1))
        blocked = [a.name for a in axes if not a.each and self.t.number(f"block.{a.name}")] if loop.parallel else []
        outer = tuple(Level(a.name, self._outer_step(a, blocked)) for a in axes)
        if not blocked:
            return Loop(outer, self._body(loop.body), serial=not loop.parallel, source=loop)
        inner = self.t.decisions.get("inner", ())
        rank = {a: n for n, a in enumerate(inner)} if isinstance(inner, tuple) else {}
        blocked = sorted((a.name for a in loop.axes if a.name in blocked), key=lambda a: rank.get(a, -1))
        levels = tuple(Level(a, self.t.points[a]) for a in blocked)
        main = nest.main.axes[0].name if nest.main is not None else None
        slab = self.t.number(f"block.{main}") if main is not None else 0
        tiles = Loop(levels, self._body(loop.body, waits=self._waiting(nest) if slab else ()))
        local = tuple(self._copy_loop(x) for x in self.panels if x in self.local)
        if main is not None and slab:
            return Loop(outer, (Loop((Level(main, slab),), (*local, tiles)),))
        return Loop(outer, (*local, tiles))

    def _outer_step(self, axis: ir.Axis, blocked: list[str]) -> int:
        return self.t.number(f"block.{axis.name}") if axis.name in blocked else self.t.points[axis.name]

    def _body(self, body: tuple[ir.Stmt, ...], waits: tuple[Access, ...] = ()) -> tuple[Loop | Work, ...]:
        """Loops as they are; runs of other statements as work."""
        result: list[Loop | Work] = [Work((), waits, spills=True)] if waits else []
        run: list[ir.Stmt] = []
        for stmt in body:
            if isinstance(stmt, ir.Loop):
                result += [self._work(run), self._inner(stmt)] if run else [self._inner(stmt)]
                run = []
            else:
                run.append(stmt)
        return (*result, self._work(run)) if run else tuple(result)

    def _inner(self, loop: ir.Loop) -> Loop:
        levels = tuple(Level(a.name, self.t.points[a.name]) for a in loop.axes)
        unroll = self.t.number(f"unroll.{loop.axes[-1].name}", 1)
        return Loop(levels, self._body(loop.body), not loop.parallel, max(1, unroll), loop)

    def _work(self, run: list[ir.Stmt]) -> Work:
        accesses = []
        for stmt in run:
            if isinstance(stmt, ir.Let) and isinstance(stmt.expr, ir.Load):
                accesses.append(self._access(stmt.expr.ref))
            elif isinstance(stmt, ir.Store):
                around = bool(self.t.decisions.get(f"nontemporal.{stmt.ref.buffer}"))
                accesses.append(self._access(stmt.ref, write=True, around=around))
        return Work(tuple(run), tuple(dict.fromkeys(accesses)))

    # -------------------------------------------------------------------------------------- accesses
    def _access(self, ref: ir.Ref, *, write: bool = False, around: bool = False, source: bool = False) -> Access:
        known = self.program
        if ref.buffer in known.scratch:
            return self._own(ref, write)
        param = known.kernel.param(ref.buffer)
        index = tuple(
            i if isinstance(i, str) and (i in known.axes or i in known.whole) else self._gathered(i) for i in ref.index
        )
        sizes = self.t.facts.sizes
        dims = tuple(sizes.get(d, 1) if isinstance(d, str) else d for d in param.dims or ())
        unit = next(iter(self.t.facts.unit.get(ref.buffer, ())), None)
        itemsize = param.dtype.bytes
        if not source and ref.buffer in self.panels:
            widened = 4 if self.t.decisions.get(f"unpack.{ref.buffer}") else itemsize
            return Access(f"{ref.buffer} panel", index, dims, widened, None, write)
        return Access(ref.buffer, index, dims, itemsize, unit, write, around, source)

    def _own(self, ref: ir.Ref, write: bool) -> Access:
        """A tile's own scratch: each tile of the parallel axes finds the one before's, so that they do not move it."""
        alloc, t = self.program.scratch[ref.buffer], self.t
        rows = [t.points.get(d, 0) for d in alloc.dims if isinstance(d, str)]
        dims = tuple(n or t.facts.sizes.get(str(d), 1) for n, d in zip(rows, alloc.dims, strict=True))
        index = tuple(None if n else str(i) for n, i in zip(rows, ref.index, strict=True))
        return Access(ref.buffer, index, dims, alloc.dtype.bytes * math.prod(n or 1 for n in rows), None, write)

    def _gathered(self, index: str | int) -> str | None:
        """The axis along which an index by value moves: a gather of single positions."""
        let = self.program.values.get(index) if isinstance(index, str) else None
        return let.type.axes[0] if let is not None and let.type.axes else None

    def _waiting(self, nest: structure.Nest) -> tuple[Access, ...]:
        """The unfinished tiles of a block, kept between slabs."""
        assert nest.main is not None
        return self._carried(nest.main)

    def _carried(self, loop: ir.Loop) -> tuple[Access, ...]:
        """What a loop carries, as it lies in memory."""
        names = dict.fromkeys(s.name for s in ir.walk(loop.body) if isinstance(s, ir.Assign))
        found = []
        for name in names:
            type_ = self.program.values[name].type
            dims = tuple(self.t.number(f"block.{a}", self.t.points[a]) for a in type_.axes)
            found.append(Access(f"part of {name}", type_.axes, dims, type_.dtype.bytes, None, write=True))
        return tuple(found)

    # ---------------------------------------------------------------------------------------- copies
    def _copy_loop(self, tensor: str) -> Loop:
        """The loop that fills a panel."""
        load = self.program.loads[tensor][0]
        assert isinstance(load.expr, ir.Load)
        lane, depth = self.program.operands[tensor]
        layout, itemsize = self.panels[tensor], load.type.dtype.bytes
        levels = []
        for i in load.expr.ref.index:
            if isinstance(i, str) and i in self.program.axes:
                each = self.program.axes[i].each
                if each and tensor in self.local:
                    continue
                step = copied_depth(layout, itemsize) if i == depth else self.t.points[lane]
                levels.append(Level(i, 1 if each else step))
        source = self._access(load.expr.ref, source=True)
        panel = self._access(load.expr.ref, write=True)
        copy = Copy(tensor, layout, lane, depth, bool(self.t.decisions.get(f"unpack.{tensor}")))
        return Loop(tuple(levels), (Work((), (source, panel), copy),))
