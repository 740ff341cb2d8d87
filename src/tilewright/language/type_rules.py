"""What type each expression has, and which place each ref may name: the checks behind two rules of the verifier."""

from __future__ import annotations

from collections.abc import Iterator

from tilewright.language import ir
from tilewright.language.dtypes import DType, boolean, f32, f64, i32, i64
from tilewright.language.printer import show_ref, show_type
from tilewright.language.scopes import Scope


def type_problems(let: ir.Let, scope: Scope) -> Iterator[str]:
    """Why the type of `let` is not that of its expression; nothing where its operands are unknown."""
    expr = let.expr
    named = () if isinstance(expr, (ir.Full, ir.Coord, ir.Load)) else ir.operands(expr)
    if any(name not in scope.values for name in named):
        return
    args = tuple(scope.values[name].type for name in named)
    match expr:
        case ir.Full(value):
            yield from _full(value, let.type, scope)
        case ir.Coord(axis):
            yield from _expect(let.type, ir.TileType(i64, () if scope.is_point(axis) else (axis,)))
        case ir.Load(ref) if ref.buffer in scope.buffers:
            yield from _expect(let.type, ir.TileType(scope.buffers[ref.buffer].dtype, scope.ref_axes(ref)))
        case ir.Map(op, _):
            yield from _map(op, args, let.type)
        case ir.Reduce(op, _, axis):
            yield from _reduce(op, args[0], axis, let.type)
        case ir.Dot(_, _, axis, precision):
            yield from _dot(args[0], args[1], axis, let.type)
            if precision and (precision not in ir.PRECISIONS or args[0].dtype != f32):
                yield f"dot as {precision} takes operands of f32 and one of {', '.join(ir.PRECISIONS)}"
        case ir.Permute(_):
            if set(args[0].axes) != set(let.type.axes) or args[0].dtype != let.type.dtype:
                yield f"permute keeps the axes of {show_type(args[0])}"


def _expect(have: ir.TileType, want: ir.TileType) -> Iterator[str]:
    if have != want:
        yield f"the type is {show_type(have)} but the value {show_type(want)}"


def _full(value: ir.Atom, tile_type: ir.TileType, scope: Scope) -> Iterator[str]:
    dtype = tile_type.dtype
    if isinstance(value, str):
        given = scope.values[value].type if value in scope.values else None
        source = given.dtype if given else scope.scalar_dtype(value)
        if given and given.axes:
            yield f"full repeats a scalar, but {value} is {show_type(given)}"
        if source is not None and source != dtype:
            yield f"{value} is {source}, the type {dtype}"
        if source is None and value in scope.dims and dtype != i64:
            yield f"the size of {value} is i64, the type {dtype}"
    elif dtype.kind != "float" and not isinstance(value, int):
        yield f"{value} is not a value of {dtype}"


def _map(op: str, args: tuple[ir.TileType, ...], result: ir.TileType) -> Iterator[str]:
    if op not in ir.MAPS:
        yield f"{op} is no elementwise operator"
        return
    if len(args) != ir.MAPS[op]:
        yield f"{op} takes {ir.MAPS[op]} operands, not {len(args)}"
        return
    if set(result.axes) != {axis for arg in args for axis in arg.axes}:
        yield f"{op} broadcasts its operands to other axes than {show_type(result)}"
    dtypes = [arg.dtype for arg in args]
    if op == "select":
        if dtypes.pop(0) != boolean:
            yield "the condition of a select is bool"
        # Bools may be chosen, as numbers are.
        yield from _computes(op, [d for d in dtypes if d != boolean], result.dtype)
    if op != "cast" and len(set(dtypes)) > 1:
        yield f"{op} mixes {', '.join(sorted(d.name for d in set(dtypes)))}; cast one of them"
    want = boolean if op in ir.COMPARISONS else dtypes[0]
    if op != "cast" and result.dtype != want:
        yield f"{op} of {dtypes[0]} is {want}, not {result.dtype}"
    if op not in ("cast", "select"):
        yield from _computes(op, dtypes, result.dtype)


def _computes(op: str, dtypes: list[DType], result: DType) -> Iterator[str]:
    """Whether `op` is defined on `dtypes`."""
    for dtype in dict.fromkeys(dtypes):
        if dtype.is_storage_only:
            yield f"{op} of {dtype}, which is a storage format; cast it to f32"
        if (dtype == boolean) != (op in ir.LOGICAL):
            yield f"{op} does not take {dtype}"
        if dtype.kind != "float" and op in ir.FLOAT_ONLY:
            yield f"{op} takes floats, not {dtype}"


def _reduce(op: str, arg: ir.TileType, axis: str, result: ir.TileType) -> Iterator[str]:
    if op not in ir.REDUCTIONS:
        yield f"{op} is no reduction; use one of {', '.join(ir.REDUCTIONS)}"
    if axis not in arg.axes:
        yield f"{show_type(arg)} has no axis {axis} to reduce"
        return
    if arg.dtype.is_storage_only or arg.dtype == boolean:
        yield f"reduce of {arg.dtype}; cast it to f32 or an integer"
    yield from _expect(result, ir.TileType(arg.dtype, tuple(a for a in arg.axes if a != axis)))


def _dot(a: ir.TileType, b: ir.TileType, axis: str, result: ir.TileType) -> Iterator[str]:
    if axis not in a.axes or axis not in b.axes:
        yield f"{show_type(a)} and {show_type(b)} do not both have axis {axis}"
        return
    if a.dtype != b.dtype or (a.dtype.kind != "float" and a.dtype.name != "i8"):
        yield f"dot takes two operands of one float dtype, or of i8, not {a.dtype} and {b.dtype}"
    rest = tuple(x for x in (*a.axes, *b.axes) if x != axis)
    if len(set(rest)) < len(rest):
        yield f"both operands have an axis besides {axis}"
    yield from _expect(result, ir.TileType({"f64": f64, "i8": i32}.get(a.dtype.name, f32), rest))


def ref_problems(ref: ir.Ref, scope: Scope) -> Iterator[str]:
    """Why `ref` may not name a place; nothing where its buffer is unknown."""
    if ref.buffer not in scope.buffers:
        return
    dims = scope.buffers[ref.buffer].dims
    if len(dims) != len(ref.index):
        yield f"{show_ref(ref)} has {len(ref.index)} indices for the dimensions [{', '.join(map(str, dims))}]"
        return
    for index, dim in zip(ref.index, dims, strict=True):
        yield from _index(index, dim, scope)
    axes = [index for index in ref.index if isinstance(index, str) and index not in scope.values]
    for axis in sorted({a for a in axes if axes.count(a) > 1 and not scope.is_point(a)}):
        yield f"axis {axis} indexes {ref.buffer} twice"


def _index(index: ir.Index, dim: ir.Dim, scope: Scope) -> Iterator[str]:
    if isinstance(index, int):
        if index < 0 or (isinstance(dim, int) and index >= dim):
            yield f"position {index} is outside dimension {dim}"
    elif index in scope.values:
        dtype = scope.values[index].type.dtype
        if dtype.kind != "int":
            yield f"index {index} is {dtype}, not an integer"
    elif index not in scope.axes and index not in scope.dims:
        yield f"index {index} is no axis, dimension or value in scope"
    elif dim not in scope.lineage(index):
        yield f"{index} is no range of dimension {dim}"
