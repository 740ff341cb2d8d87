"""Arithmetic on tiles in registers: elementwise operators, reductions, dots."""

from __future__ import annotations

from functools import cache

from tilewright.emit.llvm_halves import convert, has_conversion
from tilewright.emit.llvm_math import emit_map
from tilewright.emit.llvm_memory import suffix
from tilewright.emit.llvm_shuffle import concat, pieces
from tilewright.emit.llvm_values import (
    Context,
    Key,
    Tile,
    lane_type,
    read,
    scalar_type,
    splat,
    spread_scalar,
    table,
    vector_type,
)
from tilewright.emit.llvm_wide import WIDE
from tilewright.language.dtypes import DType, bf16, boolean, f32, i64
from tilewright.language.ir import COMPARISONS, TileType

_FLOAT = {"add": "fadd contract", "sub": "fsub contract", "mul": "fmul contract", "div": "fdiv"}
_INT = {"add": "add", "sub": "sub", "mul": "mul", "and": "and", "or": "or"}
_FCMP = {"lt": "olt", "le": "ole", "gt": "ogt", "ge": "oge", "eq": "oeq", "ne": "une"}
_ICMP = {"lt": "slt", "le": "sle", "gt": "sgt", "ge": "sge", "eq": "eq", "ne": "ne"}
_TRANSCENDENTAL = frozenset({"exp", "exp2", "log", "sqrt", "rsqrt", "tanh", "sigmoid", "erf"})
_IDENTITY = {"sum": 0.0, "max": float("-inf"), "min": float("inf")}
_COMBINE = {"sum": "add", "max": "max", "min": "min"}


def literal(value: float | int, dtype: DType) -> str:
    """A constant as LLVM writes it: floats as the hexadecimal of a double that the type holds exactly."""
    if dtype.kind == "bool":
        return "true" if value else "false"
    if dtype.kind == "int":
        return str(int(value))
    import struct

    rounded = float(dtype.numpy.type(value)) if dtype.name != "f64" else float(value)
    bits = struct.unpack("<Q", struct.pack("<d", rounded))[0]
    if dtype.name == "bf16":
        return str(struct.unpack("<h", struct.pack("<f", rounded)[2:])[0])
    if dtype.name == "f16":
        return f"0xH{struct.unpack('<H', struct.pack('<e', rounded))[0]:04X}"
    if dtype.name == "f8e4m3":
        return str(int(dtype.numpy.type(value).view("i1")))
    return f"0x{bits:016X}"


def identity(op: str, dtype: DType) -> str:
    """The neutral element of a reduction."""
    if dtype.kind == "int" and op != "sum":
        bits = 32 if dtype == i64 else dtype.bits
        return str(-(1 << (bits - 1)) if op == "max" else (1 << (bits - 1)) - 1)
    return literal(_IDENTITY[op], dtype)


# -------------------------------------------------------------------------------------- elementwise
def emit_elementwise(cx: Context, op: str, args: list[Tile], type_: TileType, *, late: bool = False) -> Tile:
    """`op` on every element; operands are broadcast by axis name. `late`: each part where it is first read."""
    lane = cx.lane_of(type_.axes)
    if lane is not None and not any(lane in a.axes for a in args):
        lane = None
    width = cx.width(lane)

    def part(key: Key) -> str:
        point = dict(zip(type_.axes, key, strict=True))
        operands = [_operand(cx, a, point, lane, width) for a in args]
        return apply(cx, op, operands, args[-1].dtype, type_.dtype, width)

    if late:
        return Tile(type_, lane, cache(part))
    if op == "cast" and args[0].dtype.is_storage_only and args[0].dtype.bits == 8:
        return Tile(type_, lane, part)  # where it is read: a tile of them would fill the registers
    return table(type_, lane, {key: part(key) for key in cx.keys(type_.axes, lane)})


def _operand(cx: Context, tile: Tile, point: dict[str, int], lane: str | None, width: int) -> str:
    if lane is not None and lane not in tile.axes and tile.lane is None:
        return spread_scalar(cx, tile.dtype, width, tile.part(tuple(point[a] for a in tile.axes)))
    return read(cx, tile, point, lane)


