"""What an author's variables hold while a kernel is traced: tiles, axes, tensors and scalars.

A handle names a value of the program and emits statements when it is used. It holds no data, so it has
no truth value; use `where` in place of `if`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NoReturn

from tilewright.errors import CarriedTypeError, DTypeError, LanguageError, RaceError, ShapeError, UndefinedDimError
from tilewright.language import ir
from tilewright.language.dtypes import DType, boolean, dtype, f32, i64
from tilewright.language.printer import show_type
from tilewright.language.tracer import Block, Trace, fail

Number = int | float


class Operand:
    """Anything that arithmetic takes: `as_tile()` gives its value as a tile."""

    __hash__ = object.__hash__

    def as_tile(self) -> Tile:
        raise NotImplementedError

    def __bool__(self) -> bool:  # noqa: PLE0304 (it raises)
        fail(LanguageError, "a tile has no truth value while the kernel is traced; use where(condition, x, y)")

    def __iter__(self) -> NoReturn:
        fail(LanguageError, "a tile cannot be iterated; loop with `for i in tiles(dim)` and load one tile at a time")

    def __add__(self, other: Operable) -> Tile:
        return elementwise("add", self, other)

    def __radd__(self, other: Operable) -> Tile:
        return elementwise("add", other, self)

    def __sub__(self, other: Operable) -> Tile:
        return elementwise("sub", self, other)

    def __rsub__(self, other: Operable) -> Tile:
        return elementwise("sub", other, self)

    def __mul__(self, other: Operable) -> Tile:
        return elementwise("mul", self, other)

    def __rmul__(self, other: Operable) -> Tile:
        return elementwise("mul", other, self)

    def __truediv__(self, other: Operable) -> Tile:
        return _divide(self, other)

    def __rtruediv__(self, other: Operable) -> Tile:
        return _divide(other, self)

    def __floordiv__(self, other: Operable) -> Tile:
        return _integers_only("div", "//", self, other)

    def __rfloordiv__(self, other: Operable) -> Tile:
        return _integers_only("div", "//", other, self)

    def __mod__(self, other: Operable) -> Tile:
        return _integers_only("mod", "%", self, other)

    def __rmod__(self, other: Operable) -> Tile:
        return _integers_only("mod", "%", other, self)

    def __neg__(self) -> Tile:
        return elementwise("neg", self)

    def __abs__(self) -> Tile:
        return elementwise("abs", self)

    def __lt__(self, other: Operable) -> Tile:
        return elementwise("lt", self, other)

    def __le__(self, other: Operable) -> Tile:
        return elementwise("le", self, other)

    def __gt__(self, other: Operable) -> Tile:
        return elementwise("gt", self, other)

    def __ge__(self, other: Operable) -> Tile:
        return elementwise("ge", self, other)

    def __eq__(self, other: Operable) -> Tile:  # type: ignore[override]
        return elementwise("eq", self, other)

    def __ne__(self, other: Operable) -> Tile:  # type: ignore[override]
        return elementwise("ne", self, other)

    def __and__(self, other: Operable) -> Tile:
        return elementwise("and", self, other)

    def __or__(self, other: Operable) -> Tile:
        return elementwise("or", self, other)

    def __invert__(self) -> Tile:
        return elementwise("not", self)


Operable = Operand | Number


@dataclass(eq=False)
class Axis(Operand):
    """A tile's worth of positions of dimension `dim`; in arithmetic it stands for those positions (i64)."""

    name: str
    dim: str
    block: Block
    each: bool = False

    def __repr__(self) -> str:
        return f"Axis {self.name} over {self.dim}"

    def as_tile(self) -> Tile:
        return coord(self)


