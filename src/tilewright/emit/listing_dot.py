"""Dots of a thread listing: a line for each instruction that multiplies, in the order of `llvm_dot` and `llvm_amx`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from tilewright.emit import llvm_amx
from tilewright.emit.listing_page import applied
from tilewright.emit.listing_values import Scene, accumulators, place_text, read
from tilewright.emit.llvm_dot import in_portions, in_turns, streaming_order
from tilewright.emit.llvm_values import Key, Tile, table
from tilewright.language import ir


@dataclass(frozen=True)
class Sum:
    """A dot, added to `into` where given; `home` is where the result is wanted, if that is free."""

    let: ir.Let
    into: Tile | None = None
    home: Tile | None = None


def dots(scene: Scene, sums: Sequence[Sum]) -> list[Tile]:
    """The results of dots of the same axes by the same atom, in the order in which they are made.

    Each may stay spread over the lanes of the summed axis.
    """
    first = sums[0].let
    assert isinstance(first.expr, ir.Dot)
    if scene.cx.lane_of((first.expr.axis, *first.type.axes)) == first.expr.axis:
        return [_inner(scene, s.let, s.into) for s in sums]
    return _outer(scene, sums)


def _atom(let: ir.Let) -> str:
    """The instruction that takes two neighbours of the sum at once, or fma."""
    noted = str(ir.note(let.notes, "atom"))
    return noted if noted in ("bf16x2", "vnni") else "fma"


def _fma(atom: str, x: str, y: str, acc: str | None) -> str:
    return applied("mul", [x, y]) if acc is None and atom == "fma" else f"{atom}({x}, {y}, {acc or '0.0'})"


def _outer(scene: Scene, sums: Sequence[Sum]) -> list[Tile]:
    """One operand along the lanes, the other broadcast element by element (or pair by pair)."""
    cx, type_, pairs = scene.cx, sums[0].let.type, _atom(sums[0].let) != "fma"
    lane = cx.lane_of(type_.axes)
    of = [_Outer(scene, s, lane) for s in sums]
    operand = _pairs(scene, lane, of[0].expr.axis) if pairs else _promoted(scene, lane, sums[0].let)
    turns = list(in_turns(cx, *of[0].operands, type_, lane, len(sums)))
    for portion in in_portions(turns) if pairs else [turns]:
        for k in range(0, cx.axes[of[0].expr.axis].extent, 2 if pairs else 1):
            for n, key in portion:
                point = {**scene.point(type_.axes, key), of[n].expr.axis: k}
                of[n].add(key, *(operand(tile, point) for tile in of[n].operands))
    return [table(one.let.type, lane, one.placed) for one in of]


class _Outer:
    """An outer product on its way: the registers of its parts, and what each of them holds."""

    def __init__(self, scene: Scene, sum_: Sum, lane: str | None) -> None:
        self.let, cx = sum_.let, scene.cx
        assert isinstance(sum_.let.expr, ir.Dot)
        self.expr, type_, into = sum_.let.expr, sum_.let.type, sum_.into
        self.operands = cx.values[self.expr.a], cx.values[self.expr.b]
        self.placed: dict[Key, str] = {}
        self._page, self._target = scene.page, scene.parts(type_, lane, sum_.let.name, sum_.home)
        self._parts: dict[Key, str | None] = {
            key: None if into is None else read(scene, into, scene.point(type_.axes, key), lane)
            for key in cx.keys(type_.axes, lane)
        }

    def add(self, key: Key, x: str, y: str) -> None:
        """One product to a part of the result."""
        if key not in self.placed:
            self.placed[key] = self._target(key)
        self._page.line(f"{self.placed[key]} = {_fma(_atom(self.let), x, y, self._parts[key])}")
        self._parts[key] = self.placed[key]


def _inner(scene: Scene, let: ir.Let, into: Tile | None) -> Tile:
    """Both operands along the summed axis: each accumulator holds one partial sum a lane."""
    expr = let.expr
    assert isinstance(expr, ir.Dot)
    cx, type_, axis, atom = scene.cx, let.type, expr.axis, _atom(let)
    a, b, width, pairs = cx.values[expr.a], cx.values[expr.b], cx.width(axis), atom != "fma"
    spread = into is not None and into.spread > 0
    step = 2 * width if pairs else width
    operand = _pairs(scene, axis, axis) if pairs else _promoted(scene, axis, let)
    held = {key: accumulators(into, key) for key in cx.keys(type_.axes, None)} if into is not None and spread else {}
    parts: dict[Key, str] = {key: names[0] for key, names in held.items()}
    keys = streaming_order(cx, a, b, type_, None)
    chunks = range(-(-cx.axes[axis].extent // step))
    # Pairs are visited chunk by chunk, single elements accumulator by accumulator.
    order = [(key, c) for c in chunks for key in keys] if pairs else [(key, c) for key in keys for c in chunks]
    for key, chunk in order:
        point = {**scene.point(type_.axes, key), axis: chunk}
        acc = held[key][chunk % len(held[key])] if key in held else parts.get(key)
        x, y = operand(a, point), operand(b, point)
        target = acc or parts.setdefault(key, scene.names.new(let.name, width))
        scene.page.line(f"{target} = {_fma(atom, x, y, acc)}")
    result = table(type_, None, parts, spread=width)
    return replace(into, type=type_) if into is not None and spread else fold(scene, "sum", result, let.name)


def _promoted(scene: Scene, lane: str | None, let: ir.Let) -> Callable[[Tile, dict[str, int]], str]:
    def operand(tile: Tile, point: dict[str, int]) -> str:
        text = read(scene, tile, point, lane)
        return text if tile.dtype == let.type.dtype else f"{let.type.dtype}({text})"

    return operand


def _pairs(scene: Scene, lane: str | None, axis: str) -> Callable[[Tile, dict[str, int]], str]:
    """Operands of pairs along `axis`, from memory or interleaved: along the lanes, or one pair for all lanes."""
    known = dict[tuple[int, Key], str]()
    assert lane is not None

    def operand(tile: Tile, point: dict[str, int]) -> str:
        ref, key = tile.source, (id(tile), tuple(point[a] for a in tile.axes))
        if not isinstance(ref, ir.Ref) or (lane != axis and lane in tile.axes and not scene.places[ref.buffer].panel):
            return _interleaved(scene, tile, point, lane, axis)
        if key not in known:
            known[key] = _loaded_pairs(scene, tile, ref, point, lane)
        return known[key]

    return operand


def _loaded_pairs(scene: Scene, tile: Tile, ref: ir.Ref, point: dict[str, int], lane: str) -> str:
    cx, wide = scene.cx, lane in tile.axes
    width = cx.width(lane)
    summed = scene.places[ref.buffer].panel is None and wide  # an inner product: neighbours along the sum
    at = {**point, lane: point[lane] * width * (2 if summed else 1)} if wide else point
    name = scene.names.new(ref.buffer.removesuffix("_packed"), 2 * width if wide else 2)
    end = f", mask={lane}" if summed and cx.axes[lane].count is not None else ""
    scene.page.line(f"{name} = load({place_text(scene, ref, at)}, vec={2 * width if wide else 2}{end})")
    return name


def _interleaved(scene: Scene, tile: Tile, point: dict[str, int], lane: str, axis: str) -> str:
    """Two registers side by side along the sum, or element by element in turns."""
    first = 2 * point[axis] if lane == axis else point[axis]
    both = [read(scene, tile, {**point, axis: first + n}, lane) for n in (0, 1)]
    return f"{'join' if lane == axis else 'pairs'}({', '.join(both)})"


# ------------------------------------------------------------------------------------------------ reductions
def fold(
    scene: Scene,
    op: str,
    tile: Tile,
    root: str,
    *,
    before: Callable[[Key], str] | None = None,
    home: Tile | None = None,
) -> Tile:
    """The lanes of every part of a spread tile folded into one element, and joined with what was there before."""
    cx = scene.cx
    lane = cx.lane_of(tile.axes) if tile.spread > 1 else None
    target = scene.parts(tile.type, lane, root, home)
    parts: dict[Key, str] = {}
    for key in cx.keys(tile.axes, lane):
        rows = [_joined(op, tile, key)]
        if lane is not None:
            position, state = tile.axes.index(lane), cx.axes[lane]
            first = key[position] * state.width
            points = range(first, min(first + state.width, state.extent))
            rows = [_joined(op, tile, (*key[:position], p, *key[position + 1 :])) for p in points]
        parts[key] = target(key)
        text = f"{op}_lanes({', '.join(rows)})" if tile.spread > 1 else rows[0]
        if before is not None:
            text = applied({"sum": "add"}.get(op, op), [before(key), text])
        scene.page.line(f"{parts[key]} = {text}")
    return table(tile.type, lane, parts)


def _joined(op: str, tile: Tile, key: Key) -> str:
    """A part of a spread sum; the accumulators that it is split over are joined first."""
    names = accumulators(tile, key)
    return names[0] if len(names) == 1 else applied({"sum": "add"}.get(op, op), names)


# ------------------------------------------------------------------------------------------------ AMX
def amx_begin(scene: Scene, type_: ir.TileType, root: str) -> Tile:
    """Zero accumulators in tile registers of 16 x 16."""
    g = llvm_amx.grid(scene.cx, type_)
    parts: dict[Key, str] = {(r, c): scene.names.new(root, 1) for r in range(g.rows) for c in range(g.columns)}
    for name in parts.values():
        scene.page.line(f"{name} = tile(0.0)")
    return Tile(type_, None, parts.__getitem__, spread=llvm_amx.IN_REGISTERS)


def amx_accumulate(scene: Scene, let: ir.Let, into: Tile) -> None:
    """Rows by columns, as many neighbours of the sum at a time as a tile register holds."""
    expr = let.expr
    assert isinstance(expr, ir.Dot)
    cx, g = scene.cx, into.source if isinstance(into.source, llvm_amx.Grid) else llvm_amx.grid(scene.cx, into.type)
    a, b = cx.values[expr.a], cx.values[expr.b]
    rows, columns = (a, b) if g.lane_axis in b.axes else (b, a)
    atom = str(ir.note(let.notes, "atom"))
    for k in range(0, cx.axes[expr.axis].extent, llvm_amx.depth(rows)):
        at = [{g.row_axis: llvm_amx.ROWS * r, expr.axis: k} for r in range(g.rows)]
        row_names = [_tile_load(scene, rows, point) for point in at]
        for c in range(g.columns):
            column = _tile_load(scene, columns, {g.lane_axis: llvm_amx.ROWS * c, expr.axis: k})
            for r, row in enumerate(row_names):
                target = into.part((r, c))
                scene.page.line(f"{target} = {_fma(atom, row, column, target)}")


def _tile_load(scene: Scene, tile: Tile, point: dict[str, int]) -> str:
    ref = tile.source
    assert isinstance(ref, ir.Ref)
    name = scene.names.new(ref.buffer.removesuffix("_packed"), 1)
    at = place_text(scene, ref, {**dict.fromkeys(tile.axes, 0), **point})
    scene.page.line(f"{name} = load({at}, tile=16x{llvm_amx.depth(tile)})")
    return name


def amx_finish(scene: Scene, tile: Tile, root: str) -> Tile:
    """The accumulators as vectors along the lanes, by way of memory."""
    cx, g = scene.cx, llvm_amx.grid(scene.cx, tile.type)
    width = cx.width(g.lane_axis)
    parts: dict[Key, str] = {}
    for key in cx.keys(tile.axes, g.lane_axis):
        point = scene.point(tile.axes, key)
        row, column = point.get(g.row_axis, 0), point[g.lane_axis] * width
        source = tile.part((row // llvm_amx.ROWS, column // llvm_amx.ROWS))
        parts[key] = scene.names.new(root, width)
        scene.page.line(f"{parts[key]} = {source}[{row % llvm_amx.ROWS}, {column % llvm_amx.ROWS}:]")
    return table(tile.type, g.lane_axis, parts)
