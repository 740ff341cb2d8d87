"""Scheduled program -> LLVM IR text for x86 (and any machine LLVM knows).

One walk over the program, no knowledge of operators. Each top-level loop is a phase: a function
`void(args, thread, threads)` over its share of the tiles; `tw_run(args)` runs the phases in order,
on a pool where the call asks for several threads.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from tilewright.emit import abi, llvm_amx
from tilewright.emit import llvm_builder as ll
from tilewright.emit.accumulate import Accumulation, dot_operands, find_accumulations, fused_dots
from tilewright.emit.llvm_compute import (
    combine,
    emit_elementwise,
    emit_reduce,
    fold_lanes,
    identity,
    literal,
)
from tilewright.emit.llvm_dot import emit_dot
from tilewright.emit.llvm_loops import Carry, Span, branch, counted, tiled
from tilewright.emit.llvm_memory import Panel, Place, load, prefetch, store
from tilewright.emit.llvm_pack import copy_panel
from tilewright.emit.llvm_values import (
    AxisState,
    Context,
    Key,
    Tile,
    read,
    scalar_type,
    splat,
    spread_scalar,
    table,
    uniform,
)
from tilewright.language import ir
from tilewright.language.dtypes import i64


@dataclass(frozen=True)
class Module:
    """Emitted text, and the workspace it wants."""

    text: str
    workspace: tuple[abi.Reserve, ...]


@dataclass(frozen=True)
class VectorUnit:
    """What the emitter must know of the machine's vector unit."""

    bytes: int
    features: frozenset[str]


def emit(
    kernel: ir.Kernel, layouts: Mapping[str, abi.TensorLayout], sizes: Mapping[str, int], unit: VectorUnit
) -> Module:
    """LLVM IR for a scheduled program with these layouts; dims in `sizes` are fixed, all others symbolic."""
    return _ModuleEmitter(kernel, dict(layouts), dict(sizes), unit).module()


class _ModuleEmitter:
    def __init__(
        self, kernel: ir.Kernel, layouts: dict[str, abi.TensorLayout], sizes: dict[str, int], unit: VectorUnit
    ) -> None:
        self.kernel, self.layouts, self.sizes, self.unit = kernel, layouts, sizes, unit
        self.declarations: set[str] = set()
        self.reserves = self._reserves()

    def module(self) -> Module:
        phases = [s for s in self.kernel.body if isinstance(s, ir.Loop)]
        functions = [self._phase(n, loop) for n, loop in enumerate(phases)]
        text = "\n\n".join(
            [
                f"; {self.kernel.name}",
                *sorted(self.declarations),
                *functions,
                _entry(len(phases)),
                "!0 = !{i32 1}\n!1 = !{}",
            ]
        )
        return Module(text + "\n", tuple(self.reserves))

    def _phase(self, number: int, loop: ir.Loop) -> str:
        builder = ll.Builder(self.declarations)
        function = _Function(self, builder)
        function.prologue()
        for stmt in self.kernel.body:
            if isinstance(stmt, ir.Let):
                function.statement(stmt)
        tiles = _uses_amx(loop)
        if tiles:
            llvm_amx.configure(builder)
        function.phase(loop)
        if tiles:
            llvm_amx.release(builder)
        builder.do("ret void")
        head = f"define internal void @phase{number}(ptr noalias %args, i64 %thread, i64 %threads) {{\nentry:"
        return f"{head}\n{builder.text()}\n}}"

    # ------------------------------------------------------------------------------------- workspace
    def _reserves(self) -> list[abi.Reserve]:
        reserves = []
        for stmt, per_thread, axes in _allocations(self.kernel.body, False, {}):
            panel = self.panel(stmt)
            extents = []
            for n, dim in enumerate(stmt.dims):
                round_to = self._rounding(stmt, panel, n)
                if isinstance(dim, str) and dim in axes:
                    step = axes[dim].step
                    assert step is not None
                    extents.append(abi.Extent(step, round_to))
                else:
                    extents.append(abi.Extent(self.sizes.get(dim, dim) if isinstance(dim, str) else dim, round_to))
            reserves.append(abi.Reserve(stmt.name, stmt.dtype.bytes, tuple(extents), per_thread))
        return reserves

    def panel(self, alloc: ir.Alloc) -> Panel | None:
        """The packed order of a buffer: blocks as wide as the lanes of the copy that fills it."""
        layout = ir.note(alloc.notes, "layout", "row")
        if layout == "row":
            return None
        axes, copy = self._filling(alloc.name)
        lane = ir.note(copy.notes, "lanes")
        dim = copy.dst.index.index(lane)
        depth = next(n for n, i in enumerate(copy.dst.index) if n != dim and isinstance(i, str) and not axes[i].each)
        step = self._panel_width(axes, str(lane))
        return Panel(dim, depth, step, {"panel": 1, "pair": 2, "quad": 4, "tile": 32}[str(layout)])

    def _rounding(self, alloc: ir.Alloc, panel: Panel | None, dim: int) -> int:
        if panel is None or dim not in (panel.dim, panel.depth):
            return 1
        axes, copy = self._filling(alloc.name)
        return self._panel_width(axes, str(copy.dst.index[dim]))

    @staticmethod
    def _panel_width(axes: dict[str, ir.Axis], name: str) -> int:
        """Step of the outermost loop over an axis: a panel may be filled in several parts."""
        while axes[name].over in axes:
            name = axes[name].over
        step = axes[name].step
        assert step is not None
        return step

    def _filling(self, name: str) -> tuple[dict[str, ir.Axis], ir.Copy]:
        found = _find_copy(self.kernel.body, name, {})
        assert found is not None, f"nothing fills {name}"
        return found


