"""Scheduled program -> the listing of what one thread executes, to be read by people.

    for n in range(n0, n0_end, 32):
      for k in range(k0, k0_end):
        b0 = load(b_packed, (n, k), vec=16)
        a0 = load(a_packed, (m, k), vec=1)
        acc0 = fma(a0, b0, acc0)

It follows the walk of `llvm.emit`, with the same lanes, register tiles and accumulators, for a whole tile;
what happens at ragged ends is said by `mask=`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from tilewright.emit import abi, listing_dot, listing_values, llvm_amx
from tilewright.emit.listing_compute import coord, elementwise, reduce
from tilewright.emit.listing_dot import Sum
from tilewright.emit.listing_homes import Homes
from tilewright.emit.listing_page import Names, Span, number, range_text, several, shifted
from tilewright.emit.listing_places import described, dims_text, places
from tilewright.emit.listing_values import Scene, read
from tilewright.emit.llvm import VectorUnit
from tilewright.emit.llvm_builder import Builder
from tilewright.emit.llvm_parts import phases_of
from tilewright.emit.llvm_values import AxisState, Context, Key, Tile, table, uniform
from tilewright.language import ir, structure
from tilewright.language.accumulate import (
    Accumulation,
    dot_operands,
    find_accumulations,
    fused_dots,
    side_by_side,
    together,
)
from tilewright.language.dtypes import i64

_LEGEND = (
    "# one thread; a name is a register of up to {lanes} f32; vec: neighbours that one instruction moves",
    "# share: its run of the tiles, last axis fastest; mask: ends that are checked; clamp: past the end, the last row",
)
_NEUTRAL = {"sum": "0.0", "max": "-inf", "min": "inf"}


def listing(
    kernel: ir.Kernel, layouts: Mapping[str, abi.TensorLayout], sizes: Mapping[str, int], unit: VectorUnit
) -> str:
    """The text for a scheduled program; the arguments are those of `llvm.emit`."""
    return _Thread(kernel, layouts, dict(sizes), unit).text()


class _Thread:
    """Writes the listing, statement by statement."""

    def __init__(
        self, kernel: ir.Kernel, layouts: Mapping[str, abi.TensorLayout], sizes: dict[str, int], unit: VectorUnit
    ) -> None:
        self.kernel, self.sizes, self.unit = kernel, sizes, unit
        lanes = tuple(str(a) for a in _names(ir.note(kernel.notes, "lanes", ())))
        self.cx = Context(Builder(set()), lanes, unit.bytes, unit.features)
        taken = {*kernel.dims, *structure.axes(kernel), *(p.name for p in kernel.params)}
        self.scene = Scene(self.cx, names=Names(taken))
        self.page = self.scene.page
        self.homes = Homes(self.scene)
        self.spans: dict[str, Span] = {}
        self._sums: list[dict[str, Accumulation]] = []
        self._late = dot_operands(kernel.body)
        self._define(layouts)

    def text(self) -> str:
        """The whole page."""
        self._header()
        for stmt in self.kernel.body:
            if isinstance(stmt, ir.Loop):
                for n, phase in enumerate(phases_of(stmt)):
                    self.page.line("barrier(team)" if n else "")
                    self._phase(phase)
            else:
                self.statement(stmt, None)
        return self.page.text()

    # ------------------------------------------------------------------------------------ what is known before
    def _define(self, layouts: Mapping[str, abi.TensorLayout]) -> None:
        for dim, size in self.sizes.items():
            self.cx.axes[dim] = AxisState(dim, "0", size, self._width(size))
        for p in self.kernel.params:
            if p.dims is None:
                self.cx.values[p.name] = uniform(ir.TileType(p.dtype), p.name)
        self.scene.places |= places(self.kernel, layouts)

    def _header(self) -> None:
        tensors = ", ".join(f"{p.name} {p.dtype}{dims_text(p.dims)}" for p in self.kernel.params)
        fixed = "".join(f", {d} = {n}" for d, n in self.sizes.items())
        self.page.line(f"# {self.kernel.name}: {tensors}{fixed}")
        for line in _LEGEND:
            self.page.line(line.format(lanes=self.unit.bytes // 4))
        if any(a.apart != 1 for s in self.kernel.body if isinstance(s, ir.Loop) for a in s.axes):
            self.page.line("# runs: tiles of one position out of each of so many runs, which lie so far apart")
        if any(ir.note(s.notes, "dealt") == "turns" for s in self.kernel.body if isinstance(s, ir.Loop)):
            self.page.line("# turns: threads take the tiles one by one in turn, last axis fastest")
        if any(ir.note(s.notes, "drawn") for s in self.kernel.body if isinstance(s, ir.Loop)):
            self.page.line("# drawn: a thread that is free takes the next run of tiles, last axis fastest")
        if any(isinstance(s, ir.Let) and ir.note(s.notes, "prefetch") for s in ir.walk(self.kernel.body)):
            self.page.line("# prefetch: tiles of the share that a load asks ahead for")

    # ------------------------------------------------------------------------------------------------ loops
    def _width(self, extent: int) -> int:
        """Lanes of an axis with that many points (as in `llvm`): a power of two, at most a register of f32."""
        width = self.unit.bytes // 4
        while width // 2 >= max(1, extent):
            width //= 2
        return width

    def _span(self, axis: ir.Axis) -> Span:
        if axis.over in self.spans and axis.over not in self.kernel.dims:
            low, high = self.cx.axes[axis.over].base, f"{axis.over}_end"
        else:
            low, high = "0", str(self.sizes.get(axis.over, axis.over))
        if axis.start is not None:
            low = f"max({low}, {self._scalar(axis.start)})"
        if axis.stop is not None:
            high = f"min({high}, {self._scalar(axis.stop)})"
        return Span(low, high)

    def _scalar(self, atom: str | int) -> str:
        if isinstance(atom, str) and atom in self.cx.values:
            return read(self.scene, self.cx.values[atom], {}, None)
        return str(self.sizes.get(atom, atom)) if isinstance(atom, str) else str(atom)

    def _step(self, axis: ir.Axis, span: Span) -> int:
        if axis.each:
            return 1
        assert axis.step is not None, f"axis {axis.name} has no step: the program is not scheduled"
        return axis.step if span.length is None else max(1, min(axis.step, span.length))

    def _phase(self, loop: ir.Loop) -> None:
        if not loop.parallel:
            with self.page.block("if thread == 0:"):
                self.loop(loop)
            return
        self.scene.dealt = tuple(a.name for a in loop.axes)
        spans = [self._span(a) for a in loop.axes]
        steps = [self._step(a, s) for a, s in zip(loop.axes, spans, strict=True)]
        ranges = ", ".join(range_text(s, n, a.apart) for s, n, a in zip(spans, steps, loop.axes, strict=True))
        in_turns = ir.note(loop.notes, "dealt") == "turns"
        dealt = "drawn" if ir.note(loop.notes, "drawn") else "turns" if in_turns else "share"
        with self.page.block(f"for {', '.join(a.name for a in loop.axes)} in {dealt}({ranges}):"):
            for axis, span, step in zip(loop.axes, spans, steps, strict=True):
                self._enter(loop, axis, span, step, axis.name)
            self.block(loop.body)

    def _enter(self, loop: ir.Loop, axis: ir.Axis, span: Span, step: int, base: str) -> None:
        """The state of an axis in its body; the end of a block is named where inner loops need it."""
        ragged = not axis.each and not span.covers(step * axis.apart)
        masked = ragged and loop.parallel and _amortises_masks(loop.body)
        count = f"{axis.name}_end" if masked else None
        self.spans[axis.name] = span
        self.cx.axes[axis.name] = AxisState(axis.name, base, step, self._width(step), count, axis.each, axis.apart)
        if axis.each:
            self.cx.values[axis.name] = uniform(ir.TileType(i64), base)
        if any(a.over == axis.name for s in ir.walk(loop.body) if isinstance(s, ir.Loop) for a in s.axes):
            end = shifted(base, step)
            self.page.line(f"{axis.name}_end = {f'min({end}, {span.high})' if ragged else end}")

    def loop(self, loop: ir.Loop) -> None:
        """A loop inside a phase; sums that can stay in their registers, spread over lanes, are folded after it."""
        sums = {} if loop.parallel else find_accumulations(loop.body)
        held = []
        for name, a in sums.items():
            initial, home = self.cx.values[a.target], self.homes.of.get(a.target)
            spread = self._in_tiles(loop, name, a) or self._spread(loop, a)
            if spread is not None:
                held.append((a, initial, home))
                self.cx.values[a.target] = self.homes.of[a.target] = spread
        self._sums.append(sums)
        outer = dict(self.cx.values)
        names = self.homes.carry(loop.body)
        self._axis(loop, 0, names)
        self._sums.pop()
        self.cx.values = {n: self.cx.values[n] for n in outer}
        for a, initial, home in held:
            self._gather(a, initial, home)

    def _axis(self, loop: ir.Loop, depth: int, names: list[str]) -> None:
        if depth == len(loop.axes):
            values = dict(self.cx.values)
            self.block(loop.body)
            self.cx.values = {n: self.cx.values[n] for n in values}
            self.homes.settle(names)
            return
        axis = loop.axes[depth]
        span = self._span(axis)
        step = self._step(axis, span)
        if span.length is not None and span.length <= step:
            self._enter(loop, axis, span, step, span.low)
            self._axis(loop, depth + 1, names)
            return
        unroll = ir.note(loop.notes, "unroll", 1) if depth == len(loop.axes) - 1 else 1
        times = f"  # unrolled {unroll} times" if unroll != 1 else ""
        with self.page.block(f"for {axis.name} in {range_text(span, step)}:{times}"):
            self._enter(loop, axis, span, step, axis.name)
            self._axis(loop, depth + 1, names)

    def _when(self, stmt: ir.When) -> None:
        state, span = self.cx.axes[stmt.axis], self.spans[stmt.axis]
        if "first" in stmt.cond:
            holds = f"{state.base} {'>' if stmt.cond.startswith('not') else '=='} {span.low}"
        else:
            holds = f"{shifted(state.base, state.extent)} {'<' if stmt.cond.startswith('not') else '>='} {span.high}"
        names = self.homes.carry(stmt.body)
        with self.page.block(f"if {holds}:"):
            values = dict(self.cx.values)
            self.block(stmt.body)
            self.cx.values = {n: self.cx.values[n] for n in values}
            self.homes.settle(names)

    # ------------------------------------------------------------------------------------- sums over loops
    def _in_tiles(self, loop: ir.Loop, name: str, a: Accumulation) -> Tile | None:
        dot = next((s for s in loop.body if isinstance(s, ir.Let) and s.name == name), None)
        if dot is None or ir.note(dot.notes, "atom") not in llvm_amx.ATOMS:
            return None
        return listing_dot.amx_begin(self.scene, self.cx.values[a.target].type, a.target)

    def _spread(self, loop: ir.Loop, a: Accumulation) -> Tile | None:
        """Partial sums, one a lane, where the reduction runs along the lanes of a loop axis."""
        axis = next((x for x in loop.axes if x.name == a.axis), None)
        if axis is None:
            return None
        width = self._width(self._step(axis, self._span(axis)))
        known = {n for n, state in self.cx.axes.items() if state.extent > 1} | {axis.name}
        along = next((n for n in self.cx.lanes if n in (a.axis, *a.rest) and n in known), None)
        if along != a.axis or width == 1:
            return None
        type_ = self.cx.values[a.target].type
        split = ir.number(loop.notes, "split", 1)
        keys = list(self.cx.keys(type_.axes, None))
        held = {key: [self.scene.names.new(a.target, width) for _ in range(split)] for key in keys}
        self.page.line(f"{several([name for names in held.values() for name in names])} = {_NEUTRAL[a.op]}")
        tile = table(type_, None, {key: names[0] for key, names in held.items()}, spread=width)
        return replace(tile, source=held) if split > 1 else tile

    def _gather(self, a: Accumulation, initial: Tile, home: Tile | None) -> None:
        """Fold the lanes of a finished sum and add what was there before."""
        cx, tile = self.cx, self.cx.values[a.target]

        def before(key: Key) -> str:
            lane = cx.lane_of(tile.axes)
            return read(self.scene, initial, self.scene.point(tile.axes, key), lane)

        with self.page.statement():
            if tile.spread == llvm_amx.IN_REGISTERS:
                folded = listing_dot.amx_finish(self.scene, tile, a.target)
                total = ir.Let(a.target, folded.type, ir.Map("add", ()))
                folded = elementwise(self.scene, total, "add", [initial, folded], folded)
            else:
                scalars = replace(tile, spread=0) if not 2 <= tile.spread <= 4 else None  # elements have names
                folded = listing_dot.fold(self.scene, a.op, tile, a.target, before=before, home=scalars)
        self.cx.values[a.target] = folded
        self.homes.of.pop(a.target, None)
        if home is not None:
            self.homes.of[a.target] = home

    # -------------------------------------------------------------------------------------------- statements
    def block(self, body: tuple[ir.Stmt, ...]) -> None:
        """Statements in order; a dot whose only use is an addition becomes part of it."""
        body = together(body)
        fused = fused_dots(body)
        groups = side_by_side(body, fused)
        totals = {a.total: name for name, a in (self._sums[-1] if self._sums else {}).items()}
        for at, stmt in enumerate(body):
            name = stmt.name if isinstance(stmt, ir.Let) else ""
            reduced = self.cx.values.get(totals.get(name, ""))
            if name in fused.delayed:
                continue
            if reduced is not None and reduced.spread:  # the reduction was added to its target lane by lane
                self.cx.values[name] = reduced
                continue
            if name in groups:
                homes = [self.homes.free(body, body.index(add), add) for add in groups[name]]
                with self.page.statement():
                    self._accumulate([(add, *fused.additions[add.name]) for add in groups[name]], homes)
            elif name not in fused.additions:
                self.statement(stmt, self.homes.free(body, at, stmt) if isinstance(stmt, ir.Let) else None)

    def statement(self, stmt: ir.Stmt, home: Tile | None) -> None:
        """One statement; `home` is where its value is wanted, if that is free."""
        match stmt:
            case ir.Let():
                with self.page.statement():
                    self.cx.values[stmt.name] = self._value(stmt, home)
            case ir.Assign(name, value):
                self.cx.values[name] = _permuted(self.cx.values[value], self.cx.values[name].type)
            case ir.Store():
                with self.page.statement():
                    listing_values.store(self.scene, stmt, self.cx.values[stmt.value])
            case ir.Copy():
                with self.page.statement():
                    listing_values.copy(self.scene, stmt)
            case ir.Loop():
                self.loop(stmt)
            case ir.When():
                self._when(stmt)
            case ir.Role():
                with self.page.block(f"role {stmt.name}:"):
                    self.block(stmt.body)
            case ir.Sync():
                self.page.line(f"{stmt.action}({ir.note(stmt.notes, 'scope', stmt.name)})")
            case ir.Alloc():
                self.page.line(described(stmt, self.scene.places[stmt.name]))

    def _value(self, let: ir.Let, home: Tile | None) -> Tile:
        cx, type_ = self.cx, let.type
        match let.expr:
            case ir.Full(value):
                return uniform(type_, self._scalar(value) if isinstance(value, str) else number(value))
            case ir.Coord(axis):
                return coord(self.scene, axis, type_, let.name)
            case ir.Load():
                late = let.name in self._late
                tile = listing_values.load(self.scene, let, None if late else home)
                if late:  # a dot reads it, part by part
                    return tile
                return table(type_, tile.lane, {key: tile.part(key) for key in cx.keys(type_.axes, tile.lane)})
            case ir.Map(op, args):
                operands = [
                    cx.values[a] if a in cx.values else uniform(ir.TileType(i64), self._scalar(a)) for a in args
                ]
                return elementwise(self.scene, let, op, operands, home)
            case ir.Reduce(_, arg, _):
                return reduce(self.scene, let, cx.values[arg], self._partial(let.name))
            case ir.Dot():
                return listing_dot.dots(self.scene, [Sum(let)])[0]
            case ir.Permute(arg):
                return _permuted(cx.values[arg], type_)

    def _partial(self, reduction: str) -> Tile | None:
        """The sums, spread over lanes, that a reduction is added to."""
        sums = self._sums[-1] if self._sums else {}
        into = self.cx.values[sums[reduction].target] if reduction in sums else None
        return into if into is not None and into.spread else None

    def _accumulate(self, sums: list[tuple[ir.Let, ir.Let, str]], homes: list[Tile | None]) -> None:
        """Additions of dots, (addition, dot, other addend) each: the products go straight into the accumulators."""
        cx, into = self.cx, [self.cx.values[addend] for _, _, addend in sums]
        first = sums[0][1]
        assert isinstance(first.expr, ir.Dot)
        if into[0].spread == llvm_amx.IN_REGISTERS:
            for (add, dot, _), tile in zip(sums, into, strict=True):
                listing_dot.amx_accumulate(self.scene, dot, tile)
                cx.values[add.name] = tile
            return
        into = [t if t.spread or set(t.axes) != set(first.type.axes) else _permuted(t, first.type) for t in into]
        along = cx.lane_of((first.expr.axis, *first.type.axes))
        if not into[0].spread and along == first.expr.axis:  # folded at once, then added
            for (add, dot, _), tile, home in zip(sums, into, homes, strict=True):
                product = listing_dot.dots(self.scene, [Sum(dot)])[0]
                cx.values[add.name] = elementwise(self.scene, add, "add", [tile, product], home)
            return
        named = [replace(dot, name=add.name) for add, dot, _ in sums]
        results = listing_dot.dots(self.scene, [Sum(*one) for one in zip(named, into, homes, strict=True)])
        for (add, _, _), result in zip(sums, results, strict=True):
            cx.values[add.name] = _permuted(result, add.type)


def _permuted(tile: Tile, type_: ir.TileType) -> Tile:
    if tile.axes == type_.axes or set(tile.axes) != set(type_.axes):
        return tile
    back = [type_.axes.index(a) for a in tile.axes]
    return replace(tile, type=type_, part=lambda key: tile.part(tuple(key[n] for n in back)))


def _amortises_masks(body: tuple[ir.Stmt, ...]) -> bool:
    """Whether one masked version of a tile serves whole and short tiles alike (as in `llvm`)."""
    return any(isinstance(s, ir.Copy) or (isinstance(s, ir.Loop) and not s.parallel) for s in ir.walk(body))


def _names(value: ir.Note | None) -> tuple[str | int, ...]:
    return value if isinstance(value, tuple) else (str(value),)


__all__ = ["listing"]