def apply(cx: Context, op: str, args: list[str], source: DType, target: DType, width: int) -> str:
    """One LLVM instruction (or a few) for `op` on scalars (width 1) or vectors; `source` types the last operand."""
    b, ty = cx.b, vector_type(source, width)
    if op == "cast":
        return cast(cx, args[0], source, target, width)
    if op == "select":
        mask = f"<{width} x i1>" if width > 1 else "i1"
        return b.emit(f"select {mask} {args[0]}, {ty} {args[1]}, {ty} {args[2]}")
    if op in COMPARISONS:
        if source.kind == "float":
            return b.emit(f"fcmp {_FCMP[op]} {ty} {args[0]}, {args[1]}")
        return b.hoist(f"icmp {_ICMP[op]} {ty} {args[0]}, {args[1]}", *args)
    if op == "not":
        ones = splat(cx, "i1", width, "true")
        return b.hoist(f"xor {ty} {args[0]}, {ones}", *args)
    if source.kind == "float":
        return _float(cx, op, args, source, width, ty)
    return _integer(cx, op, args, source, width, ty)


def _float(cx: Context, op: str, args: list[str], dtype: DType, width: int, ty: str) -> str:
    b = cx.b
    if op in _FLOAT:
        return b.emit(f"{_FLOAT[op]} {ty} {args[0]}, {args[1]}")
    if op == "neg":
        return b.emit(f"fneg {ty} {args[0]}")
    if op == "abs":
        return _call(cx, "fabs", dtype, width, args)
    if op in ("max", "min"):  # a NaN in the first operand stays, as in maxps
        wins = b.emit(f"fcmp {'ugt' if op == 'max' else 'ult'} {ty} {args[0]}, {args[1]}")
        mask = f"<{width} x i1>" if width > 1 else "i1"
        return b.emit(f"select {mask} {wins}, {ty} {args[0]}, {ty} {args[1]}")
    if op == "mod":
        quotient = b.emit(f"fdiv {ty} {args[0]}, {args[1]}")
        whole = _call(cx, "floor", dtype, width, [quotient])
        product_ = b.emit(f"fmul {ty} {whole}, {args[1]}")
        return b.emit(f"fsub {ty} {args[0]}, {product_}")
    assert op in _TRANSCENDENTAL, op
    return emit_map(b, op, width, dtype.name, args, cx.features)


def _integer(cx: Context, op: str, args: list[str], dtype: DType, width: int, ty: str) -> str:
    b = cx.b
    if op in _INT:
        return b.hoist(f"{_INT[op]} {ty} {args[0]}, {args[1]}", *args)
    zero = splat(cx, lane_type(dtype) if width > 1 else scalar_type(dtype), width, "0")
    if op == "neg":
        return b.hoist(f"sub {ty} {zero}, {args[0]}", *args)
    if op == "abs":
        minus = b.hoist(f"sub {ty} {zero}, {args[0]}", *args)
        return _pick(cx, "sgt", args[0], minus, ty, width)
    if op in ("max", "min"):
        return _pick(cx, "sgt" if op == "max" else "slt", args[0], args[1], ty, width)
    return _floor_division(cx, op, args, ty, width, zero)


def _pick(cx: Context, predicate: str, x: str, y: str, ty: str, width: int) -> str:
    mask = f"<{width} x i1>" if width > 1 else "i1"
    wins = cx.b.hoist(f"icmp {predicate} {ty} {x}, {y}", x, y)
    return cx.b.hoist(f"select {mask} {wins}, {ty} {x}, {ty} {y}", wins, x, y)


def _floor_division(cx: Context, op: str, args: list[str], ty: str, width: int, zero: str) -> str:
    """Quotient rounded down and the remainder that goes with it, as Python's // and %."""
    b, mask = cx.b, f"<{width} x i1>" if width > 1 else "i1"
    x, y = args
    remainder = b.emit(f"srem {ty} {x}, {y}")
    signs = b.emit(f"xor {ty} {remainder}, {y}")
    opposite = b.emit(f"icmp slt {ty} {signs}, {zero}")
    uneven = b.emit(f"icmp ne {ty} {remainder}, {zero}")
    adjust = b.emit(f"and {mask} {opposite}, {uneven}")
    if op == "mod":
        moved = b.emit(f"add {ty} {remainder}, {y}")
        return b.emit(f"select {mask} {adjust}, {ty} {moved}, {ty} {remainder}")
    quotient = b.emit(f"sdiv {ty} {x}, {y}")
    one = b.emit(f"sext {mask} {adjust} to {ty}")
    return b.emit(f"add {ty} {quotient}, {one}")


def _call(cx: Context, name: str, dtype: DType, width: int, args: list[str]) -> str:
    ty = vector_type(dtype, width)
    full = f"@llvm.{name}.{f'v{width}' if width > 1 else ''}{suffix(dtype)}"
    cx.b.declare(f"declare {ty} {full}({', '.join([ty] * len(args))})")
    return cx.b.emit(f"call {ty} {full}({', '.join(f'{ty} {a}' for a in args)})")


