"""Operands of the instructions that multiply neighbours of a sum in pairs: bf16 (vdpbf16ps), widened bytes (vpdpwssd).

Pairs are read from memory where neighbours lie side by side there; else two rows of a tile are interleaved, and what
was computed is taken from registers.
"""

from __future__ import annotations

from dataclasses import dataclass

from tilewright.emit.llvm_compute import select_existing
from tilewright.emit.llvm_memory import masked_load
from tilewright.emit.llvm_places import Address, axis_dims, neighbouring
from tilewright.emit.llvm_shuffle import concat
from tilewright.emit.llvm_values import Context, Key, Tile, lane_type, read, splat, vector_type
from tilewright.language.dtypes import DType, bf16, i8


@dataclass(frozen=True)
class Pairs:
    """Elements that are multiplied two neighbours at a time: their type, their twin in registers, the instruction."""

    stored: DType
    loaded: str
    held: str
    sums: str
    instruction: str

    def into(self, cx: Context, x: str, y: str, acc: str | None, width: int) -> str:
        """acc + x[2n] y[2n] + x[2n+1] y[2n+1] for each lane n of the sums."""
        name = f"@llvm.x86.{self.instruction}.{32 * width}"
        wide, narrow = f"<{width} x {self.sums}>", f"<{2 * width} x {self.held}>"
        cx.b.declare(f"declare {wide} {name}({wide}, {narrow}, {narrow})")
        return cx.b.emit(f"call {wide} {name}({wide} {acc or 'zeroinitializer'}, {narrow} {x}, {narrow} {y})")


HALVES = Pairs(bf16, "bfloat", "bfloat", "float", "avx512bf16.dpbf16ps")
BYTES = Pairs(i8, "i8", "i16", "i32", "avx512.vpdpwssd")
"""Products of bytes have 15 bits, and sums of i32 are exact."""

Known = dict[tuple[int, Key], str]
"""Operands of one step of a sum, by tile and point."""


# -------------------------------------------------------------------------- lanes along the result
def pair_operand(cx: Context, tile: Tile, point: dict[str, int], axis: str, lane: str, known: Known) -> str:
    """Two neighbours along `axis` at `point`: a vector of such pairs along the lanes, or one pair in every lane."""
    key = (id(tile), tuple(point[t] for t in tile.axes if t != axis))
    if key not in known:
        words = _word if _lies_in_pairs(cx, tile, axis, lane) else _interleaved
        known[key] = words(cx, tile, point, axis, lane)
    return known[key]


def _lies_in_pairs(cx: Context, tile: Tile, axis: str, lane: str) -> bool:
    """Whether pairs can be read as they lie in memory: packed so, or along rows of which one pair goes to all lanes."""
    if not isinstance(tile.source, Address):
        return False
    place, ref = tile.source.place, tile.source.ref
    return place.panel is not None or (
        lane not in tile.axes and axis in neighbouring(cx, place, axis_dims(cx, ref), tile.axes)
    )


def _word(cx: Context, tile: Tile, point: dict[str, int], _axis: str, lane: str) -> str:
    address, b, width = tile.source, cx.b, cx.width(lane)
    assert isinstance(address, Address)
    if lane in tile.axes:
        pointer = address.pointer({**point, lane: point[lane] * width}, lane)
        return b.emit(f"load <{2 * width} x bfloat>, ptr {pointer}, align 2")
    one = b.emit(f"load i32, ptr {address.pointer(point)}, align 2")
    return b.emit(f"bitcast <{width} x i32> {splat(cx, 'i32', width, one)} to <{2 * width} x bfloat>")


