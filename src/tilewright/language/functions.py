"""The functions an author calls on tiles: `dot`, `where`, `zeros`, elementwise maths, sizes."""

from __future__ import annotations

from tilewright.errors import DTypeError, ShapeError
from tilewright.language import ir
from tilewright.language.dtypes import DType, boolean, f32, f64, i32, i64
from tilewright.language.handles import (
    Axis,
    Carried,
    Operable,
    Operand,
    Tile,
    as_tile,
    axis_handle,
    common_dtype,
    constant,
    convert,
    element_type,
    elementwise,
    emit,
    emit_map,
    known_dim,
    names,
    shown,
    tile_type,
)
from tilewright.language.tracer import Trace, fail


def where(condition: Operable, x: Operable, y: Operable) -> Tile:
    """`x` where `condition` (bool) holds, else `y`."""
    chosen = as_tile(condition, boolean)
    if chosen.dtype != boolean:
        fail(DTypeError, f"where takes a bool condition, not {chosen.dtype}; compare first, as in `x > 0`")
    if not isinstance(x, Operand) and not isinstance(y, Operand):
        x = as_tile(x, f32 if isinstance(x, float) or isinstance(y, float) else i64)
    operands = [a.as_tile() if isinstance(a, Operand) else a for a in (x, y)]
    kinds = {a.dtype for a in operands if isinstance(a, Tile)}
    compute = boolean if kinds == {boolean} else common_dtype("select", operands)
    return emit_map("select", compute, [chosen, *(convert(as_tile(a, compute), compute) for a in operands)])


def dot(a: Tile, b: Tile, *, precision: str | None = None) -> Tile:
    """Sum over the axis that ends `a` and starts `b`: (.., m, k) x (k, n) -> (.., m, n).

    Accumulates in f32 (f64 for f64, i32 for i8). Operands of one dtype are taken as they are; of two
    float dtypes both are computed in f32 (or f64). With `precision` "tf32" a machine may take operands of f32 with
    ten bits of mantissa, each up to 2^-10 of itself smaller than it is: matrix units multiply such.
    """
    a, b = as_tile(a, f32), as_tile(b, f32)
    if not a.axes or not b.axes or a.axes[-1].name != b.axes[0].name:
        operands = f"[{shown(a.axes)}] x [{shown(b.axes)}]"
        fail(
            ShapeError,
            f"dot sums over the axis that ends its left and starts its right operand, not {operands}; use .T",
        )
    over = a.axes[-1]
    rest = (*a.axes[:-1], *b.axes[1:])
    if len(set(names(rest))) < len(rest):
        fail(ShapeError, f"both operands of dot have an axis besides {over.name}; visit it with each(...) in a loop")
    if a.dtype != b.dtype:
        compute = common_dtype("dot", [a, b])
        a, b = convert(a, compute), convert(b, compute)
    if a.dtype.kind != "float" and a.dtype.name != "i8":
        fail(DTypeError, f"dot multiplies float or i8 tiles, not {a.dtype}; convert with .to(f32)")
    if precision is not None and precision not in ir.PRECISIONS:
        fail(DTypeError, f"dot knows no precision {precision!r}; take one of {', '.join(ir.PRECISIONS)}, or None")
    if precision is not None and a.dtype != f32:
        fail(DTypeError, f"dot with precision {precision} takes f32 tiles, not {a.dtype}; leave the precision away")
    product = ir.Dot(a.name, b.name, over.name, precision or "")
    return emit(product, sum_type(a.dtype), rest, "dot", deps=a.deps | b.deps, operands=(a, b))


def sum_type(dtype: DType) -> DType:
    """The type in which `dot` adds up products of that type: i32 for i8, f64 for f64, else f32."""
    return {"f64": f64, "i8": i32}.get(dtype.name, f32)


def zeros(*axes: Axis | str, dtype: str | DType = f32) -> Carried:
    """A tile of zeros that loops may update."""
    return full(*axes, value=0, dtype=dtype)


def full(*axes: Axis | str, value: Operable, dtype: str | DType = f32) -> Carried:
    """A tile with every element `value` (a number or a scalar) that loops may update."""
    target = element_type(dtype)
    atom, deps = _full_atom(value, target)
    over = tuple(_tile_axis(axis) for axis in axes)
    trace = Trace.current()
    name = trace.fresh("acc")
    trace.emit(ir.Let(name, tile_type(target, over), ir.Full(atom)))
    return Carried(name, target, over, trace.blocks[-1], deps, over)


def size(dim: str) -> Tile:
    """The size of dimension `dim` (i64)."""
    return emit(ir.Full(known_dim(dim)), i64, (), f"size_{dim}")


def maximum(x: Operable, y: Operable) -> Tile:
    """The larger of `x` and `y`, element by element."""
    return elementwise("max", x, y)


def minimum(x: Operable, y: Operable) -> Tile:
    """The smaller of `x` and `y`, element by element."""
    return elementwise("min", x, y)


def exp(x: Operable) -> Tile:
    """e to the power x."""
    return elementwise("exp", x)


def exp2(x: Operable) -> Tile:
    """2 to the power x."""
    return elementwise("exp2", x)


def log(x: Operable) -> Tile:
    """The natural logarithm."""
    return elementwise("log", x)


def sqrt(x: Operable) -> Tile:
    """The square root."""
    return elementwise("sqrt", x)


def rsqrt(x: Operable) -> Tile:
    """1 / sqrt(x)."""
    return elementwise("rsqrt", x)


def tanh(x: Operable) -> Tile:
    """The hyperbolic tangent."""
    return elementwise("tanh", x)


def sigmoid(x: Operable) -> Tile:
    """1 / (1 + exp(-x))."""
    return elementwise("sigmoid", x)


def erf(x: Operable) -> Tile:
    """The error function."""
    return elementwise("erf", x)


def _full_atom(value: Operable, target: DType) -> tuple[ir.Atom, frozenset[str]]:
    """What `full` repeats: a number of the kind of `target`, or the name of a scalar; and what it depends on."""
    if isinstance(value, Operand):
        tile = convert(value.as_tile(), target)
        if tile.axes:
            fail(ShapeError, f"full takes a number or a scalar, not a tile with axes [{shown(tile.axes)}]")
        return tile.name, tile.deps
    return constant(value, target), frozenset()


def _tile_axis(axis: Axis | str) -> Axis:
    axis = axis_handle(axis)
    if axis.each:
        fail(ShapeError, f"{axis.name} is a single position (each), not an axis of a tile; leave it out")
    return axis
