"""Loops that are dealt to blocks and to warps: each takes its part, and behind a barrier the parts' states are joined.

A warp is a team of its own: axes are dealt to its 32 lanes otherwise than to the threads of the block that join what
warps leave in shared memory. What blocks leave in memory is joined by the last of those that share a tile.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

from tilewright.emit.abi import Extent, Reserve, TensorLayout
from tilewright.emit.cuda_abi import Scratch
from tilewright.emit.cuda_ahead import Ahead, ring_of, steps_of
from tilewright.emit.cuda_held import Held, held_of
from tilewright.emit.cuda_layouts import Layouts
from tilewright.emit.cuda_maps import ctype
from tilewright.emit.cuda_places import Place
from tilewright.emit.cuda_scope import Range
from tilewright.emit.cuda_text import cname
from tilewright.emit.cuda_values import Values
from tilewright.emit.cuda_warp import WarpDots, warp_dots
from tilewright.language import ir

TICKETS = "tickets"


@dataclass(frozen=True)
class Halves:
    """The statements of such a loop before its barrier, and behind it."""

    part: tuple[ir.Stmt, ...]
    loads: tuple[ir.Let, ...]
    join: tuple[ir.Stmt, ...]


def halves(loop: ir.Loop) -> Halves:
    """A loop's body cut at its barrier; buffers are no statements of either half."""
    at = next(n for n, s in enumerate(loop.body) if isinstance(s, ir.Sync))
    part = tuple(s for s in loop.body[:at] if not isinstance(s, ir.Alloc))
    loads = tuple(s for s in loop.body[at + 1 :] if isinstance(s, ir.Let) and isinstance(s.expr, ir.Load))
    return Halves(part, loads, tuple(s for s in loop.body[at + 1 :] if s not in loads))


def dealt(kernel: ir.Kernel, bind: str) -> ir.Loop | None:
    """The loop that is dealt to blocks (`grid`) or to warps (`warp`) and joined behind a barrier.

    A sum of products whose parts the warps add up themselves (`cuda_fragments`) has no barrier, and is none of these.
    """
    loops = (s for s in ir.walk(kernel.body) if isinstance(s, ir.Loop) and ir.note(s.notes, "how") and _joined(s))
    return next((s for s in loops if ir.note(s.notes, "bind") == bind), None)


def _joined(loop: ir.Loop) -> bool:
    return any(isinstance(s, ir.Sync) for s in loop.body)


def of_block(kernel: ir.Kernel) -> ir.Kernel:
    """The program without what each warp does alone."""
    loop = dealt(kernel, "warp")
    return kernel if loop is None else replace(kernel, body=_replaced(kernel.body, loop, halves(loop).join))


def of_warp(kernel: ir.Kernel) -> ir.Kernel:
    """What each warp does alone, in the loops around it."""
    loop = dealt(kernel, "warp")
    assert loop is not None
    inner: ir.Stmt = replace(loop, body=halves(loop).part)
    for outer in reversed(_around(kernel.body, loop)):
        inner = replace(outer, body=(inner,))
    return replace(kernel, body=(inner,))


def _replaced(body: tuple[ir.Stmt, ...], loop: ir.Loop, new: tuple[ir.Stmt, ...]) -> tuple[ir.Stmt, ...]:
    def change(stmt: ir.Stmt) -> ir.Stmt:
        if stmt is loop:
            return replace(loop, body=(*halves(loop).loads, *new))
        return replace(stmt, body=tuple(map(change, stmt.body))) if isinstance(stmt, ir.Loop) else stmt

    return tuple(map(change, body))


def _around(body: tuple[ir.Stmt, ...], loop: ir.Loop) -> list[ir.Loop]:
    for stmt in body:
        if isinstance(stmt, ir.Loop) and any(s is loop for s in ir.walk(stmt.body)):
            return [stmt, *_around(stmt.body, loop)]
    return []