def _allocations(
    body: tuple[ir.Stmt, ...], inside: bool, axes: dict[str, ir.Axis]
) -> list[tuple[ir.Alloc, bool, dict[str, ir.Axis]]]:
    found = []
    for stmt in body:
        if isinstance(stmt, ir.Alloc):
            found.append((stmt, inside, axes))
        elif isinstance(stmt, ir.Loop):
            found += _allocations(stmt.body, True, {**axes, **{a.name: a for a in stmt.axes}})
        else:
            found += _allocations(ir.blocks(stmt), inside, axes)
    return found


def _find_copy(
    body: tuple[ir.Stmt, ...], name: str, axes: dict[str, ir.Axis]
) -> tuple[dict[str, ir.Axis], ir.Copy] | None:
    for stmt in body:
        if isinstance(stmt, ir.Copy) and stmt.dst.buffer == name:
            return axes, stmt
        within = {**axes, **{a.name: a for a in stmt.axes}} if isinstance(stmt, ir.Loop) else axes
        found = _find_copy(ir.blocks(stmt), name, within)
        if found:
            return found
    return None


def _entry(phases: int) -> str:
    """`tw_run(args)`: phases in order; with one thread without any synchronisation."""
    calls = "\n".join(f"  call void @phase{n}(ptr %args, i64 0, i64 1)" for n in range(phases))
    table_ = ", ".join(f"ptr @phase{n}" for n in range(phases))
    return f"""@phases = internal constant [{phases} x ptr] [{table_}]

define void @tw_run(ptr %args) {{
entry:
  %threads_at = getelementptr i64, ptr %args, i64 {abi.THREADS}
  %threads = load i64, ptr %threads_at
  %alone = icmp sle i64 %threads, 1
  br i1 %alone, label %serial, label %team
serial:
{calls}
  ret void
team:
  %entry_at = getelementptr i64, ptr %args, i64 {abi.ENTRY}
  %entry_fn = load ptr, ptr %entry_at
  %pool = load ptr, ptr %args
  call void %entry_fn(ptr %pool, ptr @phases, i64 {phases}, ptr %args)
  ret void
}}"""


