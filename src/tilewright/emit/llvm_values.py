"""How a tile lies in registers: vectors along one axis (its lanes), one register set per point of the others.

A tile of axes (i, j) with lanes j is a table (i, chunk of j) -> vector. A tile without its lane axis is
a table of scalars. Any reader may ask for a tile with other lanes than it has; the conversions
(broadcast, extract, assemble, transpose) live here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import product

from tilewright.emit.llvm_builder import Builder
from tilewright.emit.llvm_shuffle import transposed
from tilewright.language.dtypes import DType
from tilewright.language.ir import TileType

# bf16 is moved as 16 bits: LLVM converts a `bfloat` to float and back wherever the processor has none. e4m3 as 8 bits.
LLVM_TYPES = {
    "f64": "double",
    "f32": "float",
    "bf16": "i16",
    "f16": "half",
    "f8e4m3": "i8",
    "i64": "i64",
    "w64": "i64",
    "i32": "i32",
    "i8": "i8",
    "bool": "i1",
}

Key = tuple[int, ...]


@dataclass(frozen=True)
class AxisState:
    """One axis while its body is emitted: `extent` points from `base`, of which `count` exist (None: all).

    Points lie `apart` positions from each other.
    """

    name: str
    base: str
    extent: int
    width: int
    count: str | None = None
    each: bool = False
    apart: int = 1

    @property
    def chunks(self) -> int:
        """Vectors that cover the axis when it is the lane axis."""
        return -(-self.extent // self.width)


@dataclass
class Tile:
    """A value: `part(key)` is the LLVM operand for one point (scalars) or one chunk (vectors along `lane`)."""

    type: TileType
    lane: str | None
    part: Callable[[Key], str]
    # A sum still spread over the lanes of a contracted axis: every part is a vector of `spread` partial sums.
    spread: int = 0
    same: str | None = None  # the scalar that every element equals
    source: object = None  # where it was loaded from (llvm_memory.Address), for atoms that read pairs

    @property
    def dtype(self) -> DType:
        return self.type.dtype

    @property
    def axes(self) -> tuple[str, ...]:
        return self.type.axes


def table(type_: TileType, lane: str | None, parts: dict[Key, str], spread: int = 0) -> Tile:
    """A tile whose parts are all in registers."""
    return Tile(type_, lane, parts.__getitem__, spread)


def uniform(type_: TileType, scalar: str) -> Tile:
    """A tile whose elements all equal one scalar."""
    return Tile(type_, None, lambda _key: scalar, same=scalar)


def scalar_type(dtype: DType) -> str:
    """LLVM type of one element."""
    return LLVM_TYPES[dtype.name]


def lane_type(dtype: DType) -> str:
    """LLVM type of one element inside a vector: what is i64 here fits 32 bits (see llvm_wide), so its lanes are i32."""
    return "i32" if dtype.name == "i64" else LLVM_TYPES[dtype.name]


def vector_type(dtype: DType, width: int) -> str:
    """LLVM type of `width` elements."""
    return f"<{width} x {lane_type(dtype)}>" if width > 1 else scalar_type(dtype)


@dataclass
class Context:
    """What the emitter knows at one point of the program."""

    b: Builder
    lanes: tuple[str, ...]  # axes that lie across lanes, first choice first
    vector_bytes: int
    features: frozenset[str]
    axes: dict[str, AxisState] = field(default_factory=dict)
    values: dict[str, Tile] = field(default_factory=dict)

    def lane_of(self, axes: tuple[str, ...]) -> str | None:
        """The axis of `axes` that lies across vector lanes."""
        return next((a for a in self.lanes if a in axes and self.axes[a].extent > 1), None)

    def width(self, lane: str | None) -> int:
        """Elements in one part of a tile with that lane axis."""
        return self.axes[lane].width if lane else 1

    def keys(self, axes: tuple[str, ...], lane: str | None) -> Iterator[Key]:
        """Every part key of a tile with these axes and lanes."""
        return product(*(range(self.axes[a].chunks if a == lane else self.axes[a].extent) for a in axes))

    def mask(self, axis: str, chunk: int) -> str | None:
        """Which lanes of a chunk exist: None for all, else a vector of i1."""
        state = self.axes[axis]
        first, width = chunk * state.width, state.width
        if state.count is None and first + width <= state.extent:
            return None
        count = state.count or str(state.extent)
        if width == 1:
            return self.b.hoist(f"icmp slt i64 {first}, {count}", count)
        if not count.lstrip("-").isdigit():
            short = self.b.hoist(f"trunc i64 {count} to i32", count)
            limit = splat(self, "i32", width, short)
            positions = ", ".join(f"i32 {first + n}" for n in range(width))
            return self.b.hoist(f"icmp slt <{width} x i32> <{positions}>, {limit}", limit)
        bits = ", ".join("i1 true" if first + n < int(count) else "i1 false" for n in range(width))
        return f"<{bits}>"

    def exists(self, axis: str, point: int) -> str | None:
        """Whether one point of an unrolled axis exists: None for yes, else an i1."""
        state = self.axes[axis]
        if state.count is None:
            return None
        return self.b.hoist(f"icmp slt i64 {point}, {state.count}", state.count)


def splat(cx: Context, element: str, width: int, scalar: str) -> str:
    """A vector with `scalar` in every lane."""
    if width == 1:
        return scalar
    if not scalar.startswith("%"):
        return "<" + ", ".join([f"{element} {scalar}"] * width) + ">"
    ty = f"<{width} x {element}>"
    one = cx.b.hoist(f"insertelement {ty} poison, {element} {scalar}, i64 0", scalar)
    return cx.b.hoist(f"shufflevector {ty} {one}, {ty} poison, <{width} x i32> zeroinitializer", one)


def spread_scalar(cx: Context, dtype: DType, width: int, scalar: str) -> str:
    """`scalar` of type `dtype` in every lane, i64 narrowed to the i32 of lanes."""
    if width > 1 and dtype.name == "i64" and scalar.startswith("%"):
        scalar = cx.b.hoist(f"trunc i64 {scalar} to i32", scalar)
    return splat(cx, lane_type(dtype), width, scalar)


def read(cx: Context, tile: Tile, point: dict[str, int], lane: str | None) -> str:
    """The elements of `tile` at `point` along `lane`: `point[lane]` is a chunk, all others are positions.

    A tile that lacks the lane axis is broadcast along it; one with other lanes is converted.
    """
    key = tuple(point[a] for a in tile.axes)
    if tile.lane == lane:
        return tile.part(key)
    width = cx.width(lane)
    if tile.same is not None:
        return spread_scalar(cx, tile.dtype, width, tile.same)
    if lane is None or lane not in tile.axes:
        scalar, vector = _extract(cx, tile, point)
        if lane is None:
            return scalar()
        return vector(width) if vector else spread_scalar(cx, tile.dtype, width, scalar())
    if tile.lane is None:
        return _assemble(cx, tile, point, lane)
    return _transpose(cx, tile, point, lane)


def _extract(cx: Context, tile: Tile, point: dict[str, int]) -> tuple[Callable[[], str], Callable[[int], str] | None]:
    """One element of `tile` as a scalar, and (where it sits in a vector) directly as a broadcast."""
    if tile.lane is None:
        return lambda: tile.part(tuple(point[a] for a in tile.axes)), None
    own = cx.width(tile.lane)
    chunk, inside = divmod(point[tile.lane], own)
    source = tile.part(tuple(chunk if a == tile.lane else point[a] for a in tile.axes))
    if own == 1:
        return lambda: source, None
    ty = vector_type(tile.dtype, own)

    def scalar() -> str:
        element = cx.b.hoist(f"extractelement {ty} {source}, i64 {inside}", source)
        if tile.dtype.name == "i64":
            return cx.b.hoist(f"sext i32 {element} to i64", element)
        return element

    def vector(width: int) -> str:
        lanes = ", ".join([f"i32 {inside}"] * width)
        return cx.b.hoist(f"shufflevector {ty} {source}, {ty} poison, <{width} x i32> <{lanes}>", source)

    return scalar, vector


def _assemble(cx: Context, tile: Tile, point: dict[str, int], lane: str) -> str:
    """Scalars along `lane` gathered into one vector; spread partial sums are added up on the way."""
    state = cx.axes[lane]
    width, first = state.width, point[lane] * state.width
    element, ty = lane_type(tile.dtype), vector_type(tile.dtype, width)
    result = "poison"
    for n in range(min(width, state.extent - first)):
        scalar = tile.part(tuple(first + n if a == lane else point[a] for a in tile.axes))
        if width == 1:
            return scalar
        if tile.dtype.name == "i64" and scalar.startswith("%"):
            scalar = cx.b.hoist(f"trunc i64 {scalar} to i32", scalar)
        result = cx.b.hoist(f"insertelement {ty} {result}, {element} {scalar}, i64 {n}", result, scalar)
    return result


def _transpose(cx: Context, tile: Tile, point: dict[str, int], lane: str) -> str:
    """One vector along `lane` from vectors along another axis: one column of a block of registers."""
    own = tile.lane
    assert own is not None
    state = cx.axes[lane]
    first, width = point[lane] * state.width, state.width
    chunk, column = divmod(point[own], cx.width(own))
    rows = []
    for n in range(width):
        at = {**point, lane: min(first + n, state.extent - 1), own: chunk}
        rows.append(tile.part(tuple(at[a] for a in tile.axes)))
    return transposed(cx.b, rows, lane_type(tile.dtype), cx.width(own))[column]