class Parts:
    """Writes such loops of one kernel."""

    def __init__(self, kernel: ir.Kernel, layouts: Layouts, found: WarpDots, sizes: Mapping[str, int]) -> None:
        self.kernel, self.layouts, self.dots, self.sizes = kernel, layouts, found, sizes
        self.axes = {a.name: a for s in ir.walk(kernel.body) if isinstance(s, ir.Loop) for a in s.axes}
        self.threads = ir.number(kernel.notes, "threads", 128)
        self.nest = next(s for s in kernel.body if isinstance(s, ir.Loop))
        blocks, warps = dealt(kernel, "grid"), dealt(kernel, "warp")
        assert blocks is not None and warps is not None
        self.blocks, self.warps = blocks, warps
        self.buffers = {s.name: s for s in ir.walk(kernel.body) if isinstance(s, ir.Alloc)}
        self.ahead: Ahead | Held | None = held_of(tuple(steps_of(halves(warps).part)))
        if self.ahead is None and (ring := ring_of(halves(warps).part, layouts, found)):
            self.ahead = Ahead(ring, self._offsets()[""], self.threads // 32)

    # ------------------------------------------------------------------------------------------ what a launch needs
    @property
    def dimension(self) -> tuple[str, int]:
        """The dimension that blocks share, and how many points of it each takes."""
        axis = self.blocks.axes[0]
        return self._root(axis.name), axis.step or 1

    @property
    def scratch(self) -> tuple[Scratch, ...]:
        """Memory for the states of blocks, and a ticket for each tile of the grid."""
        dim, points = self.dimension
        found = []
        for alloc in self._placed("memory"):
            extents = [Extent(self._root(a.name), a.step or 1) for a in self.nest.axes if a.name in alloc.dims]
            extents += [self._tiles(a) for a in self.nest.axes if a.name not in alloc.dims]
            extents += [Extent(d) for d in alloc.dims if d not in self.axes]
            extents.append(Extent(dim, points, points))
            found.append(Scratch(Reserve(alloc.name, alloc.dtype.bytes, tuple(extents))))
        return (*found, Scratch(Reserve(TICKETS, 4, tuple(map(self._tiles, self.nest.axes))), zeroed=True))

    def _tiles(self, axis: ir.Axis) -> Extent:
        return Extent(self._root(axis.name), axis.step or 1, axis.step or 1)

    @property
    def headers(self) -> tuple[str, ...]:
        """Of the tile library, beside those of every program."""
        found = [*(("warp",) if self.dots.calls else ()), "ask", "cluster"]
        if isinstance(self.ahead, Held):
            found.append("held")
        if isinstance(self.ahead, Ahead):
            found += ["ahead", "mbarrier", *(("boxed",) if self.ahead.ring.boxed else ())]
        return tuple(found)

    @property
    def shared_bytes(self) -> int:
        """Shared memory for the states of warps, and for what they have on its way."""
        return self.ahead.end if isinstance(self.ahead, Ahead) else self._offsets()[""]

    def _offsets(self) -> dict[str, int]:
        at, offsets = 0, {}
        for alloc in self._placed("shared"):
            offsets[alloc.name] = at
            at += -(-self._elements(alloc) * alloc.dtype.bytes * (self.threads // 32) // 16) * 16
        return {**offsets, "": at}

    def _placed(self, place: str) -> list[ir.Alloc]:
        return [s for s in self.buffers.values() if ir.note(s.notes, "place") == place]

    def _extent(self, dim: ir.Dim) -> int:
        if isinstance(dim, int):
            return dim
        return (self.axes[dim].step or 1) if dim in self.axes else self.sizes[dim]

    def _elements(self, alloc: ir.Alloc) -> int:
        return math.prod(self._extent(d) for d in alloc.dims)

    def _root(self, axis: str) -> str:
        while axis in self.axes:
            axis = self.axes[axis].over
        return axis

    # --------------------------------------------------------------------------------------------------------- text
    def number(self, block: str, total: str, values: Values) -> str:
        """Which part of its tile this block takes: neighbours share a tile. C++ of the tile's number."""
        _, points = self.dimension
        values.out.line(f"const unsigned parts = max(1, ({total} + {points - 1}) / {points});")
        values.out.line(f"const tw::Share part_share = tw::share({block}, parts);")
        values.out.line("const int part = part_share.left;")
        return "part_share.times"

    def declare(self, values: Values, words: Mapping[str, int]) -> None:
        """Buffers by name; `words` are the places of their pointers."""
        values.out.line("extern __shared__ __align__(1024) unsigned char shared[];")
        values.out.line("__shared__ unsigned flag;")
        offsets = self._offsets()
        for name, alloc in self.buffers.items():
            type_ = ctype(alloc.dtype)
            at = f"args.words[{words[name]}]" if name in words else f"(shared + {offsets[name]})"
            values.out.line(f"{type_}* const {cname(name)} = ({type_}*){at};")
        values.out.line(f"unsigned* const {TICKETS} = (unsigned*)args.words[{words[TICKETS]}];")

    def ask(self, values: Values) -> None:
        """Numbers that the loop gathers by (a page table) are asked for before it is known how many there are."""
        dim, points = self.dimension
        loop = next(s for s in halves(self.warps).part if isinstance(s, ir.Loop))
        axis, stop = loop.axes[0].name, values.scope[dim].stop
        for let in loop.body:
            if not (isinstance(let, ir.Let) and isinstance(let.expr, ir.Load) and let.type.dtype.kind == "int"):
                continue
            ref, place = let.expr.ref, values.places[let.expr.ref.buffer]
            known = {axis, *values.scope.ranges}
            if axis not in ref.index or not {i for i in ref.index if isinstance(i, str)} <= known:
                continue
            at = [f"part * {points}" if i == axis else values.addresses.point(i) for i in ref.index]
            from_ = " + ".join(f"(tw::i64)({x}) * {stride}" for x, stride in zip(at, place.strides, strict=True))
            values.out.line(f"tw::ask({place.pointer} + {from_}, min({points}, {stop} - part * {points}));")

    def __call__(self, values: Values, loop: ir.Loop) -> None:
        """Write one of the two loops."""
        (self._of_blocks if loop is self.blocks else self._of_warps)(values, loop)

    def _of_blocks(self, values: Values, loop: ir.Loop) -> None:
        out, axis = values.out, loop.axes[0]
        a, points, half = axis.name, axis.step or 1, halves(loop)
        low, high = values.scope.bounds(axis, {n: cname(n) for n in values.types})
        out.line(f"const int {a}_low = {low}, {a}_high = {high};")
        out.line(f"const int {a}_count = max(1, ({a}_high - {a}_low + {points - 1}) / {points});")
        out.line(f"if (part >= {a}_count) return;  // past the end of this tile's range")
        self._enter(values, axis, f"{a}_low + part * {points}", f"{a}_low", f"{a}_high")
        stores = tuple(s for s in half.part if isinstance(s, ir.Store))
        values.emit(tuple(s for s in half.part if s not in stores))
        own = {s.ref.buffer: s.value for s in stores}
        self._join(values, half, f"{a}_join")
        alone = ", ".join(values.name(own[_buffer(let)]) for let in half.loads)
        with out.block(f"if ({a}_count == 1)"):
            out.line(f"{a}_join({alone});")
        with out.block("else"):
            self._placing(values, "(tile * (int)parts + part)", stores)
            values.emit(stores)
            out.line(f"if (!tw::last_to_come({TICKETS} + tile, {a}_count, &flag, 0, {self.threads})) return;")
            out.line("#pragma unroll 8")
            with out.block(f"for (int from = 0; from < {a}_count; ++from)"):
                self._placing(values, "(tile * (int)parts + from)", stores)
                self._take(values, half, f"{a}_join")

    def _of_warps(self, values: Values, loop: ir.Loop) -> None:
        out, axis = values.out, loop.axes[0]
        a, half = axis.name, halves(loop)
        points, each = self._shares(half, axis.step or 1)
        outer = values.scope[axis.over]
        stores = tuple(s for s in half.part if isinstance(s, ir.Store))
        kept = dict(values.scope.ranges)
        with out.block(""):
            out.line("const tw::Team<32> lone{(int)threadIdx.x % 32};")
            out.line("const int warp = threadIdx.x / 32;")
            self._enter(values, axis, f"{outer.start} + warp * {points}", outer.start, outer.stop, each)
            with out.block(f"if ({a}_at < {outer.stop})"):
                own = Values(
                    out, values.scope, self.layouts, dict(values.places), "lone", dict(values.types),
                    matrix=self.dots, space="own", ahead=self.ahead, short=values.short,
                )  # fmt: skip
                for name in self.layouts.of:
                    if name in self.kernel.dims or name in {x.name for x in self.nest.axes}:
                        out.line(own.part(name))
                self._placing(own, "warp", stores)
                own.emit(half.part)
        values.scope.ranges = kept
        self._join(values, half, f"{a}_join")
        out.line("team.sync();")
        out.line("#pragma unroll 2")
        most = f"from < {self.threads // 32} && " if points != axis.step else ""
        with out.block(f"for (int from = 0; {most}from * {points} < {outer.stop} - {outer.start}; ++from)"):
            self._placing(values, "from", stores)
            self._take(values, half, f"{a}_join")

    def _shares(self, half: Halves, points: int) -> tuple[int, int | None]:
        """Where the share of a warp begins behind that of the one before it, and how long it is; None: to the end.

        Warps have shares that lie one after the other, or take steps in turns, which memory likes better: each then
        begins one step behind the one before it, and goes on to the end of the part.
        """
        loop = next(s for s in half.part if isinstance(s, ir.Loop))
        if ir.number(loop.notes, "turns", 1) == 1:
            return points, points
        return (1 if loop.axes[0].each else loop.axes[0].step or 1), None

    def _enter(self, values: Values, axis: ir.Axis, at: str, low: str, high: str, points: int | None = 0) -> None:
        """The part of an axis that is worked on now: it ends before the loop does (or with it: no points)."""
        a, step = axis.name, axis.step or 1
        stop = high if points is None else f"min({a}_at + {step}, {high})"
        values.out.line(f"const int {a}_at = {at}, {a}_stop = {stop};")
        now = values.scope.enter(axis, f"{a}_at", low, high)
        values.scope.ranges[a] = Range(now.start, f"{a}_stop", now.size, now.grain, now.align, False, step, low, high)

    def _placing(self, values: Values, number: str, stores: tuple[ir.Store, ...]) -> None:
        """From now on the buffers of `stores` are those of the part `number`."""
        for store in stores:
            alloc = self.buffers[store.ref.buffer]
            extents = [self._extent(d) for d in alloc.dims]
            strides = [math.prod(extents[n + 1 :]) for n in range(len(extents))]
            origin = tuple(values.scope[d].start if d in self.axes else None for d in alloc.dims)
            whole = extents and extents[-1] * alloc.dtype.bytes % 16 == 0
            values.places[alloc.name] = Place(
                f"({cname(alloc.name)} + (tw::i64){number} * {self._elements(alloc)})", alloc.dtype,
                tuple(map(str, strides)), 16 if whole else alloc.dtype.bytes, origin=origin,
                shared=ir.note(alloc.notes, "place") == "shared",
            )  # fmt: skip

    def _join(self, values: Values, half: Halves, name: str) -> None:
        """A function that takes the states of one part into those at hand."""
        given = ", ".join(f"const {values.tile(let.type)}& {cname(let.name)}" for let in half.loads)
        with values.out.block(f"const auto {name} = [&]({given})"):
            values.types |= {let.name: let.type for let in half.loads}
            values.emit(half.join)
        values.out.line(";")

    def _take(self, values: Values, half: Halves, name: str) -> None:
        """The states of the part at hand, loaded and joined."""
        values.emit(half.loads)
        values.out.line(f"{name}({', '.join(values.name(let.name) for let in half.loads)});")


def _buffer(let: ir.Let) -> str:
    assert isinstance(let.expr, ir.Load)
    return let.expr.ref.buffer


def warp_layouts(
    kernel: ir.Kernel, layouts: Mapping[str, TensorLayout], sizes: Mapping[str, int]
) -> tuple[Layouts, WarpDots]:
    """How axes are dealt to the lanes of a warp that works alone, by the matrix unit's wishes where dots have it."""
    from tilewright.emit.cuda_infer import infer

    alone = of_warp(kernel)
    axes = {a.name: a for s in ir.walk(kernel.body) if isinstance(s, ir.Loop) for a in s.axes}
    points = {n: a.step or 1 for n, a in axes.items()} | {d: sizes[d] for d in kernel.dims if d in sizes}
    found = warp_dots(alone.body, points)
    general = infer(alone, layouts, sizes, 32)
    return Layouts({**general.of, **found.of}), found


__all__ = ["TICKETS", "Parts", "dealt", "of_block", "warp_layouts"]
