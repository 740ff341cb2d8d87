"""Dots on the tile registers of AMX: accumulators stay in them for a whole loop.

A tile register holds 16 rows of 64 bytes. One operand gives rows (16 by 32 bf16 or by 64 bytes, neighbours
along the sum), the other columns in words of 32 bits (16 pairs, or groups of four bytes, of the sum by 16
columns). Registers are named, not allocated: accumulators first, then the operand that waits, then the one that passes.
Source: Intel 64 and IA-32 Architectures Software Developer's Manual, volume 1, chapter 18.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from tilewright.emit import llvm_builder as ll
from tilewright.emit.llvm_builder import Builder
from tilewright.emit.llvm_loops import Carry, branch
from tilewright.emit.llvm_places import Address
from tilewright.emit.llvm_values import Context, Key, Tile, vector_type
from tilewright.language.ir import TileType

ROWS, ROW_BYTES, REGISTERS = 16, 64, 8
ATOMS = {"amx_bf16": "tdpbf16ps", "amx_int8": "tdpbssd"}
"""The instruction of each atom that multiplies tile registers."""
IN_REGISTERS = -1  # Tile.spread of a value that lies in tile registers
SCRATCH_FLOATS = (REGISTERS - 2) * ROWS * ROWS
_INTRINSICS = {
    "ldtilecfg": "void (ptr)",
    "tilerelease": "void ()",
    "tilezero": "void (i8)",
    "tileloadd64": "void (i8, ptr, i64)",
    "tilestored64": "void (i8, ptr, i64)",
    "tdpbf16ps": "void (i8, i8, i8)",
    "tdpbssd": "void (i8, i8, i8)",
}


@dataclass(frozen=True)
class Grid:
    """How an accumulator of rows by columns is cut into tile registers."""

    row_axis: str
    lane_axis: str
    rows: int
    columns: int
    first: int = 0  # register of its first block
    accumulators: int = 0  # registers that all accumulators of the loop take together

    @property
    def blocks(self) -> int:
        """Tile registers of the accumulator."""
        return self.rows * self.columns

    @property
    def holds_rows(self) -> bool:
        """Whether the row operand waits in registers while columns pass by; if it has too many parts, columns wait."""
        return self.accumulators + self.rows < REGISTERS

    def accumulator(self, row: int, column: int) -> int:
        """Register of one block of the result."""
        return self.first + row * self.columns + column


def configure(b: Builder) -> None:
    """All eight tile registers as 16 rows of 64 bytes, for the rest of the function; and room to spill them."""
    b.do("%tile_config = alloca [64 x i8], align 64")
    b.do(f"%tile_scratch = alloca [{SCRATCH_FLOATS} x float], align 64")
    b.do(f"%tile_edge = alloca [{ROWS * ROW_BYTES} x i8], align 64")
    palette = [1] + [0] * 15 + [64 if n % 2 == 0 else 0 for n in range(16)] + [0] * 16 + [16] * 8 + [0] * 8
    values = ", ".join(f"i8 {v}" for v in palette)
    b.do(f"store <64 x i8> <{values}>, ptr %tile_config, align 64")
    _call(b, "ldtilecfg", "ptr %tile_config")


def release(b: Builder) -> None:
    """Give the tile registers back, so that a context switch need not save them."""
    _call(b, "tilerelease", "")


def grid(cx: Context, type_: TileType) -> Grid:
    """The registers for an accumulator of that type."""
    lane = cx.lane_of(type_.axes)
    assert lane is not None
    row = next((a for a in type_.axes if a != lane and cx.axes[a].extent > 1), type_.axes[0])
    return Grid(row, lane, -(-cx.axes[row].extent // ROWS), -(-cx.axes[lane].extent // ROWS))


def begin(cx: Context, types: list[TileType]) -> list[Tile]:
    """Zero accumulators for all dots of a loop; the tiles that stand for them."""
    grids = [grid(cx, type_) for type_ in types]
    total = sum(g.blocks for g in grids)
    least = max(min(g.rows, g.columns) for g in grids)
    assert total + least < REGISTERS, "the design asks for more tile registers than there are"
    for n in range(total):
        _call(cx.b, "tilezero", f"i8 {n}")
    tiles, first = [], 0
    for g, type_ in zip(grids, types, strict=True):
        placed = replace(g, first=first, accumulators=total)
        tiles.append(Tile(type_, None, _nowhere, spread=IN_REGISTERS, source=placed))
        first += g.blocks
    return tiles


def depth(tile: Tile) -> int:
    """Terms of the sum that a tile register of an operand holds: neighbours in one of its rows."""
    return ROW_BYTES // tile.dtype.bytes


def accumulate(cx: Context, a: Tile, b: Tile, axis: str, into: Tile, atom: str) -> None:
    """Add the product of two tiles to the accumulators."""
    g = into.source
    assert isinstance(g, Grid)
    rows, columns = (a, b) if g.lane_axis in b.axes else (b, a)
    parts = {True: (rows, g.rows), False: (columns, g.columns)}
    (waiting, count), (passing, times) = parts[g.holds_rows], parts[not g.holds_rows]
    step = depth(rows)
    for k in range(0, cx.axes[axis].extent, step):
        held = (cx.b.block, id(waiting.source), k)
        for n in range(count if cx.b.held != held else 0):  # the dot before may have left them there
            _load_part(cx, g, g.accumulators + n, waiting, n, (axis, k))
        cx.b.held = held if cx.axes[axis].extent <= step else None
        free = g.accumulators + count
        for p in range(times):
            register = free + p % (REGISTERS - free)
            _load_part(cx, g, register, passing, p, (axis, k))
            for n in range(count):
                held_register = g.accumulators + n
                if g.holds_rows:
                    registers = f"i8 {g.accumulator(n, p)}, i8 {held_register}, i8 {register}"
                else:
                    registers = f"i8 {g.accumulator(p, n)}, i8 {register}, i8 {held_register}"
                _call(cx.b, ATOMS[atom], registers)


def finish(cx: Context, tile: Tile) -> Tile:
    """The accumulators as a tile in vector registers, by way of memory."""
    g, type_ = tile.source, tile.type
    assert isinstance(g, Grid)
    width = g.columns * ROWS
    for r in range(g.rows):
        for c in range(g.columns):
            offset = (r * ROWS * width + c * ROWS) * 4
            pointer = cx.b.emit(f"getelementptr i8, ptr %tile_scratch, i64 {offset}")
            _call(cx.b, "tilestored64", f"i8 {g.accumulator(r, c)}, ptr {pointer}, i64 {4 * width}")
    return Tile(type_, g.lane_axis, _Spilled(cx, type_, g, width))


class _Spilled:
    """Parts of a result that lies in scratch, each loaded once, in the block that reads it first."""

    def __init__(self, cx: Context, type_: TileType, g: Grid, width: int) -> None:
        self.cx, self.type, self.grid, self.width = cx, type_, g, width
        lanes = cx.width(g.lane_axis)
        self.parts: dict[Key, str] = {}
        for key in cx.keys(type_.axes, g.lane_axis):
            point = dict(zip(type_.axes, key, strict=True))
            offset = (point.get(g.row_axis, 0) * width + point[g.lane_axis] * lanes) * 4
            pointer = cx.b.emit(f"getelementptr i8, ptr %tile_scratch, i64 {offset}")
            self.parts[key] = cx.b.emit(f"load {vector_type(type_.dtype, lanes)}, ptr {pointer}, align 64")

    def __call__(self, key: Key) -> str:
        return self.parts[key]


def _nowhere(_key: Key) -> str:
    raise AssertionError("a value in tile registers was read inside its loop")


def _load(cx: Context, register: int, tile: Tile, point: dict[str, int], stride: str) -> None:
    address = tile.source
    assert isinstance(address, Address), "AMX reads its operands from memory"
    at = {**dict.fromkeys(tile.axes, 0), **point}
    pointer = address.pointer(at, clamp=False)
    _call(cx.b, "tileloadd64", f"i8 {register}, ptr {pointer}, i64 {stride}")


def _load_part(cx: Context, g: Grid, register: int, tile: Tile, part: int, term: tuple[str, int]) -> None:
    """Sixteen rows of the row operand, or sixteen columns of the other one from its panel."""
    if g.lane_axis not in tile.axes:
        _load_rows(cx, register, tile, (g.row_axis, ROWS * part), term)
        return
    axis, k = term
    _load(cx, register, tile, {g.lane_axis: ROWS * part, axis: k}, _word_stride(tile))


def _load_rows(cx: Context, register: int, tile: Tile, row: tuple[str, int], term: tuple[str, int]) -> None:
    """Sixteen rows of the row operand: from a panel, which is padded, or where they lie, if all of them are there."""
    address, point = tile.source, dict((row, term))
    assert isinstance(address, Address), "AMX reads its operands from memory"
    if address.place.panel is not None:
        _load(cx, register, tile, point, str(tile.dtype.bytes * address.place.panel.pair))
        return
    rows, terms = (cx.axes[axis].count for axis, _ in (row, term))
    stride = ll.mul(cx.b, address.place.strides[address.ref.index.index(row[0])], str(tile.dtype.bytes))

    def whole() -> None:
        _load(cx, register, tile, point, stride)

    def edge() -> None:
        _load_edge(cx, register, tile, row, term)

    if terms is not None:
        edge()
    elif rows is None:
        whole()
    else:
        branch(cx, ll.compare(cx.b, "sge", rows, str(row[1] + ROWS)), whole, Carry(cx, []), edge)


def _load_edge(cx: Context, register: int, tile: Tile, row: tuple[str, int], term: tuple[str, int]) -> None:
    """Rows of a tile that reaches over an end, by way of memory: zeros after the last term, the last row again."""
    address, (axis, first), (along, k) = tile.source, row, term
    assert isinstance(address, Address)
    mask = _bytes_there(cx, along, k, tile.dtype.bytes)
    for r in range(ROWS):
        at = {**dict.fromkeys(tile.axes, 0), axis: first + r, along: k}
        pointer, place = address.pointer(at, lane=along), f"getelementptr i8, ptr %tile_edge, i64 {ROW_BYTES * r}"
        if mask is None:
            value = cx.b.emit(f"load <{ROW_BYTES} x i8>, ptr {pointer}, align 1")
        else:
            name, bits = f"@llvm.masked.load.v{ROW_BYTES}i8.p0", f"<{ROW_BYTES} x i1>"
            cx.b.declare(f"declare <{ROW_BYTES} x i8> {name}(ptr, i32, {bits}, <{ROW_BYTES} x i8>)")
            taken = f"ptr {pointer}, i32 1, {bits} {mask}, <{ROW_BYTES} x i8> zeroinitializer"
            value = cx.b.emit(f"call <{ROW_BYTES} x i8> {name}({taken})")
        cx.b.do(f"store <{ROW_BYTES} x i8> {value}, ptr {cx.b.emit(place)}, align 64")
    _call(cx.b, "tileloadd64", f"i8 {register}, ptr %tile_edge, i64 {ROW_BYTES}")


def _bytes_there(cx: Context, axis: str, first: int, size: int) -> str | None:
    """Which of the next bytes of a row lie before the end of `axis`; None for all of them."""
    count = cx.axes[axis].count
    if count is None:
        return None
    left = ll.mul(cx.b, ll.sub(cx.b, count, str(first)), str(size))
    word = cx.b.emit(f"trunc i64 {left} to i16") if not ll.is_const(left) else left
    one = cx.b.emit(f"insertelement <{ROW_BYTES} x i16> poison, i16 {word}, i64 0")
    all_ = f"<{ROW_BYTES} x i32> zeroinitializer"
    ends = cx.b.emit(f"shufflevector <{ROW_BYTES} x i16> {one}, <{ROW_BYTES} x i16> poison, {all_}")
    places = ", ".join(f"i16 {n}" for n in range(ROW_BYTES))
    return cx.b.emit(f"icmp slt <{ROW_BYTES} x i16> <{places}>, {ends}")


def _word_stride(tile: Tile) -> str:
    """Bytes from the words of some terms of the sum to those of the next."""
    address = tile.source
    assert isinstance(address, Address) and address.place.panel is not None
    return str(4 * address.place.panel.block)


def _call(b: Builder, name: str, args: str) -> None:
    result, parameters = _INTRINSICS[name].split(" ", 1)
    b.declare(f"declare {result} @llvm.x86.{name}{parameters}")
    b.do(f"call {result} @llvm.x86.{name}({args})")
