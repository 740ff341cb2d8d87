"""Copies into packed panels: rows become lanes by register transposes; the tail is filled with zeros."""

from __future__ import annotations

from collections.abc import Callable

from tilewright.emit.llvm_compute import cast
from tilewright.emit.llvm_memory import load, masked_load, store
from tilewright.emit.llvm_places import Address, Place, axis_dims
from tilewright.emit.llvm_shuffle import transposed
from tilewright.emit.llvm_values import Context, Key, Tile, read, scalar_type
from tilewright.language import ir
from tilewright.language.ir import TileType


def copy_panel(cx: Context, dst: Place, src: Place, node: ir.Copy) -> None:
    """`copy dst <- src`; neighbours of the depth axis that lie together in a panel travel as lanes of 32 bits."""
    if dst.panel is not None and dst.panel.pair > 1:
        grouped = dst.panel.pair * dst.dtype.bytes
        (_copy_words if grouped == _WORD else _copy_rows)(cx, dst, src, node)
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


_WORD = 4  # bytes of a lane: two elements of 16 bits, four of 8


def _copy_words(cx: Context, dst: Place, src: Place, node: ir.Copy) -> None:
    """Block rows n, depth k -> panel (n // block, k // pair, n % block, k % pair)."""
    panel = dst.panel
    assert panel is not None
    lane = str(node.dst.index[panel.dim])
    depth = str(node.dst.index[panel.depth])
    rows, columns = cx.axes[lane], cx.axes[depth]
    address = Address(cx, dst, node.dst)
    if axis_dims(cx, node.src)[depth] in src.unit_dims:
        words = _words_by_transpose(cx, src, node, lane, depth)
    else:
        words = _words_by_interleave(cx, src, node, lane, depth)
    for chunk in range(rows.chunks):
        for k in range(columns.extent // panel.pair):
            pointer = address.pointer({lane: chunk * rows.width, depth: panel.pair * k}, clamp=False)
            valid = min(rows.width, rows.extent - chunk * rows.width)
            _store_lanes(cx, words(chunk, k), pointer, rows.width, valid)


def _copy_rows(cx: Context, dst: Place, src: Place, node: ir.Copy) -> None:
    """Rows of 64 bytes of neighbours along the depth axis, one under the other."""
    panel = dst.panel
    assert panel is not None
    lane, depth = str(node.dst.index[panel.dim]), str(node.dst.index[panel.depth])
    target = Address(cx, dst, node.dst)
    words = cx.axes[depth].extent * src.dtype.bytes // _WORD
    row_of = _rows_as_they_lie if axis_dims(cx, node.src)[depth] in src.unit_dims else _rows_by_transpose
    rows = row_of(cx, src, node, lane, depth)
    for row in range(cx.axes[lane].extent):
        value = rows(row)
        pointer = target.pointer({lane: row, depth: 0}, clamp=False)
        cx.b.do(f"store <{words} x i32> {value}, ptr {pointer}, align 4")


def _rows_as_they_lie(cx: Context, src: Place, node: ir.Copy, lane: str, depth: str) -> Callable[[int], str]:
    """A row -> its words, where neighbours of the depth axis are neighbours in memory."""
    source = Address(cx, src, node.src)
    return lambda row: _row_of_words(cx, source, lane, depth, row)


def _rows_by_transpose(cx: Context, src: Place, node: ir.Copy, lane: str, depth: str) -> Callable[[int], str]:
    """A row -> its words, where they are gathered from all over: made along the rows, and transposed in registers."""
    word, width = _words_by_interleave(cx, src, node, lane, depth), cx.axes[lane].width
    words = cx.axes[depth].extent * src.dtype.bytes // _WORD
    blocks: dict[int, list[str]] = {}

    def row(n: int) -> str:
        chunk, inside = divmod(n, width)
        if chunk not in blocks:
            blocks[chunk] = transposed(cx.b, [word(chunk, k) for k in range(words)], "i32", width)
        return blocks[chunk][inside]

    return row


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


Words = Callable[[int, int], str]
"""(chunk of rows, word of the depth axis) -> the vector of 32-bit words."""


def _words_by_transpose(cx: Context, src: Place, node: ir.Copy, lane: str, depth: str) -> Words:
    """Rows are read along the depth axis, and blocks of words transposed in registers."""
    rows, columns = cx.axes[lane], cx.axes[depth]
    words = columns.extent * src.dtype.bytes // _WORD
    address = Address(cx, src, node.src)
    blocks: dict[int, list[str]] = {}

    def block(chunk: int) -> list[str]:
        vectors = []
        for n in range(rows.width):
            row = chunk * rows.width + n
            vectors.append(_row_of_words(cx, address, lane, depth, row) if row < rows.extent else "zeroinitializer")
        return transposed(cx.b, vectors, "i32", words)

    def word(chunk: int, k: int) -> str:
        if chunk not in blocks:
            blocks[chunk] = block(chunk)
        return blocks[chunk][k]

    return word


def _row_of_words(cx: Context, address: Address, lane: str, depth: str, row: int) -> str:
    """All depth elements of one row, zeros past the ends, as 32-bit words."""
    b, columns, dtype = cx.b, cx.axes[depth], address.place.dtype
    count = columns.extent
    pointer = address.pointer({lane: row, depth: 0}, clamp=True)
    mask = _row_mask(cx, lane, row, depth, count)
    ty = f"<{count} x {scalar_type(dtype)}>"
    if mask is None:
        value = b.emit(f"load {ty}, ptr {pointer}, align {dtype.bytes}")
    else:
        value = masked_load(cx, dtype, pointer, count, mask)
    return b.emit(f"bitcast {ty} {value} to <{count * dtype.bytes // _WORD} x i32>")


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


def _words_by_interleave(cx: Context, src: Place, node: ir.Copy, lane: str, depth: str) -> Words:
    """The neighbours of the depth axis that make a word are read along the rows, and interleaved."""
    axes = tuple(i for i in node.src.index if isinstance(i, str) and i in cx.axes and not cx.axes[i].each)
    tile = load(cx, src, ir.Load(node.src), TileType(src.dtype, axes), zero_fill=True)
    width, per = cx.axes[lane].width, _WORD // src.dtype.bytes

    def word(chunk: int, k: int) -> str:
        rows = [read(cx, tile, {lane: chunk, depth: per * k + n}, lane) for n in range(per)]
        return _interleaved(cx, rows, scalar_type(src.dtype), width)

    return word


def _interleaved(cx: Context, rows: list[str], element: str, width: int) -> str:
    """Lane n of the result is element n of each row, side by side, as a word."""
    whole = len(rows) * width
    target = "i32" if width == 1 else f"<{width} x i32>"
    if width == 1:
        both = "poison"
        for n, row in enumerate(rows):
            both = cx.b.emit(f"insertelement <{whole} x {element}> {both}, {element} {row}, i64 {n}")
    else:
        both = _woven(cx, rows, element, width)
    return cx.b.emit(f"bitcast <{whole} x {element}> {both} to {target}")


def _woven(cx: Context, rows: list[str], element: str, width: int) -> str:
    """Vectors of `width` elements as one, in turns: halves of them first, then those of the halves."""
    if len(rows) == 1:
        return rows[0]
    even, odd = (_woven(cx, rows[n::2], element, width) for n in (0, 1))
    size = len(rows) * width
    ty = f"<{size // 2} x {element}>"
    order = ", ".join(f"i32 {n // 2 + (n % 2) * (size // 2)}" for n in range(size))
    return cx.b.emit(f"shufflevector {ty} {even}, {ty} {odd}, <{size} x i32> <{order}>")