class _Function:
    """Emits one phase."""

    def __init__(self, module: _ModuleEmitter, builder: ll.Builder) -> None:
        self.m, self.b = module, builder
        lanes = ir.note(module.kernel.notes, "lanes", ())
        names = tuple(str(a) for a in lanes) if isinstance(lanes, tuple) else (str(lanes),)
        self.cx = Context(builder, names, module.unit.bytes, module.unit.features)
        self.places: dict[str, Place] = {}
        self._dealt: tuple[str, ...] = ()  # axes of the parallel loop that is dealt to threads
        self._accumulation_stack: list[dict[str, Accumulation]] = []
        self._dot_operands = dot_operands(module.kernel.body)
        self.spans: dict[str, tuple[Span, int]] = {}
        self.dims: dict[str, str] = {}

    # -------------------------------------------------------------------------------------- prologue
    def _word(self, index: int, ty: str) -> str:
        at = self.b.emit(f"getelementptr i64, ptr %args, i64 {index}")
        return self.b.emit(f"load {ty}, ptr {at}, !invariant.load !1")

    def prologue(self) -> None:
        kernel = self.m.kernel
        for dim in kernel.dims:
            fixed = self.m.sizes.get(dim)
            self.dims[dim] = str(fixed) if fixed is not None else self._word(abi.dim_word(kernel, dim), "i64")
            self._whole_axis(dim)
        for p in kernel.params:
            if p.dims is None:
                scalar = self._word(abi.scalar_word(kernel, p.name), scalar_type(p.dtype))
                self.cx.values[p.name] = uniform(ir.TileType(p.dtype), scalar)
            else:
                self.places[p.name] = self._tensor(p)
        self._workspace()

    def _whole_axis(self, dim: str) -> None:
        """A dim of fixed size is an axis by itself: the whole of it."""
        fixed = self.m.sizes.get(dim)
        if fixed is not None:
            self.cx.axes[dim] = AxisState(dim, "0", fixed, self._width(fixed))

    def _tensor(self, p: ir.Param) -> Place:
        kernel, layout = self.m.kernel, self.m.layouts[p.name]
        word = abi.tensor_word(kernel, p.name)
        pointer = self._word(word, "ptr")
        strides = tuple(
            str(s) if s is not None else self._word(word + 1 + d, "i64") for d, s in enumerate(layout.strides)
        )
        return Place(p.name, pointer, p.dtype, strides, layout.align)

    def _workspace(self) -> None:
        if not self.m.reserves:
            return
        base, offset = self._word(abi.WORKSPACE, "ptr"), "0"
        allocs = {a.name: (a, axes) for a, _, axes in _allocations(self.m.kernel.body, False, {})}
        for reserve in self.m.reserves:
            alloc, axes = allocs[reserve.name]
            size = self._reserve_bytes(reserve)
            here = offset
            if reserve.per_thread:
                here = ll.add(self.b, offset, ll.mul(self.b, size, "%thread"))
                size = ll.mul(self.b, size, "%threads")
            pointer = self.b.hoist(f"getelementptr i8, ptr {base}, i64 {here}", base, here)
            self.places[alloc.name] = self._buffer(alloc, reserve, pointer, axes)
            offset = ll.add(self.b, offset, size)

    def _extent(self, e: abi.Extent) -> str:
        size = self.dims[e.dim] if isinstance(e.dim, str) else str(e.dim)
        if e.round_to == 1:
            return size
        return ll.mul(self.b, ll.ceil_div(self.b, size, str(e.round_to)), str(e.round_to))

    def _reserve_bytes(self, reserve: abi.Reserve) -> str:
        total = str(reserve.itemsize)
        for e in reserve.extents:
            total = ll.mul(self.b, total, self._extent(e))
        return ll.mul(self.b, ll.ceil_div(self.b, total, "64"), "64")

    def _buffer(self, alloc: ir.Alloc, reserve: abi.Reserve, pointer: str, axes: dict[str, ir.Axis]) -> Place:
        extents = [self._extent(e) for e in reserve.extents]
        panel = self.m.panel(alloc)
        strides = ["1"] * len(extents)
        order = list(range(len(extents)))
        running = "1"
        if panel is not None:  # block and depth are innermost; the block dimension steps from block to block
            order = [d for d in order if d not in (panel.dim, panel.depth)]
            running = ll.mul(self.b, extents[panel.depth], str(panel.block))
            strides[panel.dim] = running
            running = ll.mul(self.b, extents[panel.dim], extents[panel.depth])
        for d in reversed(order):
            strides[d] = running
            running = ll.mul(self.b, running, extents[d])
        origin = tuple(d if isinstance(d, str) and d in axes else None for d in alloc.dims)
        return Place(alloc.name, pointer, alloc.dtype, tuple(strides), 64, panel, origin, padded=panel is not None)

    # ---------------------------------------------------------------------------------------- phases
    def phase(self, loop: ir.Loop) -> None:
        """This thread's share of a top-level loop; a serial loop is the first thread's."""
        if loop.parallel:
            self._share(loop)
            return
        first = self.b.emit("icmp eq i64 %thread, 0")
        branch(self.cx, first, lambda: self.loop(loop), Carry(self.cx, []))

    def _share(self, loop: ir.Loop) -> None:
        """Tiles are numbered with the last axis fastest and dealt out in equal runs."""
        b = self.b
        spans = [self._span(a) for a in loop.axes]
        steps = [1 if a.each else self._step(a, s) for a, s in zip(loop.axes, spans, strict=True)]
        self._dealt = tuple(a.name for a in loop.axes)
        counts = [ll.ceil_div(b, ll.sub(b, s.high, s.low), str(step)) for s, step in zip(spans, steps, strict=True)]
        total = "1"
        for c in counts:
            total = ll.mul(b, total, c)
        low = self._cut(total, "%thread")
        high = self._cut(total, ll.add(b, "%thread", "1"))

        def tile(number: str) -> None:
            self._tile(loop, spans, steps, counts, number)

        counted(self.cx, low, high, 1, tile, Carry(self.cx, []))

    def _cut(self, total: str, part: str) -> str:
        product = ll.mul(self.b, total, part)
        return self.b.hoist(f"udiv i64 {product}, %threads", product)

    def _tile(self, loop: ir.Loop, spans: list[Span], steps: list[int], counts: list[str], number: str) -> None:
        b = self.b
        ragged: list[str] = []
        bases: list[str] = []
        rest = number
        for count in reversed(counts[1:]):
            bases.append(b.emit(f"urem i64 {rest}, {count}") if count != "1" else "0")
            rest = b.emit(f"udiv i64 {rest}, {count}") if count != "1" else rest
        bases.append(rest)
        bases.reverse()
        starts = [ll.add(b, s.low, ll.mul(b, n, str(step))) for s, n, step in zip(spans, bases, steps, strict=True)]
        leaf = self._leaf_axes(loop.body)
        for axis, span, step, start in zip(loop.axes, spans, steps, starts, strict=True):
            if axis.each or axis.name not in leaf or _divides(span, step):
                continue
            beyond = ll.sub(b, span.high, str(step))
            ragged.append(b.emit(f"icmp sgt i64 {start}, {beyond}"))

        def body(full: bool) -> None:
            for axis, span, step, start in zip(loop.axes, spans, steps, starts, strict=True):
                whole = full if axis.name in leaf else False
                self._enter_axis(axis, span, step, start, whole)
            self.block(loop.body)

        if not ragged or _amortises_masks(loop.body):
            body(not ragged)
            return
        any_ragged = ragged[0]
        for r in ragged[1:]:
            any_ragged = b.emit(f"or i1 {any_ragged}, {r}")
        branch(self.cx, any_ragged, lambda: body(False), Carry(self.cx, []), lambda: body(True))

    # ------------------------------------------------------------------------------------------ axes
    def _width(self, extent: int) -> int:
        """Lanes for an axis of that many points: a power of two, at most a register of f32."""
        width = self.cx.vector_bytes // 4
        while width // 2 >= max(1, extent):
            width //= 2
        return width

    def _span(self, axis: ir.Axis) -> Span:
        parent = self.cx.axes.get(axis.over)
        if axis.over in self.spans and parent is not None and axis.over not in self.dims:
            low = parent.base
            high = ll.add(self.b, low, parent.count or str(parent.extent))
        else:
            low, high = "0", self.dims[axis.over]
        if axis.start is not None:
            low = ll.maximum(self.b, low, self._integer(axis.start))
        if axis.stop is not None:
            high = ll.minimum(self.b, high, self._integer(axis.stop))
        return Span(low, high)

    def _integer(self, atom: str | int) -> str:
        if isinstance(atom, int):
            return str(atom)
        tile = self.cx.values.get(atom)
        if tile is None:
            return self.dims[atom]
        value = read(self.cx, tile, {}, None)
        return self.b.hoist(f"sext i32 {value} to i64", value) if tile.dtype.name == "i32" else value

    def _step(self, axis: ir.Axis, span: Span) -> int:
        if axis.each:
            return 1
        assert axis.step is not None, f"axis {axis.name} has no step: the program is not scheduled"
        return max(1, min(axis.step, span.length)) if span.length is not None else axis.step

    def _enter_axis(self, axis: ir.Axis, span: Span, step: int, start: str, full: bool) -> None:
        count = None
        if not full and not axis.each and not _divides(span, step):
            count = ll.minimum(self.b, str(step), ll.sub(self.b, span.high, start))
        self._set_axis(axis, span, step, start, count)

    def _set_axis(
        self, axis: ir.Axis, span: Span, step: int, start: str, count: str | None, extent: int | None = None
    ) -> None:
        self.spans[axis.name] = (span, step)
        extent = step if extent is None else extent
        self.cx.axes[axis.name] = AxisState(axis.name, start, extent, self._width(step), count, axis.each)
        if axis.each:
            self.cx.values[axis.name] = uniform(ir.TileType(i64), start)

    def _leaf_axes(self, body: tuple[ir.Stmt, ...]) -> set[str]:
        """Axes that values lie along, as opposed to mere ranges of other axes."""
        found: set[str] = set()
        for stmt in ir.walk(body):
            if isinstance(stmt, ir.Let):
                found.update(stmt.type.axes)
            elif isinstance(stmt, ir.Copy):
                found.update(i for i in stmt.dst.index if isinstance(i, str))
        return found

    # ------------------------------------------------------------------------------------- statements
    def block(self, body: tuple[ir.Stmt, ...]) -> None:
        """Emit statements; a dot whose only use is an addition becomes part of it."""
        fused = fused_dots(body)
        totals = {a.total: name for name, a in self._accumulations.items()}
        for stmt in body:
            if isinstance(stmt, ir.Let) and stmt.name in fused.delayed:
                continue
            reduced = self.cx.values.get(totals.get(stmt.name, "")) if isinstance(stmt, ir.Let) else None
            if isinstance(stmt, ir.Let) and reduced is not None and reduced.spread:
                self.cx.values[stmt.name] = reduced  # the reduction was added to its target lane by lane
                continue
            if isinstance(stmt, ir.Let) and stmt.name in fused.additions:
                dot, addend = fused.additions[stmt.name]
                self._accumulating_dot(stmt, dot, addend)
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
            case _:  # Alloc: reserved at entry; Sync: phases are in order
                pass

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
                self._prefetch(let, node, tile)
                return self._loaded(tile, let)
            case ir.Map(op, args):
                return emit_elementwise(cx, op, [self._operand(a) for a in args], type_)
            case ir.Reduce(op, arg, axis):
                return self._reduce(let, op, cx.values[arg], axis)
            case ir.Dot(a, b, axis):
                return emit_dot(cx, cx.values[a], cx.values[b], axis, type_, None, _atom(let))
            case ir.Permute(arg):
                return self._permuted(cx.values[arg], type_)
        raise AssertionError(let)

    def _operand(self, name: str) -> Tile:
        if name in self.cx.values:
            return self.cx.values[name]
        return uniform(ir.TileType(i64), self.dims[name])

    def _loaded(self, tile: Tile, let: ir.Let) -> Tile:
        """Loads that only a dot reads are left until it reads them; all others happen here."""
        if let.name in self._dot_operands:
            return tile
        parts = {key: tile.part(key) for key in self.cx.keys(tile.axes, tile.lane)}
        return table(tile.type, tile.lane, parts)

    def _prefetch(self, let: ir.Let, node: ir.Load, tile: Tile) -> None:
        """Ask for the same elements some iterations of the parallel loop ahead; beyond the end it is harmless."""
        ahead = ir.note(let.notes, "prefetch")
        dim = next((d for d, i in enumerate(node.ref.index) if i in self._dealt), None)
        if not isinstance(ahead, int) or dim is None:
            return
        place = self.places[node.ref.buffer]
        step = ahead * self.cx.axes[str(node.ref.index[dim])].extent * place.dtype.bytes
        distance = ll.mul(self.b, place.strides[dim], str(step))
        prefetch(self.cx, place, node, tile, distance)

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
                parts[(n,)] = ll.add(cx.b, state.base, str(n))
                continue
            width = state.width
            start = spread_scalar(cx, i64, width, state.base)
            positions = ", ".join(f"i32 {n * width + k}" for k in range(width))
            parts[(n,)] = cx.b.hoist(f"add <{width} x i32> {start}, <{positions}>", start)
        return table(type_, lane, parts)

    def _permuted(self, tile: Tile, type_: ir.TileType) -> Tile:
        back = [type_.axes.index(a) for a in tile.axes]
        return replace(tile, type=type_, part=lambda key: tile.part(tuple(key[n] for n in back)))

    def _store(self, stmt: ir.Store) -> None:
        place, value = self.places[stmt.ref.buffer], self.cx.values[stmt.value]
        local = any(o is not None for o in place.origin)
        if value.dtype != place.dtype:
            value = emit_elementwise(self.cx, "cast", [value], ir.TileType(place.dtype, value.axes))
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

    def _accumulating_dot(self, add: ir.Let, dot: ir.Let, addend: str) -> None:
        expr = dot.expr
        assert isinstance(expr, ir.Dot)
        cx = self.cx
        into = cx.values[addend]
        if into.spread == llvm_amx.IN_REGISTERS:
            llvm_amx.accumulate(cx, cx.values[expr.a], cx.values[expr.b], expr.axis, into.type)
            cx.values[add.name] = into
            return
        result = emit_dot(
            cx, cx.values[expr.a], cx.values[expr.b], expr.axis, dot.type, self._aligned(into, dot.type), _atom(dot)
        )
        if not into.spread and result.spread == 0 and cx.lane_of((expr.axis, *dot.type.axes)) == expr.axis:
            cx.values[dot.name] = result  # an inner product folded at once: add it up
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
        for name, a in accumulations.items():
            spread = self._in_tiles(loop, name, a) or self._spread_of(loop, a)
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

    def _in_tiles(self, loop: ir.Loop, name: str, a: Accumulation) -> Tile | None:
        """Zero accumulators in tile registers, where AMX does the dot."""
        dot = next((s for s in loop.body if isinstance(s, ir.Let) and s.name == name), None)
        if dot is None or _atom(dot) != "amx_bf16":
            return None
        return llvm_amx.begin(self.cx, self.cx.values[a.target].type)

    def _spread_of(self, loop: ir.Loop, a: Accumulation) -> Tile | None:
        """Neutral partial results, where the reduction runs along the lanes of a loop axis."""
        axis = next((x for x in loop.axes if x.name == a.axis), None)
        if axis is None:
            return None
        span = self._span(axis)
        width = self._width(self._step(axis, span))
        along = self._provisional_lane(axis, (a.axis, *a.rest))
        if along != a.axis or width == 1:
            return None
        tile = self.cx.values[a.target]
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
            folded = llvm_amx.finish(cx, partial.type)
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
        span = self._span(axis)
        step = self._step(axis, span)
        unroll = ir.note(loop.notes, "unroll", 1) if depth == len(loop.axes) - 1 else 1
        assert isinstance(unroll, int)
        carry = Carry(self.cx, self._assigned(loop))

        def full(start: str) -> None:
            self._set_axis(axis, span, step, start, None)
            self._axis(loop, depth + 1)

        def ragged(start: str) -> None:
            self._enter_axis(axis, span, step, start, False)
            self._axis(loop, depth + 1)

        def rest(start: str, count: str) -> None:
            # A single point would have no lanes, but sums may be spread over those of whole tiles.
            if count.isdigit() and (int(count) > 1 or axis.name not in self.cx.lanes):
                self._set_axis(axis, span, step, start, None, int(count))
            else:
                self._set_axis(axis, span, step, start, count)
            self._axis(loop, depth + 1)

        masked = loop.parallel and _amortises_masks(loop.body) and not _divides(span, step)
        if axis.each or (axis.name in self._leaf_axes(loop.body) and not masked):
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


def _uses_amx(loop: ir.Loop) -> bool:
    return any(isinstance(s, ir.Let) and _atom(s) == "amx_bf16" for s in ir.walk(loop.body))


def _amortises_masks(body: tuple[ir.Stmt, ...]) -> bool:
    """Whether one masked version of a tile serves: its edges cost nothing beside its inner loop, or it is a copy."""
    return any(isinstance(s, ir.Copy) or (isinstance(s, ir.Loop) and not s.parallel) for s in ir.walk(body))


def _atom(dot: ir.Let) -> str:
    return str(ir.note(dot.notes, "atom", "fma"))


def _divides(span: Span, step: int) -> bool:
    return span.length is not None and span.length % step == 0


__all__ = ["Module", "VectorUnit", "emit"]