@dataclass(eq=False)
class Tile(Operand):
    """A value: `dtype` and `axes` in order. `deps` are the loop axes that it depends on."""

    name: str
    dtype: DType
    axes: tuple[Axis, ...]
    block: Block
    deps: frozenset[str]
    # The order of axes in the program where `.T` has only renamed the order here.
    stored: tuple[Axis, ...] = field(default=(), repr=False)

    @property
    def type(self) -> ir.TileType:
        """Element type and axis names, as the program defines them."""
        return tile_type(self.dtype, self.stored)

    def __repr__(self) -> str:
        return f"Tile {self.name}: {show_type(self.type)}"

    def as_tile(self) -> Tile:
        if self.block not in Trace.current().blocks:
            _out_of_scope(self)
        return self

    @property
    def T(self) -> Tile:
        """The tile with its last two axes swapped."""
        if len(self.axes) < 2:
            fail(ShapeError, f".T swaps the last two axes, but this tile is {show_type(self.type)}")
        swapped = (*self.axes[:-2], self.axes[-1], self.axes[-2])
        return Tile(self.name, self.dtype, swapped, self.block, self.deps, self.stored)

    def to(self, target: str | DType) -> Tile:
        """The tile with each element converted to dtype `target`."""
        return convert(self.as_tile(), element_type(target))

    def sum(self, axis: Axis | str) -> Tile:
        """The sum over `axis`: f32 (f64 for f64), or the integer type."""
        return _reduce("sum", self, axis)

    def max(self, axis: Axis | str) -> Tile:
        """The largest element along `axis`."""
        return _reduce("max", self, axis)

    def min(self, axis: Axis | str) -> Tile:
        """The smallest element along `axis`."""
        return _reduce("min", self, axis)

    def update(self, value: Operable) -> NoReturn:
        """Only a carried tile can be updated."""
        fail(LanguageError, f"{self.name} is not carried; make it with zeros(...) or full(...), then .update(value)")

    def __getitem__(self, key: object) -> NoReturn:
        fail(ShapeError, f"{self.name} is a tile already; only tensors are indexed")


class Carried(Tile):
    """A tile that loops may update, in place: `acc += x`, `acc.update(x)`. Made by `zeros` and `full`."""

    @property
    def T(self) -> Tile:
        """The tile as it is now, with its last two axes swapped."""
        view = super().T
        return emit(ir.Permute(self.name), self.dtype, view.axes, "t", deps=self.deps)

    def update(self, value: Operable) -> Carried:  # type: ignore[override]
        """Give this tile the value `value`, of the same dtype and axes. Returns itself."""
        new = as_tile(value, self.dtype)
        own = self.as_tile()
        if new.dtype != own.dtype or set(names(new.axes)) != set(names(own.axes)):
            message = f"{own.name} is carried as {show_type(own.type)} but its new value is {show_type(new.type)}"
            fix = f"convert with .to({own.dtype}), or carry it" if new.dtype != own.dtype else "reduce it, or carry it"
            fail(CarriedTypeError, f"{message}; {fix} as {show_type(new.type)} from the start")
        for block in _blocks_inside(self.block):
            if block.parallel:
                over = ", ".join(axis.name for axis in block.axes)
                fail(RaceError, f"iterations of parallel({over}) all update {own.name}; make it inside that loop")
        Trace.current().emit(ir.Assign(own.name, ordered(new, own.stored).name))
        self.deps |= new.deps.union(*(_axis_names(block) for block in _blocks_inside(self.block)))
        return self

    def __iadd__(self, other: Operable) -> Carried:
        return self.update(self + other)

    def __isub__(self, other: Operable) -> Carried:
        return self.update(self - other)

    def __imul__(self, other: Operable) -> Carried:
        return self.update(self * other)

    def __itruediv__(self, other: Operable) -> Carried:
        return self.update(self / other)


@dataclass(eq=False)
class ScalarParam(Operand):
    """A scalar parameter."""

    name: str
    dtype: DType

    def as_tile(self) -> Tile:
        return emit(ir.Full(self.name), self.dtype, (), self.name)

    def to(self, target: str | DType) -> Tile:
        """The scalar converted to dtype `target`."""
        return self.as_tile().to(target)


# ------------------------------------------------------------------------------------------ emission


def elementwise(op: str, *args: Operable) -> Tile:
    """`op` on operands broadcast by axis name; bf16, f16 and fp8 are computed in f32."""
    operands = [a.as_tile() if isinstance(a, Operand) else a for a in args]
    compute = common_dtype(op, operands)
    tiles = [convert(as_tile(x, compute), compute) for x in operands]
    result = boolean if op in ir.COMPARISONS else compute
    return emit_map(op, result, tiles)


def coord(axis: Axis | str) -> Tile:
    """The position of each element along `axis`, counted from the start of its dimension (i64)."""
    axis = axis_handle(axis)
    return emit(ir.Coord(axis.name), i64, () if axis.each else (axis,), f"pos_{axis.name}", deps=loop_deps([axis]))


