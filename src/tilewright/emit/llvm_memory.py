"""Loads and stores of tiles: vectors along the lanes, masks at the ends, prefetches."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from tilewright.emit.llvm_loops import Carry, branch
from tilewright.emit.llvm_places import LINE, Address, Place, axis_dims, neighbouring
from tilewright.emit.llvm_shuffle import concat
from tilewright.emit.llvm_values import Context, Key, Tile, lane_type, read, scalar_type, splat, vector_type
from tilewright.language.dtypes import DType
from tilewright.language.ir import Load, Ref, TileType

SECOND_CACHE = 2  # how near a prefetch brings a line, as LLVM numbers it


def load(cx: Context, place: Place, node: Load, type_: TileType, *, zero_fill: bool = False) -> Tile:
    """The tile at a ref, each part loaded when first read.

    Along the lane axis a unit stride loads vectors, another stride gathers. Where a neighbouring axis
    has the unit stride and both fill whole vectors, the tile is loaded along that one and transposed on use.
    """
    dims = axis_dims(cx, node.ref)
    lane = cx.lane_of(type_.axes)
    unit = neighbouring(cx, place, dims, type_.axes)
    if lane is not None and lane not in unit and place.panel is None:
        better = [a for a in unit if a in cx.lanes and cx.axes[a].width > 1]
        lane = better[0] if better else None
    if place.panel is not None and (place.panel.pair > 1 or dims.get(str(lane)) != place.panel.dim):
        lane = None  # neighbours of a panel lie along its block, one by one
    address = Address(cx, place, node.ref)
    known: dict[Key, str] = {}

    def part(key: Key) -> str:
        if key not in known:
            known[key] = _load_part(cx, place, address, type_, lane, key, zero_fill)
        return known[key]

    return Tile(type_, lane, part, source=address)


Fetch = Callable[[Key], None]


def fetcher(cx: Context, place: Place, node: Load, tile: Tile, distance: str, nearness: int = 3) -> Fetch:
    """What fetches the line `distance` bytes behind a part of a tile: into all caches, or up to SECOND_CACHE."""
    address = Address(cx, place, node.ref)
    cx.b.declare("declare void @llvm.prefetch.p0(ptr, i32, i32, i32)")

    def fetch(key: Key) -> None:
        point = _point(cx, tile.axes, tile.lane, key)
        if tile.lane is not None and point[tile.lane] * place.dtype.bytes % LINE:
            return  # the same cache line as the part before
        pointer = address.pointer(point, tile.lane)
        later = cx.b.hoist(f"getelementptr i8, ptr {pointer}, i64 {distance}", pointer, distance)
        cx.b.do(f"call void @llvm.prefetch.p0(ptr {later}, i32 0, i32 {nearness}, i32 1)")

    return fetch


def fetching(tile: Tile, fetch: Fetch) -> Tile:
    """A tile of which each part is fetched ahead right beside its load, when it is first read."""
    known: dict[Key, str] = {}

    def part(key: Key) -> str:
        if key not in known:
            fetch(key)
            known[key] = tile.part(key)
        return known[key]

    return replace(tile, part=part)


def _point(cx: Context, axes: tuple[str, ...], lane: str | None, key: Key) -> dict[str, int]:
    """Positions of the first element of a part."""
    return {a: k * cx.axes[a].width if a == lane else k for a, k in zip(axes, key, strict=True)}


def _load_part(
    cx: Context, place: Place, address: Address, type_: TileType, lane: str | None, key: Key, zero_fill: bool
) -> str:
    point = _point(cx, type_.axes, lane, key)
    pointer = address.pointer(point, lane)
    width = cx.width(lane)
    mask = None
    if lane is not None and not place.padded:
        mask = cx.mask(lane, key[type_.axes.index(lane)])
    if zero_fill:
        mask = _and_rows(cx, mask, width, [e for a in type_.axes if a != lane if (e := cx.exists(a, point[a]))])
    if mask is None:
        return _plain_load(cx, place, pointer, width)
    return masked_load(cx, place.dtype, pointer, width, mask)


def _plain_load(cx: Context, place: Place, pointer: str, width: int) -> str:
    align = place.dtype.bytes
    if width > 1:
        ty = f"<{width} x {scalar_type(place.dtype)}>"
        value = cx.b.emit(f"load {ty}, ptr {pointer}, align {align}")
        return cx.b.emit(f"trunc {ty} {value} to <{width} x i32>") if place.dtype.name == "i64" else value
    if place.dtype.name == "bool":
        byte = cx.b.emit(f"load i8, ptr {pointer}, align 1")
        return cx.b.emit(f"icmp ne i8 {byte}, 0")
    return cx.b.emit(f"load {scalar_type(place.dtype)}, ptr {pointer}, align {align}")


def _and_rows(cx: Context, mask: str | None, width: int, rows: list[str]) -> str | None:
    for row in rows:
        whole = splat(cx, "i1", width, row)
        if mask is None:
            mask = whole
        else:
            ty = f"<{width} x i1>" if width > 1 else "i1"
            mask = cx.b.hoist(f"and {ty} {mask}, {whole}", mask, whole)
    return mask


def masked_load(cx: Context, dtype: DType, pointer: str, width: int, mask: str) -> str:
    """The elements where `mask` is set, zero elsewhere; nothing else is touched."""
    b = cx.b
    element = scalar_type(dtype)
    if width == 1:
        b.declare(
            f"declare <1 x {element}> @llvm.masked.load.v1{suffix(dtype)}.p0(ptr, i32, <1 x i1>, <1 x {element}>)"
        )
        wide = b.emit(f"insertelement <1 x i1> poison, i1 {mask}, i64 0")
        one = b.emit(
            f"call <1 x {element}> @llvm.masked.load.v1{suffix(dtype)}.p0(ptr {pointer}, i32 {dtype.bytes}, "
            f"<1 x i1> {wide}, <1 x {element}> zeroinitializer)"
        )
        return b.emit(f"extractelement <1 x {element}> {one}, i64 0")
    ty, name = f"<{width} x {element}>", f"@llvm.masked.load.v{width}{suffix(dtype)}.p0"
    b.declare(f"declare {ty} {name}(ptr, i32, <{width} x i1>, {ty})")
    value = b.emit(f"call {ty} {name}(ptr {pointer}, i32 {dtype.bytes}, <{width} x i1> {mask}, {ty} zeroinitializer)")
    return b.emit(f"trunc {ty} {value} to <{width} x i32>") if dtype.name == "i64" else value


def suffix(dtype: DType) -> str:
    """How an intrinsic's name spells an element type."""
    return {"bool": "i1", "bf16": "i16", "f8e4m3": "i8", "w64": "i64"}.get(dtype.name, dtype.name)


