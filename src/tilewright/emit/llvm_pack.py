"""Copies into packed panels: rows become lanes by register transposes; the tail is filled with zeros."""

from __future__ import annotations

from collections.abc import Callable

from tilewright.emit.llvm_compute import cast
from tilewright.emit.llvm_memory import Address, Place, axis_dims, load, masked_load, store
from tilewright.emit.llvm_shuffle import transposed
from tilewright.emit.llvm_values import Context, Key, Tile, read
from tilewright.language import ir
from tilewright.language.dtypes import bf16
from tilewright.language.ir import TileType


def copy_panel(cx: Context, dst: Place, src: Place, node: ir.Copy) -> None:
    """`copy dst <- src`; into a paired panel, two neighbours of the depth axis travel as one 32-bit lane."""
    if dst.panel is not None and dst.panel.pair == 2:
        _copy_pairs(cx, dst, src, node)
        return
    if dst.panel is not None and dst.panel.pair == 32:
        _copy_rows(cx, dst, src, node)
        return
    axes = tuple(i for i in node.src.index if isinstance(i, str) and i in cx.axes and not cx.axes[i].each)
    type_ = TileType(src.dtype, axes)
    tile = load(cx, src, ir.Load(node.src), type_, zero_fill=dst.padded)
    if src.dtype != dst.dtype:
        tile = _converted(cx, tile, dst)
    store(cx, dst, node.dst, tile, pad=dst.padded)


def _converted(cx: Context, tile: Tile, dst: Place) -> Tile:
    width = cx.width(tile.lane)

    def part(key: Key) -> str:
        return cast(cx, tile.part(key), tile.dtype, dst.dtype, width)

    return Tile(TileType(dst.dtype, tile.axes), tile.lane, part)