def whole(dim: str) -> Axis:
    """All of dimension `dim`, as one axis without a loop."""
    return Axis(known_dim(dim), dim, Trace.current().blocks[0])


def as_tile(x: Operable, number_dtype: DType) -> Tile:
    """`x` as a tile; a Python number becomes a constant of `number_dtype`."""
    if isinstance(x, Operand):
        return x.as_tile()
    if not isinstance(x, (int, float)):
        fail(LanguageError, f"{type(x).__name__} is not a tile; index a tensor, or use a number")
    return emit(ir.Full(constant(x, number_dtype)), number_dtype, (), "c")


def constant(value: Number, dtype: DType) -> Number:
    """`value` as a number of the kind of `dtype`; DTypeError where that would change it."""
    if dtype.kind == "float":
        return float(value)
    if isinstance(value, float) and not value.is_integer():
        fail(DTypeError, f"{value!r} is not a value of {dtype}; use a float dtype or convert the tile with .to(f32)")
    if dtype.kind == "int" and not -(1 << (dtype.bits - 1)) <= value < 1 << (dtype.bits - 1):
        fail(DTypeError, f"{value!r} does not fit {dtype}; convert the tile with .to(i64), or use a smaller number")
    return int(value)


def convert(tile: Tile, target: DType) -> Tile:
    """`tile` cast to `target`; itself where it has that dtype."""
    if tile.dtype == target:
        return tile
    base = tile.name.rstrip("_0123456789") + "_"
    return emit(ir.Map("cast", (tile.name,)), target, tile.axes, base, deps=tile.deps, operands=[tile])


def element_type(name: str | DType) -> DType:
    """The DType called `name`; the author's DTypeError if there is none."""
    try:
        return dtype(name)
    except DTypeError as error:
        fail(DTypeError, str(error))


def axis_handle(axis: Axis | str) -> Axis:
    """The axis, or the whole of the dim called `axis`, checked to be in scope."""
    if isinstance(axis, str):
        return whole(axis)
    if not isinstance(axis, Axis):
        fail(ShapeError, f"{axis!r} is not an axis; use one that parallel(), tiles() or whole() gave")
    if axis.block not in Trace.current().blocks:
        fail(
            ShapeError, f"axis {axis.name} over {axis.dim} is used outside its loop; use it inside, or open a new loop"
        )
    return axis


def common_dtype(op: str, operands: Iterable[Tile | Number]) -> DType:
    """The dtype in which `op` computes on `operands`."""
    operands = list(operands)
    dtypes = [x.dtype for x in operands if isinstance(x, Tile)]
    numbers = [x for x in operands if not isinstance(x, Tile)]
    if not dtypes:
        fail(DTypeError, f"{op} of Python numbers alone; compute it in Python (math.{op}) or make one a tile")
    kinds = {t.kind for t in dtypes}
    given = ", ".join(sorted({t.name for t in dtypes}))
    if len(kinds) > 1:
        fail(DTypeError, f"{op} mixes {given}; convert one of them with .to(dtype)")
    if ("bool" in kinds) != (op in ir.LOGICAL):
        fix = "compare first, as in `x > 0`" if op in ir.LOGICAL else "use where(condition, x, y) or .to(i32)"
        fail(DTypeError, f"{op} does not take {given}; {fix}")
    if kinds == {"int"} and (op in ir.FLOAT_ONLY or any(isinstance(x, float) for x in numbers)):
        fail(DTypeError, f"{op} needs floats but was given {given}; convert with .to(f32)")
    widest = max(dtypes, key=lambda t: t.bits)
    return f32 if widest.is_storage_only else widest


def _divide(x: Operable, y: Operable) -> Tile:
    if any(a.as_tile().dtype.kind == "int" for a in (x, y) if isinstance(a, Operand)):
        fail(DTypeError, "/ divides floats; use // for integers, or convert with .to(f32)")
    return elementwise("div", x, y)


def _integers_only(op: str, sign: str, x: Operable, y: Operable) -> Tile:
    if any(a.as_tile().dtype.kind != "int" for a in (x, y) if isinstance(a, Operand)):
        fail(DTypeError, f"{sign} takes integers; convert with .to(i64), or use / for floats")
    return elementwise(op, x, y)