_ABREAST = 4  # rows of a tile whose parts are computed before the first of them is written


def store(cx: Context, place: Place, ref: Ref, value: Tile, *, nontemporal: bool = False, pad: bool = False) -> None:
    """Write a tile. `pad`: the buffer holds whole tiles, so elements past the end are written too."""
    dims = axis_dims(cx, ref)
    unit = [a for a in neighbouring(cx, place, dims, value.axes) if cx.axes[a].width > 1]
    if place.panel is not None:
        unit = [a for a in value.axes if dims.get(a) == place.panel.dim and place.panel.pair == 1]
    lane = value.lane if value.lane in unit else (unit[0] if unit else None)
    address = Address(cx, place, ref)
    apart = nontemporal and not pad  # a mask would take what exists of a tile through the caches: a branch does not
    masks = {key: _store_mask(cx, value.axes, lane, key, pad, apart) for key in cx.keys(value.axes, lane)}
    width = cx.width(lane)
    together = max(1, cx.vector_bytes // (width * place.dtype.bytes)) if place.panel is None else 1
    for groups in _abreast(_neighbours(value.axes, lane, masks, together), value.axes, lane):
        parts = [[_store_operand(cx, value, lane, key) for key in group] for group in groups]
        for group, operands in zip(groups, parts, strict=True):
            point = _point(cx, value.axes, lane, group[0])
            pointer = address.pointer(point, lane, clamp=not pad)
            part = concat(cx.b, operands, lane_type(place.dtype), width)

            def write(at: str = pointer, part: str = part, group: list[Key] = group) -> None:
                _store_part(cx, place, at, part, width * len(group), masks[group[0]], nontemporal)

            _where(cx, _rows(cx, value.axes, lane, group[0]) if apart else [], write)


def _where(cx: Context, conditions: list[str], write: Callable[[], None]) -> None:
    """`write()` where all conditions hold."""
    if not conditions:
        write()
        return
    holds = conditions[0]
    for condition in conditions[1:]:
        holds = cx.b.hoist(f"and i1 {holds}, {condition}", holds, condition)
    branch(cx, holds, write, Carry(cx, []))


def _rows(cx: Context, axes: tuple[str, ...], lane: str | None, key: Key) -> list[str]:
    """Whether the rows of a part exist, as far as that is to be asked."""
    point = _point(cx, axes, lane, key)
    return [e for a in axes if a != lane if (e := cx.exists(a, point[a]))]


def _store_mask(cx: Context, axes: tuple[str, ...], lane: str | None, key: Key, pad: bool, apart: bool) -> str | None:
    """Which elements of a part are written: None for all. `apart`: whether its rows exist is asked elsewhere."""
    chunk = 0 if lane is None else key[axes.index(lane)]
    if pad:
        return overhang(cx, lane, chunk)
    mask = None if lane is None else cx.mask(lane, chunk)
    return mask if apart else _and_rows(cx, mask, cx.width(lane), _rows(cx, axes, lane, key))


def _abreast(groups: list[list[Key]], axes: tuple[str, ...], lane: str | None) -> list[list[list[Key]]]:
    """Groups of one place along the lanes together, some at a time: what they read is read before any is written.

    Rows are often a power of two apart. Then a load of one row waits for a store to the place beside it in another,
    since the processor compares the last twelve bits of their addresses.
    """
    if lane is None:
        return [groups[n : n + _ABREAST] for n in range(0, len(groups), _ABREAST)]
    at = axes.index(lane)
    columns: dict[int, list[list[Key]]] = {}
    for group in groups:
        columns.setdefault(group[0][at], []).append(group)
    return [rows[n : n + _ABREAST] for rows in columns.values() for n in range(0, len(rows), _ABREAST)]


def _neighbours(
    axes: tuple[str, ...], lane: str | None, masks: dict[Key, str | None], together: int
) -> list[list[Key]]:
    """Keys in groups whose parts lie side by side and are written whole: 16-bit parts fill a register together."""
    if lane is None or together == 1:
        return [[key] for key in masks]
    at = axes.index(lane)
    groups: list[list[Key]] = []
    for key, mask in masks.items():
        last = groups[-1] if groups else []
        begins = key[at] % together == 0 or not last or mask is not None or masks[last[-1]] is not None
        follows = bool(last) and (*last[-1][:at], last[-1][at] + 1, *last[-1][at + 1 :]) == key
        if begins or not follows:
            groups.append([key])
        else:
            last.append(key)
    return [part for group in groups for part in _powers_of_two(group)]


def _powers_of_two(group: list[Key]) -> list[list[Key]]:
    """A group cut so that each piece is a vector length that can be joined."""
    if len(group) & (len(group) - 1) == 0:
        return [group]
    return [[key] for key in group]


def overhang(cx: Context, lane: str | None, chunk: int) -> str | None:
    """The lanes of a chunk that belong to its tile at all, where the tile ends inside a vector."""
    if lane is None:
        return None
    state = cx.axes[lane]
    first = chunk * state.width
    if first + state.width <= state.extent:
        return None
    return "<" + ", ".join(f"i1 {'true' if first + n < state.extent else 'false'}" for n in range(state.width)) + ">"


def _store_operand(cx: Context, value: Tile, lane: str | None, key: Key) -> str:
    return read(cx, value, dict(zip(value.axes, key, strict=True)), lane)


def _store_part(
    cx: Context, place: Place, pointer: str, part: str, width: int, mask: str | None, nontemporal: bool
) -> None:
    b, dtype = cx.b, place.dtype
    if dtype.name == "bool" and width == 1:
        part, element = b.emit(f"zext i1 {part} to i8"), "i8"
    elif dtype.name == "bool":
        part, element = b.emit(f"zext <{width} x i1> {part} to <{width} x i8>"), "i8"
    else:
        element = scalar_type(dtype)
        if dtype.name == "i64" and width > 1:
            part = b.emit(f"sext <{width} x i32> {part} to <{width} x i64>")
    ty = f"<{width} x {element}>" if width > 1 else element
    if mask is None:
        size = width * dtype.bytes
        if nontemporal and place.align % size == 0:
            b.do(f"store {ty} {part}, ptr {pointer}, align {size}, !nontemporal !0")
        else:
            b.do(f"store {ty} {part}, ptr {pointer}, align {dtype.bytes}")
        return
    if width == 1:
        wide = b.emit(f"insertelement <1 x i1> poison, i1 {mask}, i64 0")
        part = b.emit(f"insertelement <1 x {element}> poison, {element} {part}, i64 0")
        ty, mask = f"<1 x {element}>", wide
    kind = "i8" if dtype.name == "bool" else suffix(dtype)
    name = f"@llvm.masked.store.v{width}{kind}.p0"
    b.declare(f"declare void {name}({ty}, ptr, i32, <{width} x i1>)")
    b.do(f"call void {name}({ty} {part}, ptr {pointer}, i32 {dtype.bytes}, <{width} x i1> {mask})")


__all__ = ["Fetch", "fetcher", "fetching", "lane_type", "load", "masked_load", "store", "vector_type"]