def cast(cx: Context, value: str, source: DType, target: DType, width: int) -> str:
    """`value` in another element type; floats round to nearest even, floats to integers truncate."""
    if source == target or (width > 1 and lane_type(source) == lane_type(target) == "i32"):
        return value
    if {source, target} == {i64, WIDE} and width == 1:
        return value
    old, new = vector_type(source, width), vector_type(target, width)
    if bf16 in (source, target) or not has_conversion(source.name, target.name, cx.features):
        return _convert_halves(cx, value, source, target, width)
    if target == boolean:
        zero = splat(cx, old.split(" x ")[-1].rstrip(">"), width, "0" if source.kind == "int" else literal(0, source))
        return cx.b.emit(f"{'icmp ne' if source.kind == 'int' else 'fcmp une'} {old} {value}, {zero}")
    if source.kind == "float" and target.kind == "float":
        op = "fpext" if target.bits > source.bits else "fptrunc"
    elif source.kind == "float":
        op = "fptosi"
    elif target.kind == "float":
        op = "uitofp" if source == boolean else "sitofp"
    elif source == boolean:
        op = "zext"
    else:
        op = "sext" if _held(target, width) > _held(source, width) else "trunc"
    return cx.b.hoist(f"{op} {old} {value} to {new}", value)


def _held(dtype: DType, width: int) -> int:
    """Bits of an integer in a vector of `width`, or alone."""
    return 32 if width > 1 and lane_type(dtype) == "i32" else dtype.bits


def _convert_halves(cx: Context, value: str, source: DType, target: DType, width: int) -> str:
    """A conversion that LLVM has no one instruction for: by way of f32."""
    if f32 not in (source, target):
        return cast(cx, cast(cx, value, source, f32, width), f32, target, width)
    return convert(cx.b, value, source.name, target.name, width, cx.features)


# --------------------------------------------------------------------------------------- reductions
def combine(cx: Context, op: str, x: str, y: str, dtype: DType, width: int) -> str:
    """The elementwise step of a reduction."""
    return apply(cx, _COMBINE[op], [y, x], dtype, dtype, width)


def select_existing(cx: Context, part: str, mask: str | None, op: str, dtype: DType, width: int) -> str:
    """`part` with the neutral element of `op` where the axis has no element."""
    if mask is None:
        return part
    ty, kind = vector_type(dtype, width), f"<{width} x i1>" if width > 1 else "i1"
    neutral = spread_scalar(cx, dtype, width, identity(op, dtype))
    return cx.b.emit(f"select {kind} {mask}, {ty} {part}, {ty} {neutral}")


def emit_reduce(cx: Context, op: str, arg: Tile, axis: str, type_: TileType, into: Tile | None) -> Tile:
    """Reduce over `axis`. With `into` (parts spread over lanes of `axis`) the lanes are left for later."""
    if arg.lane == axis or into is not None:
        return _reduce_lanes(cx, op, arg, axis, type_, into)
    lane = arg.lane
    width = cx.width(lane)
    parts: dict[Key, str] = {}
    for key in cx.keys(type_.axes, lane):
        point = dict(zip(type_.axes, key, strict=True))
        result = None
        for n in range(cx.axes[axis].extent):
            part = arg.part(tuple({**point, axis: n}[a] for a in arg.axes))
            exists = cx.exists(axis, n)
            mask = None if exists is None else splat(cx, "i1", width, exists)
            part = select_existing(cx, part, mask, op, arg.dtype, width)
            result = part if result is None else combine(cx, op, result, part, arg.dtype, width)
        assert result is not None
        parts[key] = result
    return table(type_, lane, parts)


def _reduce_lanes(cx: Context, op: str, arg: Tile, axis: str, type_: TileType, into: Tile | None) -> Tile:
    width = cx.width(axis)
    parts: dict[Key, str] = {}
    for key in cx.keys(type_.axes, None):
        point = dict(zip(type_.axes, key, strict=True))
        vectors = []
        for chunk in range(cx.axes[axis].chunks):
            part = read(cx, arg, {**point, axis: chunk}, axis)
            vectors.append(select_existing(cx, part, cx.mask(axis, chunk), op, arg.dtype, width))
        held = [] if into is None else pieces(cx.b, into.part(key), lane_type(arg.dtype), width, into.spread)
        count = max(1, len(held))  # accumulators that the sum is split over: each takes every count-th vector
        sums = [_tree(cx, op, [*vectors[n::count], *held[n : n + 1]], arg.dtype, width) for n in range(count)]
        parts[key] = concat(cx.b, sums, lane_type(arg.dtype), width)
    spread = table(type_, None, parts, spread=width if into is None else into.spread)
    return spread if into is not None else fold_lanes(cx, op, spread)