def _reduce(op: str, tile: Tile, axis: Axis | str) -> Tile:
    tile, axis = tile.as_tile(), axis_handle(axis)
    if axis.name not in names(tile.axes):
        fail(ShapeError, f".{op} over {axis.name}, but the tile has axes [{shown(tile.axes)}]; name one of them")
    compute = common_dtype(op, [tile])
    tile = convert(ordered(tile, tile.axes), compute)
    rest = tuple(a for a in tile.axes if a.name != axis.name)
    return emit(ir.Reduce(op, tile.name, axis.name), compute, rest, op, deps=tile.deps, operands=[tile])


def emit_map(op: str, result: DType, tiles: list[Tile]) -> Tile:
    """`op` on tiles whose dtypes are settled, broadcast by axis name."""
    deps = frozenset[str]().union(*(t.deps for t in tiles))
    # The condition of a select comes first, but the chosen tiles give the order.
    return emit(ir.Map(op, names(tiles)), result, _broadcast([*tiles[-2:], *tiles]), op, deps=deps, operands=tiles)


def _broadcast(tiles: list[Tile]) -> tuple[Axis, ...]:
    """The union of axes: in the order of the first operand that has them all, else outer loops first."""
    union = {axis.name: axis for tile in tiles for axis in tile.axes}
    for tile in tiles:
        if len(tile.axes) == len(union):
            return tile.axes
    blocks = Trace.current().blocks
    depth = {axis.name: i for i, block in enumerate(blocks) for axis in block.axes}
    return tuple(sorted(union.values(), key=lambda axis: depth.get(axis.name, len(blocks))))


def emit(
    expr: ir.Expr,
    dtype: DType,
    axes: tuple[Axis, ...],
    base: str,
    *,
    deps: frozenset[str] = frozenset(),
    operands: Iterable[Tile] = (),
) -> Tile:
    """The handle of `expr`: a new Let, or the one in scope that computes the same thing."""
    trace = Trace.current()
    key = (expr, tile_type(dtype, axes))
    pure = not isinstance(expr, (ir.Load, ir.Permute)) and not any(isinstance(t, Carried) for t in operands)
    # 0.0 == -0.0 but they are not the same constant.
    pure = pure and not (isinstance(expr, ir.Full) and expr.value == 0 and str(expr.value).startswith("-"))
    if pure:
        for block in reversed(trace.blocks):
            if key in block.seen:
                found: Tile = block.seen[key]
                return found
    name = trace.fresh(base)
    trace.emit(ir.Let(name, key[1], expr))
    tile = Tile(name, dtype, axes, trace.blocks[-1], deps | loop_deps(axes), axes)
    if pure:
        trace.blocks[-1].seen[key] = tile
    return tile


def ordered(tile: Tile, axes: tuple[Axis, ...]) -> Tile:
    """`tile` with its axes stored in the order of `axes`."""
    if names(tile.stored) == names(axes):
        return tile
    return emit(ir.Permute(tile.name), tile.dtype, axes, "t", deps=tile.deps)


def known_dim(dim: str) -> str:
    dims = Trace.current().dims
    if dim not in dims:
        fail(UndefinedDimError, f"no tensor has a dimension {dim!r}; the kernel's dimensions are {', '.join(dims)}")
    return dim


def _blocks_inside(block: Block) -> list[Block]:
    blocks = Trace.current().blocks
    return blocks[blocks.index(block) + 1 :]


def _axis_names(block: Block) -> set[str]:
    return {axis.name for axis in block.axes}


def loop_deps(axes: Iterable[Axis]) -> frozenset[str]:
    root = Trace.current().blocks[0]
    return frozenset(a.name for a in axes if a.block is not root)


def _out_of_scope(tile: Tile) -> NoReturn:
    loop = f"the loop over {tile.block.axes[0].over}" if tile.block.axes else "another kernel"
    message = (
        f"{tile.name} was defined inside {loop} and is used after it; carry it instead: make it with zeros(...) "
        "or full(...) before the loop and change it with += or .update(value)"
    )
    fail(LanguageError, message)


def tile_type(dtype: DType, axes: tuple[Axis, ...]) -> ir.TileType:
    return ir.TileType(dtype, names(axes))


def names(handles: Iterable[Axis | Tile]) -> tuple[str, ...]:
    """The names of axes or tiles."""
    return tuple(h.name for h in handles)


def shown(axes: tuple[Axis, ...]) -> str:
    return ", ".join(f"{a.name} over {a.dim}" if a.name != a.dim else a.name for a in axes)