def _copy_pairs(cx: Context, dst: Place, src: Place, node: ir.Copy) -> None:
    """16-bit elements: block rows n, depth k -> panel (n // block, k // 2, n % block, k % 2)."""
    panel = dst.panel
    assert panel is not None
    lane = str(node.dst.index[panel.dim])
    depth = str(node.dst.index[panel.depth])
    rows, columns = cx.axes[lane], cx.axes[depth]
    address = Address(cx, dst, node.dst)
    if axis_dims(cx, node.src)[depth] in src.unit_dims:
        pairs = _pairs_by_transpose(cx, src, node, lane, depth)
    else:
        pairs = _pairs_by_interleave(cx, src, node, lane, depth)
    for chunk in range(rows.chunks):
        for k in range(columns.extent // 2):
            pointer = address.pointer({lane: chunk * rows.width, depth: 2 * k}, clamp=False)
            valid = min(rows.width, rows.extent - chunk * rows.width)
            _store_lanes(cx, pairs(chunk, k), pointer, rows.width, valid)


def _copy_rows(cx: Context, dst: Place, src: Place, node: ir.Copy) -> None:
    """16-bit elements: rows of 32 neighbours along the depth axis, one under the other."""
    panel = dst.panel
    assert panel is not None
    lane, depth = str(node.dst.index[panel.dim]), str(node.dst.index[panel.depth])
    source, target = Address(cx, src, node.src), Address(cx, dst, node.dst)
    for row in range(cx.axes[lane].extent):
        value = _row_of_pairs(cx, source, lane, depth, row)
        pointer = target.pointer({lane: row, depth: 0}, clamp=False)
        cx.b.do(f"store <{cx.axes[depth].extent // 2} x i32> {value}, ptr {pointer}, align 4")


def _store_lanes(cx: Context, vector: str, pointer: str, width: int, valid: int) -> None:
    ty = f"<{width} x i32>" if width > 1 else "i32"
    if valid == width:
        cx.b.do(f"store {ty} {vector}, ptr {pointer}, align 4")
        return
    bits = ", ".join(f"i1 {'true' if n < valid else 'false'}" for n in range(width))
    cx.b.declare(f"declare void @llvm.masked.store.v{width}i32.p0({ty}, ptr, i32, <{width} x i1>)")
    cx.b.do(
        f"call void @llvm.masked.store.v{width}i32.p0({ty} {vector}, ptr {pointer}, i32 4, <{width} x i1> <{bits}>)"
    )


Pairs = Callable[[int, int], str]
"""(chunk of rows, pair of the depth axis) -> the vector of 32-bit pairs."""


def _pairs_by_transpose(cx: Context, src: Place, node: ir.Copy, lane: str, depth: str) -> Pairs:
    """Rows are read along the depth axis, and blocks of pairs transposed in registers."""
    rows, columns = cx.axes[lane], cx.axes[depth]
    pairs = columns.extent // 2
    address = Address(cx, src, node.src)
    blocks: dict[int, list[str]] = {}

    def block(chunk: int) -> list[str]:
        vectors = []
        for n in range(rows.width):
            row = chunk * rows.width + n
            vectors.append(_row_of_pairs(cx, address, lane, depth, row) if row < rows.extent else "zeroinitializer")
        return transposed(cx.b, vectors, "i32", pairs)

    def pair(chunk: int, k: int) -> str:
        if chunk not in blocks:
            blocks[chunk] = block(chunk)
        return blocks[chunk][k]

    return pair


def _row_of_pairs(cx: Context, address: Address, lane: str, depth: str, row: int) -> str:
    """All depth elements of one row, zeros past the ends, as 32-bit pairs."""
    b, columns = cx.b, cx.axes[depth]
    count = columns.extent
    pointer = address.pointer({lane: row, depth: 0}, clamp=True)
    mask = _row_mask(cx, lane, row, depth, count)
    ty = f"<{count} x i16>"
    if mask is None:
        value = b.emit(f"load {ty}, ptr {pointer}, align 2")
    else:
        value = masked_load(cx, bf16, pointer, count, mask)
    return b.emit(f"bitcast {ty} {value} to <{count // 2} x i32>")


def _row_mask(cx: Context, lane: str, row: int, depth: str, width: int) -> str | None:
    b, columns = cx.b, cx.axes[depth]
    exists = cx.exists(lane, row)
    if columns.count is None and exists is None:
        return None
    count = columns.count or str(columns.extent)
    if exists is not None:
        count = b.hoist(f"select i1 {exists}, i64 {count}, i64 0", exists, count)
    short = b.hoist(f"trunc i64 {count} to i32", count) if count.startswith("%") else count
    one = b.hoist(f"insertelement <{width} x i32> poison, i32 {short}, i64 0", short)
    limit = b.hoist(
        f"shufflevector <{width} x i32> {one}, <{width} x i32> poison, <{width} x i32> zeroinitializer", one
    )
    positions = ", ".join(f"i32 {n}" for n in range(width))
    return b.hoist(f"icmp slt <{width} x i32> <{positions}>, {limit}", limit)


def _pairs_by_interleave(cx: Context, src: Place, node: ir.Copy, lane: str, depth: str) -> Pairs:
    """Two neighbours of the depth axis are read along the rows, and interleaved."""
    axes = tuple(i for i in node.src.index if isinstance(i, str) and i in cx.axes and not cx.axes[i].each)
    tile = load(cx, src, ir.Load(node.src), TileType(src.dtype, axes), zero_fill=True)
    width = cx.axes[lane].width

    def pair(chunk: int, k: int) -> str:
        low = read(cx, tile, {lane: chunk, depth: 2 * k}, lane)
        high = read(cx, tile, {lane: chunk, depth: 2 * k + 1}, lane)
        if width == 1:
            first = cx.b.emit(f"insertelement <2 x i16> poison, i16 {low}, i64 0")
            both = cx.b.emit(f"insertelement <2 x i16> {first}, i16 {high}, i64 1")
            return cx.b.emit(f"bitcast <2 x i16> {both} to i32")
        order = ", ".join(f"i32 {n // 2 + (n % 2) * width}" for n in range(2 * width))
        ty = f"<{width} x i16>"
        both = cx.b.emit(f"shufflevector {ty} {low}, {ty} {high}, <{2 * width} x i32> <{order}>")
        return cx.b.emit(f"bitcast <{2 * width} x i16> {both} to <{width} x i32>")

    return pair