def _tree(cx: Context, op: str, vectors: list[str], dtype: DType, width: int) -> str:
    """All vectors combined, independent ones first."""
    while len(vectors) > 1:
        pairs = [vectors[n : n + 2] for n in range(0, len(vectors), 2)]
        vectors = [combine(cx, op, p[0], p[1], dtype, width) if len(p) == 2 else p[0] for p in pairs]
    return vectors[0]


def _joined(cx: Context, op: str, tile: Tile) -> Tile:
    """The several accumulators of a split sum as one: a spread tile whose parts are single registers."""
    width = cx.vector_bytes // 4
    if tile.spread <= width:
        return tile
    parts = {}
    for key in cx.keys(tile.axes, None):
        split = pieces(cx.b, tile.part(key), lane_type(tile.dtype), width, tile.spread)
        parts[key] = _tree(cx, op, split, tile.dtype, width)
    return table(tile.type, None, parts, spread=width)


def fold_lanes(cx: Context, op: str, tile: Tile) -> Tile:
    """Sum up (or max, min) the lanes of every part of a spread tile.

    Where the result has an axis to lie along, the vectors of a whole chunk are folded into one together.
    """
    tile = _joined(cx, op, tile)
    lane = cx.lane_of(tile.axes)
    parts: dict[Key, str] = {}
    if lane is None or tile.spread == 1:
        for key in cx.keys(tile.axes, None):
            parts[key] = _fold(cx, op, [tile.part(key)], tile.dtype, tile.spread)
        return table(tile.type, None, parts)
    state = cx.axes[lane]
    position = tile.axes.index(lane)
    for key in cx.keys(tile.axes, lane):
        first = key[position] * state.width
        points = [min(first + n, state.extent - 1) for n in range(state.width)]
        rows = [tile.part((*key[:position], p, *key[position + 1 :])) for p in points]
        groups = [rows[n : n + tile.spread] for n in range(0, len(rows), tile.spread)]
        folded = [_fold(cx, op, group, tile.dtype, tile.spread) for group in groups]
        parts[key] = concat(cx.b, folded, lane_type(tile.dtype), min(tile.spread, len(rows)))
    return table(tile.type, lane, parts)


def _fold(cx: Context, op: str, rows: list[str], dtype: DType, width: int) -> str:
    """Lane n of the result is the fold of all lanes of row n; log2 passes, each halving the vectors or the lanes."""
    if width == 1:
        return rows[0]
    if len(rows) > width:  # more rows than a vector has lanes: a vector of results for each group of rows
        groups = [_fold(cx, op, rows[n : n + width], dtype, width) for n in range(0, len(rows), width)]
        return concat(cx.b, groups, lane_type(dtype), width)
    block, count = width, len(rows)
    while len(rows) > 1:  # exchange halves of blocks between rows n and n + len/2, then combine
        middle = len(rows) // 2
        rows = [_fold_pair(cx, op, rows[n], rows[n + middle], dtype, width, block) for n in range(middle)]
        block = block // 2
    while block > 1:
        rows = [_fold_within(cx, op, rows[0], dtype, width, block)]
        block = block // 2
    if count == 1:
        one = cx.b.emit(f"extractelement {vector_type(dtype, width)} {rows[0]}, i64 0")
        return cx.b.emit(f"sext i32 {one} to i64") if dtype.name == "i64" else one
    return (
        _lanes(cx, rows[0], rows[0], list(range(0, width, width // count)), dtype, width) if count < width else rows[0]
    )


def _fold_pair(cx: Context, op: str, x: str, y: str, dtype: DType, width: int, block: int) -> str:
    """Blocks of `block` lanes: the lower half gets x's fold, the upper half y's."""
    half = block // 2
    low = [n if n % block < half else width + n - half for n in range(width)]
    high = [n + half if n % block < half else width + n for n in range(width)]
    a, c = _lanes(cx, x, y, low, dtype, width), _lanes(cx, x, y, high, dtype, width)
    return combine(cx, op, a, c, dtype, width)


def _fold_within(cx: Context, op: str, x: str, dtype: DType, width: int, block: int) -> str:
    half = block // 2
    other = [n + half if n % block < half else n for n in range(width)]
    return combine(cx, op, x, _lanes(cx, x, x, other, dtype, width), dtype, width)


def _lanes(cx: Context, x: str, y: str, lanes: list[int], dtype: DType, width: int) -> str:
    ty, picks = vector_type(dtype, width), ", ".join(f"i32 {n}" for n in lanes)
    return cx.b.emit(f"shufflevector {ty} {x}, {ty} {y}, <{len(lanes)} x i32> <{picks}>")
