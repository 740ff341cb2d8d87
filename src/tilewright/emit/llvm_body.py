"""The statements of a scheduled program as LLVM IR: values, stores, loops, conditions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache

from tilewright.emit import llvm_amx
from tilewright.emit import llvm_builder as ll
from tilewright.emit.llvm_compute import combine, emit_elementwise, emit_reduce, fold_lanes, identity, literal
from tilewright.emit.llvm_dot import Dot, emit_dot, emit_dots
from tilewright.emit.llvm_loops import Carry, Span, branch, counted, tiled
from tilewright.emit.llvm_memory import SECOND_CACHE, Fetch, fetcher, fetching, load, store
from tilewright.emit.llvm_pack import copy_panel
from tilewright.emit.llvm_places import Place
from tilewright.emit.llvm_scope import Scope, divides, leaf_axes
from tilewright.emit.llvm_values import Context, Key, Tile, read, scalar_type, splat, spread_scalar, table, uniform
from tilewright.language import ir
from tilewright.language.accumulate import (
    Accumulation,
    dot_operands,
    find_accumulations,
    fused_dots,
    read_once,
    side_by_side,
    together,
)
from tilewright.language.dtypes import i64


class Body(Scope):
    """Emits statements, one after the other, where the builder stands."""

    def __init__(self, cx: Context, program: tuple[ir.Stmt, ...]) -> None:
        super().__init__(cx)
        self.places: dict[str, Place] = {}
        self.dealt: tuple[str, ...] = ()  # axes of the parallel loop that is dealt to threads
        self._accumulation_stack: list[dict[str, Accumulation]] = []
        self._dot_operands = dot_operands(program)
        self._late: set[str] = set()  # values whose parts are computed where they are read

    # ------------------------------------------------------------------------------------- statements
    def block(self, body: tuple[ir.Stmt, ...]) -> None:
        """Emit statements; a dot whose only use is an addition becomes part of it."""
        body = together(body)
        fused = fused_dots(body)
        groups = side_by_side(body, fused)
        self._late |= read_once(body)
        totals = {a.total: name for name, a in self._accumulations.items()}
        for stmt in body:
            if isinstance(stmt, ir.Let) and stmt.name in fused.delayed:
                continue
            reduced = self.cx.values.get(totals.get(stmt.name, "")) if isinstance(stmt, ir.Let) else None
            if isinstance(stmt, ir.Let) and reduced is not None and reduced.spread:
                self.cx.values[stmt.name] = reduced  # the reduction was added to its target lane by lane
                continue
            if isinstance(stmt, ir.Let) and stmt.name in fused.additions:
                if stmt.name in groups:
                    self._accumulating_dots([(add, *fused.additions[add.name]) for add in groups[stmt.name]])
            else:
                self.statement(stmt)

    def statement(self, stmt: ir.Stmt) -> None:
        match stmt:
            case ir.Let():
                self.cx.values[stmt.name] = self._value(stmt)
            case ir.Assign(name, value):
                self.cx.values[name] = self._retyped(name, self.cx.values[value])
            case ir.Store():
                self._store(stmt)
            case ir.Loop():
                self.loop(stmt)
            case ir.When():
                self._when(stmt)
            case ir.Copy():
                copy_panel(self.cx, self.places[stmt.dst.buffer], self.places[stmt.src.buffer], stmt)
            case ir.Role():
                self.block(stmt.body)
            case ir.Alloc():
                self.allocate(stmt)
            case _:  # Sync: phases are in order
                pass

    def allocate(self, alloc: ir.Alloc) -> None:
        """Nothing: buffers are reserved at entry, but for what a phase says."""

    def _retyped(self, name: str, value: Tile) -> Tile:
        old = self.cx.values[name]
        if value.type.axes == old.type.axes:
            return value
        return self._permuted(value, old.type)

    def _value(self, let: ir.Let) -> Tile:
        cx, type_ = self.cx, let.type
        match let.expr:
            case ir.Full(value):
                return self._full(value, type_)
            case ir.Coord(axis):
                return self._coord(axis, type_)
            case ir.Load(ref) as node:
                place = self.places[ref.buffer]
                tile = load(cx, place, node, type_)
                fetch = self._prefetch(let, node, tile)
                return self._loaded(tile if fetch is None else self._fetched(tile, fetch, let), let)
            case ir.Map(op, args):
                return emit_elementwise(cx, op, [self._operand(a) for a in args], type_, late=let.name in self._late)
            case ir.Reduce(op, arg, axis):
                return self._reduce(let, op, cx.values[arg], axis)
            case ir.Dot(a, b, axis):
                return emit_dot(cx, Dot(cx.values[a], cx.values[b], axis, type_, None, atom_of(let)))
            case ir.Permute(arg):
                return self._permuted(cx.values[arg], type_)
        raise AssertionError(let)

    def _operand(self, name: str) -> Tile:
        if name in self.cx.values:
            return self.cx.values[name]
        return uniform(ir.TileType(i64), self.dims[name])

    def _loaded(self, tile: Tile, let: ir.Let) -> Tile:
        """Loads that only a dot reads, or one value or reduction, are left until then; all others happen here."""
        if let.name in self._dot_operands:
            return tile
        if let.name in self._late:
            return replace(tile, part=cache(tile.part))
        parts = {key: tile.part(key) for key in self.cx.keys(tile.axes, tile.lane)}
        return table(tile.type, tile.lane, parts)

    def _prefetch(self, let: ir.Let, node: ir.Load, tile: Tile) -> Fetch | None:
        """What fetches ahead for a part of a tile, if its load says so; beyond the end it is harmless.

        The same elements some iterations of the parallel loop later, or what comes some tiles of the serial loop later.
        """
        place, cx = self.places[node.ref.buffer], self.cx
        if tiles := ir.number(let.notes, "ahead", 0):
            axis = next(i for d, i in enumerate(node.ref.index) if d in place.unit_dims and isinstance(i, str))
            distance = str(tiles * cx.axes[axis].extent * place.dtype.bytes)
            return fetcher(cx, place, node, tile, distance, SECOND_CACHE)
        ahead = ir.note(let.notes, "prefetch")
        dim = next((d for d, i in enumerate(node.ref.index) if i in self.dealt), None)
        if not isinstance(ahead, int) or dim is None:
            return None
        moved = cx.axes[str(node.ref.index[dim])]
        step = ahead * (moved.extent if moved.apart == 1 else 1) * place.dtype.bytes
        return fetcher(cx, place, node, tile, ll.mul(self.b, place.strides[dim], str(step)))

    def _fetched(self, tile: Tile, fetch: Fetch, let: ir.Let) -> Tile:
        """A tile fetched ahead: all of it here for a dot, which may read it in its own way, else part by part."""
        if let.name not in self._dot_operands:
            return fetching(tile, fetch)
        for key in self.cx.keys(tile.axes, tile.lane):
            fetch(key)
        return tile

    def _full(self, value: ir.Atom, type_: ir.TileType) -> Tile:
        if isinstance(value, str):
            tile = self.cx.values.get(value)
            return uniform(type_, self.dims[value] if tile is None else read(self.cx, tile, {}, None))
        return uniform(type_, literal(value, type_.dtype))

    def _coord(self, axis: str, type_: ir.TileType) -> Tile:
        cx, state = self.cx, self.cx.axes[axis]
        if state.each:
            return uniform(type_, state.base)
        lane = cx.lane_of((axis,))
        parts: dict[Key, str] = {}
        for (n,) in cx.keys((axis,), lane):
            if lane is None:
                parts[(n,)] = ll.add(cx.b, state.base, str(n * state.apart))
                continue
            width = state.width
            start = spread_scalar(cx, i64, width, state.base)
            positions = ", ".join(f"i32 {(n * width + k) * state.apart}" for k in range(width))
            parts[(n,)] = cx.b.hoist(f"add <{width} x i32> {start}, <{positions}>", start)
        return table(type_, lane, parts)

    def _permuted(self, tile: Tile, type_: ir.TileType) -> Tile:
        back = [type_.axes.index(a) for a in tile.axes]
        return replace(tile, type=type_, part=lambda key: tile.part(tuple(key[n] for n in back)))

    def _store(self, stmt: ir.Store) -> None:
        place, value = self.places[stmt.ref.buffer], self.cx.values[stmt.value]
        local = any(o is not None for o in place.origin)
        if value.dtype != place.dtype:
            value = emit_elementwise(self.cx, "cast", [value], ir.TileType(place.dtype, value.axes), late=True)
        store(
            self.cx,
            place,
            stmt.ref,
            value,
            nontemporal=bool(ir.note(stmt.notes, "nontemporal", False)),
            pad=place.padded or local,
        )

    # ------------------------------------------------------------------------- accumulation in lanes
    def _reduce(self, let: ir.Let, op: str, arg: Tile, axis: str) -> Tile:
        target = self._spread_target(let.name)
        return emit_reduce(self.cx, op, arg, axis, let.type, target)

    def _spread_target(self, name: str) -> Tile | None:
        """The spread tile that this reduction is added to, if any."""
        accumulation = self._accumulations.get(name)
        if accumulation is None:
            return None
        tile = self.cx.values[accumulation.target]
        return tile if tile.spread else None

    def _accumulating_dots(self, sums: list[tuple[ir.Let, ir.Let, str]]) -> None:
        """Additions of dots, (addition, dot, other addend) each: the products go straight into the other addends."""
        cx = self.cx
        dots = []
        for add, dot, addend in sums:
            assert isinstance(dot.expr, ir.Dot)
            a, b, into = cx.values[dot.expr.a], cx.values[dot.expr.b], cx.values[addend]
            if into.spread == llvm_amx.IN_REGISTERS:
                llvm_amx.accumulate(cx, a, b, dot.expr.axis, into, atom_of(dot))
                cx.values[add.name] = into
            else:
                dots.append(Dot(a, b, dot.expr.axis, dot.type, self._aligned(into, dot.type), atom_of(dot)))
        for (add, dot, addend), result in zip(sums, emit_dots(cx, dots), strict=True) if dots else ():
            self._added(add, dot, cx.values[addend], result)

    def _added(self, add: ir.Let, dot: ir.Let, into: Tile, result: Tile) -> None:
        """`result` is the sum `add`, unless it is an inner product that is folded already."""
        cx = self.cx
        assert isinstance(dot.expr, ir.Dot)
        if not into.spread and result.spread == 0 and cx.lane_of((dot.expr.axis, *dot.type.axes)) == dot.expr.axis:
            cx.values[dot.name] = result
            cx.values[add.name] = emit_elementwise(cx, "add", [into, result], add.type)
            return
        cx.values[add.name] = self._permuted(result, add.type) if result.axes != add.type.axes else result

    def _aligned(self, tile: Tile, type_: ir.TileType) -> Tile:
        """An addend as the accumulator of a dot: with all its axes, in its order."""
        if tile.axes == type_.axes:
            return tile
        if set(tile.axes) == set(type_.axes):
            return self._permuted(tile, type_)
        return emit_elementwise(self.cx, "add", [tile, uniform(type_, literal(0, type_.dtype))], type_)

    @property
    def _accumulations(self) -> dict[str, Accumulation]:
        return self._accumulation_stack[-1] if self._accumulation_stack else {}

    # ------------------------------------------------------------------------------------------ loops
    def loop(self, loop: ir.Loop) -> None:
        """A loop inside a phase: in order, whether parallel or not."""
        accumulations = {} if loop.parallel else find_accumulations(loop.body)
        held: list[tuple[Accumulation, Tile]] = []
        tiles = self._in_tiles(loop, accumulations)
        for name, a in accumulations.items():
            spread = tiles.get(name) or self._spread_of(loop, a)
            if spread:
                held.append((a, self.cx.values[a.target]))
                self.cx.values[a.target] = spread
        self._accumulation_stack.append(accumulations)
        outer = dict(self.cx.values)
        self._axis(loop, 0)
        self._accumulation_stack.pop()
        inner = self.cx.values
        self.cx.values = {n: inner[n] for n in outer}
        for a, initial in held:
            self._gather(a, initial)

    def _in_tiles(self, loop: ir.Loop, accumulations: dict[str, Accumulation]) -> dict[str, Tile]:
        """Zero accumulators in tile registers, for the dots that AMX does."""
        dots = [
            s.name
            for s in loop.body
            if isinstance(s, ir.Let) and s.name in accumulations and atom_of(s) in llvm_amx.ATOMS
        ]
        types = [self.cx.values[accumulations[name].target].type for name in dots]
        return dict(zip(dots, llvm_amx.begin(self.cx, types), strict=True)) if dots else {}

    def _spread_of(self, loop: ir.Loop, a: Accumulation) -> Tile | None:
        """Neutral partial results, where the reduction runs along the lanes of a loop axis."""
        axis = next((x for x in loop.axes if x.name == a.axis), None)
        if axis is None:
            return None
        span = self.span(axis)
        width = self.width(self.step(axis, span))
        along = self._provisional_lane(axis, (a.axis, *a.rest))
        if along != a.axis or width == 1:
            return None
        tile = self.cx.values[a.target]
        width *= ir.number(loop.notes, "split", 1)
        neutral = splat(self.cx, scalar_type(tile.dtype), width, identity(a.op, tile.dtype))
        return Tile(tile.type, None, lambda _key: neutral, spread=width)

    def _provisional_lane(self, axis: ir.Axis, axes: tuple[str, ...]) -> str | None:
        """The lane axis as it will be inside the loop over `axis`."""
        for name in self.cx.lanes:
            if name not in axes:
                continue
            if name == axis.name or (name in self.cx.axes and self.cx.axes[name].extent > 1):
                return name
        return None

    def _gather(self, a: Accumulation, initial: Tile) -> None:
        """Fold the lanes of a finished accumulation and add what was there before."""
        cx = self.cx
        partial = cx.values[a.target]
        if partial.spread == llvm_amx.IN_REGISTERS:
            folded = llvm_amx.finish(cx, partial)
        else:
            folded = fold_lanes(cx, a.op, partial)
        lane = folded.lane
        parts = {}
        for key in cx.keys(folded.axes, lane):
            point = dict(zip(folded.axes, key, strict=True))
            before = read(cx, initial, point, lane)
            parts[key] = combine(cx, a.op, before, folded.part(key), folded.dtype, cx.width(lane))
        cx.values[a.target] = table(folded.type, lane, parts)

    def _axis(self, loop: ir.Loop, depth: int) -> None:
        if depth == len(loop.axes):
            values = dict(self.cx.values)
            self.block(loop.body)
            inner = self.cx.values
            self.cx.values = {n: inner[n] for n in values}
            return
        axis = loop.axes[depth]
        span = self.span(axis)
        step = self.step(axis, span)
        unroll = ir.note(loop.notes, "unroll", 1) if depth == len(loop.axes) - 1 else 1
        assert isinstance(unroll, int)
        carry = Carry(self.cx, self._assigned(loop))

        def full(start: str) -> None:
            self.set_axis(axis, span, step, start, None)
            self._axis(loop, depth + 1)

        def ragged(start: str) -> None:
            self.enter_axis(axis, span, step, start, False)
            self._axis(loop, depth + 1)

        def rest(start: str, count: str) -> None:
            # A single point would have no lanes, but sums may be spread over those of whole tiles.
            if count.isdigit() and (int(count) > 1 or axis.name not in self.cx.lanes):
                self.set_axis(axis, span, step, start, None, int(count))
            else:
                self.set_axis(axis, span, step, start, count)
            self._axis(loop, depth + 1)

        masked = loop.parallel and amortises_masks(loop.body) and not divides(span, step)
        if axis.each or (axis.name in leaf_axes(loop.body) and not masked):
            tiled(self.cx, span, step, unroll, full, rest, carry)
        else:
            self._ranges(span, step, ragged, carry)

    def _ranges(self, span: Span, step: int, body: Callable[[str], None], carry: Carry) -> None:
        """Blocks of a range: the last may be short, at no cost of code, for inner loops stop by themselves."""
        if span.length is not None and span.length <= step:
            if span.length:
                body(span.low)
            return
        high = ll.add(self.b, span.high, str(step - 1))
        counted(self.cx, span.low, high, step, body, carry)

    def _assigned(self, loop: ir.Loop) -> list[str]:
        names = dict.fromkeys(s.name for s in ir.walk(loop.body) if isinstance(s, ir.Assign))
        return [n for n in names if n in self.cx.values]

    def _when(self, stmt: ir.When) -> None:
        span, step = self.spans[stmt.axis]
        state = self.cx.axes[stmt.axis]
        if "first" in stmt.cond:
            holds = ll.compare(self.b, "eq", state.base, span.low)
        else:
            holds = ll.compare(self.b, "sge", ll.add(self.b, state.base, str(step)), span.high)
        if stmt.cond.startswith("not_"):
            holds = {"true": "false", "false": "true"}.get(holds) or self.b.hoist(f"xor i1 {holds}, true", holds)
        if holds == "false":
            return
        if holds == "true":
            self.block(stmt.body)
            return
        names = dict.fromkeys(s.name for s in ir.walk(stmt.body) if isinstance(s, ir.Assign))
        branch(self.cx, holds, lambda: self.block(stmt.body), Carry(self.cx, [n for n in names if n in self.cx.values]))


def uses_amx(loop: ir.Loop) -> bool:
    """Whether AMX does any dot of a loop."""
    return any(isinstance(s, ir.Let) and atom_of(s) in llvm_amx.ATOMS for s in ir.walk(loop.body))


def amortises_masks(body: tuple[ir.Stmt, ...]) -> bool:
    """Whether one masked version of a tile serves: its edges cost nothing beside its inner loop, or it is a copy."""
    return any(isinstance(s, ir.Copy) or (isinstance(s, ir.Loop) and not s.parallel) for s in ir.walk(body))


def atom_of(dot: ir.Let) -> str:
    """The instruction that does a dot."""
    return str(ir.note(dot.notes, "atom", "fma"))