def _interleaved(cx: Context, tile: Tile, point: dict[str, int], axis: str, lane: str) -> str:
    """Pairs of what is in registers, or lies row by row; zero where the sum has no term: 0 * NaN is not."""
    width, k = cx.width(lane), point[axis]
    if lane in tile.axes:
        rows = [_existing(cx, read(cx, tile, {**point, axis: n}, lane), axis, n, width) for n in (k, k + 1)]
        return _halves(cx, _woven(cx, rows, width), width)
    if tile.lane == axis:  # neighbours are side by side
        words, at = _neighbours(cx, tile, point, axis)
        own = cx.width(axis) // 2
    else:
        own, at = cx.width(tile.lane), 0 if tile.lane is None else point[tile.lane] % cx.width(tile.lane)
        there = {**point} if tile.lane is None else {**point, tile.lane: point[tile.lane] // own}
        rows = [
            _existing(cx, tile.part(tuple({**there, axis: n}[a] for a in tile.axes)), axis, n, own) for n in (k, k + 1)
        ]
        words = _woven(cx, rows, own)
    if own == 1:
        return _halves(cx, splat(cx, "i32", width, words), width)
    lanes = ", ".join([f"i32 {at}"] * width)
    ty = f"<{own} x i32>"
    every = cx.b.hoist(f"shufflevector {ty} {words}, {ty} poison, <{width} x i32> <{lanes}>", words)
    return _halves(cx, every, width)


def _neighbours(cx: Context, tile: Tile, point: dict[str, int], axis: str) -> tuple[str, int]:
    """The vector of pairs that the pair at `point` is in, as words of 32 bits, and its place there."""
    own = cx.width(axis)
    chunk, inside = divmod(point[axis], own)
    row = tile.part(tuple(chunk if a == axis else point[a] for a in tile.axes))
    row = select_existing(cx, row, cx.mask(axis, chunk), "sum", tile.dtype, own)
    to = "i32" if own == 2 else f"<{own // 2} x i32>"
    return cx.b.hoist(f"bitcast {vector_type(tile.dtype, own)} {row} to {to}", row), inside // 2


def _existing(cx: Context, part: str, axis: str, n: int, width: int) -> str:
    exists = cx.exists(axis, n)
    mask = None if exists is None else splat(cx, "i1", width, exists)
    return select_existing(cx, part, mask, "sum", bf16, width)


def _woven(cx: Context, rows: list[str], width: int) -> str:
    """Elements of two vectors in turns, as words of 32 bits."""
    x, y = rows
    ty, b = lane_type(bf16), cx.b
    if width == 1:
        low, high = (b.hoist(f"zext {ty} {v} to i32", v) for v in (x, y))
        return b.hoist(f"or i32 {low}, {(up := b.hoist(f'shl i32 {high}, 16', high))}", low, up)
    picks = ", ".join(f"i32 {n // 2 + n % 2 * width}" for n in range(2 * width))
    wide = b.hoist(f"shufflevector <{width} x {ty}> {x}, <{width} x {ty}> {y}, <{2 * width} x i32> <{picks}>", x, y)
    return b.hoist(f"bitcast <{2 * width} x {ty}> {wide} to <{width} x i32>", wide)


def _halves(cx: Context, words: str, width: int) -> str:
    return cx.b.hoist(f"bitcast <{width} x i32> {words} to <{2 * width} x bfloat>", words)


# ----------------------------------------------------------------------------- lanes along the sum
def row_operand(
    cx: Context, tile: Tile, number: int, point: dict[str, int], axis: str, width: int, known: Known, pairs: Pairs
) -> str:
    """2 * width neighbours along the summed axis, zero where there is none."""
    key = (number, tuple(point[t] for t in tile.axes))
    if key not in known:
        row = _row_in_memory if isinstance(tile.source, Address) else _row_in_registers
        known[key] = row(cx, tile, point, axis, width, pairs)
    return known[key]


def _row_in_registers(
    cx: Context, tile: Tile, point: dict[str, int], axis: str, width: int, pairs: Pairs
) -> str:  # fmt: skip
    halves = []
    for chunk in (2 * point[axis], 2 * point[axis] + 1):
        part = read(cx, tile, {**point, axis: chunk}, axis)
        halves.append(select_existing(cx, part, cx.mask(axis, chunk), "sum", tile.dtype, width))
    ty = lane_type(tile.dtype)
    both = concat(cx.b, halves, ty, width)
    return cx.b.hoist(f"bitcast <{2 * width} x {ty}> {both} to <{2 * width} x {pairs.held}>", both)


def _row_in_memory(cx: Context, tile: Tile, point: dict[str, int], axis: str, width: int, pairs: Pairs) -> str:
    address, first = tile.source, 2 * width * point[axis]
    assert isinstance(address, Address)
    pointer = address.pointer({**point, axis: first}, axis)
    mask = _pair_mask(cx, axis, first, 2 * width)
    loaded, held = (f"<{2 * width} x {element}>" for element in (pairs.loaded, pairs.held))
    if mask is None:
        found = cx.b.emit(f"load {loaded}, ptr {pointer}, align {pairs.stored.bytes}")
    else:
        found = masked_load(cx, pairs.stored, pointer, 2 * width, mask)
        loaded = f"<{2 * width} x {lane_type(pairs.stored)}>"
    if loaded == held:
        return found
    cast_ = "sext" if pairs.stored.kind == "int" else "bitcast"
    return cx.b.emit(f"{cast_} {loaded} {found} to {held}")


def _pair_mask(cx: Context, axis: str, first: int, width: int) -> str | None:
    state = cx.axes[axis]
    if state.count is None and first + width <= state.extent:
        return None
    b, count = cx.b, state.count or str(state.extent)
    short = b.hoist(f"trunc i64 {count} to i32", count) if count.startswith("%") else count
    limit = splat(cx, "i32", width, short)
    positions = ", ".join(f"i32 {first + n}" for n in range(width))
    return b.hoist(f"icmp slt <{width} x i32> <{positions}>, {limit}", limit)


__all__ = ["BYTES", "HALVES", "Known", "Pairs", "pair_operand", "row_operand"]
