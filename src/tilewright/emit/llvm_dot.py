"""Dots on tiles in registers: inner and outer products, by the atom that the design names."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby, product

from tilewright.design.atoms import AT_ONCE, PORTION
from tilewright.emit.llvm_compute import cast, fold_lanes, select_existing
from tilewright.emit.llvm_memory import suffix
from tilewright.emit.llvm_pairs import BYTES, HALVES, Known, Pairs, pair_operand, row_operand
from tilewright.emit.llvm_shuffle import concat, pieces
from tilewright.emit.llvm_values import (
    Context,
    Key,
    Tile,
    lane_type,
    read,
    scalar_type,
    splat,
    table,
    vector_type,
)
from tilewright.language.dtypes import DType
from tilewright.language.ir import TileType


@dataclass(frozen=True)
class Dot:
    """Sum over `axis` of a * b, added to `into` where given, in the accumulation type, by the instruction `atom`."""

    a: Tile
    b: Tile
    axis: str
    type: TileType
    into: Tile | None = None
    atom: str = "fma"


def emit_dot(cx: Context, dot: Dot) -> Tile:
    """Where the contracted axis has the lanes, the products stay spread over them (an inner product);
    else one operand is broadcast element by element (an outer product).
    """
    return emit_dots(cx, (dot,))[0]


def emit_dots(cx: Context, dots: Sequence[Dot]) -> list[Tile]:
    """Dots of the same axes by the same atom; outer products are made `in_turns`."""
    first = dots[0]
    if cx.lane_of((first.axis, *first.type.axes)) != first.axis and first.atom != "vnni":
        return (_outer_pairs if first.atom == "bf16x2" else _outer_products)(cx, dots)
    return [_inner(cx, dot) for dot in dots]


def _inner(cx: Context, dot: Dot) -> Tile:
    if dot.atom == "vnni":
        return _inner_pairs(cx, dot, BYTES)
    return (_inner_pairs if dot.atom == "bf16x2" else _inner_product)(cx, dot)


def fused_multiply_add(cx: Context, x: str, y: str, acc: str | None, dtype: DType, width: int) -> str:
    """acc + x * y, rounded once where the machine can; x * y where there is no acc yet."""
    ty = vector_type(dtype, width)
    if dtype.kind == "int":
        product_ = cx.b.emit(f"mul {ty} {x}, {y}")
        return product_ if acc is None else cx.b.emit(f"add {ty} {acc}, {product_}")
    if acc is None:
        return cx.b.emit(f"fmul {ty} {x}, {y}")
    # Without the instruction a fused product would be a call for each element.
    kind = "fma" if "fma" in cx.features else "fmuladd"
    name = f"@llvm.{kind}.{f'v{width}' if width > 1 else ''}{suffix(dtype)}"
    cx.b.declare(f"declare {ty} {name}({ty}, {ty}, {ty})")
    return cx.b.emit(f"call {ty} {name}({ty} {x}, {ty} {y}, {ty} {acc})")


def _promoted(cx: Context, tile: Tile, point: dict[str, int], lane: str | None, dtype: DType) -> str:
    """An operand in the accumulation type."""
    width = cx.width(lane)
    if lane is None or lane in tile.axes:
        return cast(cx, read(cx, tile, point, lane), tile.dtype, dtype, width)
    if tile.lane is None:  # convert the scalar, then broadcast
        scalar = cast(cx, read(cx, tile, point, None), tile.dtype, dtype, 1)
        return splat(cx, scalar_type(dtype), width, scalar)
    return cast(cx, read(cx, tile, point, lane), tile.dtype, dtype, width)


def _outer_products(cx: Context, dots: Sequence[Dot]) -> list[Tile]:
    lane, axis = cx.lane_of(dots[0].type.axes), dots[0].axis
    width, sums = cx.width(lane), [_begun(cx, dot, lane) for dot in dots]
    for k in range(cx.axes[axis].extent):
        exists = cx.exists(axis, k)
        for n, key in in_turns(cx, dots[0].a, dots[0].b, dots[0].type, lane, len(dots)):
            dot, dtype = dots[n], dots[n].type.dtype
            point = {**dict(zip(dot.type.axes, key, strict=True)), axis: k}
            x = _promoted(cx, dot.a, point, lane, dtype)
            y = _promoted(cx, dot.b, point, lane, dtype)
            if exists is not None:  # past the end both must be zero: 0 * NaN is not
                x = select_existing(cx, x, splat(cx, "i1", width, exists), "sum", dtype, width)
                y = select_existing(cx, y, splat(cx, "i1", width, exists), "sum", dtype, width)
            sums[n][key] = fused_multiply_add(cx, x, y, sums[n][key], dtype, width)
    return _finished(dots, sums, lane)


_Sums = dict[Key, str | None]
"""What has been summed for each part of a result; None: nothing yet."""


def _begun(cx: Context, dot: Dot, lane: str | None) -> _Sums:
    axes, into = dot.type.axes, dot.into
    keys = cx.keys(axes, lane)
    return {k: None if into is None else read(cx, into, dict(zip(axes, k, strict=True)), lane) for k in keys}


def _finished(dots: Sequence[Dot], sums: Sequence[_Sums], lane: str | None) -> list[Tile]:
    found = [{key: part for key, part in parts.items() if part is not None} for parts in sums]
    return [table(dot.type, lane, parts) for dot, parts in zip(dots, found, strict=True)]


def in_turns(cx: Context, a: Tile, b: Tile, type_: TileType, lane: str | None, count: int) -> Iterator[tuple[int, Key]]:
    """The order of all products of `count` dots like this one: (which dot, which part of its result).

    Those of each part that streams by stay together, whichever dot they belong to, so that an operand which the dots
    share leaves its register before the next part comes.
    """
    held = _held(cx, a, b, type_, lane)
    streams = [n for n, axis in enumerate(type_.axes) if axis not in held]
    for _, same in groupby(streaming_order(cx, a, b, type_, lane), lambda key: [key[n] for n in streams]):
        part = list(same)
        yield from ((n, key) for n in range(count) for key in part)


def _held(cx: Context, a: Tile, b: Tile, type_: TileType, lane: str | None) -> set[str]:
    """The axes of the operand with fewer parts."""
    counts = {t: cx.axes[t].chunks if t == lane else cx.axes[t].extent for t in type_.axes}
    parts = [math.prod(counts[t] for t in tile.axes if t in counts) for tile in (a, b)]
    return set((a if parts[0] <= parts[1] else b).axes)


def streaming_order(cx: Context, a: Tile, b: Tile, type_: TileType, lane: str | None) -> list[Key]:
    """Part keys in an order that keeps the operand with fewer parts in registers while the other streams by."""
    counts = {t: cx.axes[t].chunks if t == lane else cx.axes[t].extent for t in type_.axes}
    held = _held(cx, a, b, type_, lane)
    order = sorted(range(len(type_.axes)), key=lambda n: type_.axes[n] in held)
    keys = []
    for point in product(*(range(counts[type_.axes[n]]) for n in order)):
        at = dict(zip(order, point, strict=True))
        keys.append(tuple(at[n] for n in range(len(order))))
    return keys


def _inner_product(cx: Context, dot: Dot) -> Tile:
    a, b, axis, type_ = dot.a, dot.b, dot.axis, dot.type
    width, state = cx.width(axis), cx.axes[axis]
    sums = _LaneSums(cx, type_, axis, dot.into)
    for key in streaming_order(cx, a, b, type_, None):
        point = dict(zip(type_.axes, key, strict=True))
        for chunk in range(state.chunks):
            at = {**point, axis: chunk}
            x = _masked_operand(cx, a, at, axis, chunk, type_.dtype)
            y = _masked_operand(cx, b, at, axis, chunk, type_.dtype)
            sums.set(key, chunk, fused_multiply_add(cx, x, y, sums.get(key, chunk), type_.dtype, width))
    return sums.result()


class _LaneSums:
    """The sums of an inner product, spread over the lanes of the summed axis.

    Where they are split over several accumulators, chunks of the axis take turns.
    """

    def __init__(self, cx: Context, type_: TileType, axis: str, into: Tile | None) -> None:
        self.cx, self.type, self.width = cx, type_, cx.width(axis)
        self.into = into if into is not None and into.spread else None
        total = self.into.spread if self.into is not None else self.width
        self.count = total // self.width
        self.parts: dict[Key, list[str | None]] = {}
        for key in cx.keys(type_.axes, None):
            wide = None if self.into is None else self.into.part(key)
            self.parts[key] = (
                [None] if wide is None else [*pieces(cx.b, wide, lane_type(type_.dtype), self.width, total)]
            )

    def get(self, key: Key, chunk: int) -> str | None:
        """The accumulator whose turn it is; None where there is nothing in it yet."""
        return self.parts[key][chunk % self.count]

    def set(self, key: Key, chunk: int, value: str) -> None:
        """The same accumulator after an addition."""
        self.parts[key][chunk % self.count] = value

    def result(self) -> Tile:
        """The sums as a tile: spread as before, or folded where there was nothing to add them to."""
        cx, element = self.cx, lane_type(self.type.dtype)
        parts = {k: concat(cx.b, [v for v in held if v], element, self.width) for k, held in self.parts.items()}
        tile = table(self.type, None, parts, spread=self.width * self.count)
        return tile if self.into is not None else fold_lanes(cx, "sum", tile)


def _masked_operand(cx: Context, tile: Tile, at: dict[str, int], axis: str, chunk: int, dtype: DType) -> str:
    """A chunk along the contracted axis, zero where the axis has no element."""
    part = _promoted(cx, tile, at, axis, dtype)
    return select_existing(cx, part, cx.mask(axis, chunk), "sum", dtype, cx.width(axis))


# --------------------------------------------------------------------------------------------- pairs
def _outer_pairs(cx: Context, dots: Sequence[Dot]) -> list[Tile]:
    lane, axis = cx.lane_of(dots[0].type.axes), dots[0].axis
    assert lane is not None
    width, sums = cx.width(lane), [_begun(cx, dot, lane) for dot in dots]
    operands: list[Known] = [{} for _ in range(0, cx.axes[axis].extent, 2)]
    for turns in in_portions(list(in_turns(cx, dots[0].a, dots[0].b, dots[0].type, lane, len(dots)))):
        for step, known in enumerate(operands):
            for n, key in turns:
                point = {**dict(zip(dots[n].type.axes, key, strict=True)), axis: 2 * step}
                x, y = (pair_operand(cx, t, point, axis, lane, known) for t in (dots[n].a, dots[n].b))
                sums[n][key] = HALVES.into(cx, x, y, sums[n][key], width)
    return _finished(dots, sums, lane)


def in_portions(turns: list[tuple[int, Key]]) -> list[list[tuple[int, Key]]]:
    """Sums that are made at a time: all of them, or as many as registers hold beside operands."""
    size = len(turns) if len(turns) <= AT_ONCE else PORTION
    return [turns[n : n + size] for n in range(0, len(turns), size)]


def _inner_pairs(cx: Context, dot: Dot, pairs: Pairs = HALVES) -> Tile:
    a, b, axis, type_ = dot.a, dot.b, dot.axis, dot.type
    width, state = cx.width(axis), cx.axes[axis]
    sums = _LaneSums(cx, type_, axis, dot.into)
    for chunk in range(-(-state.extent // (2 * width))):
        operands: Known = {}
        for key in streaming_order(cx, a, b, type_, None):
            point = {**dict(zip(type_.axes, key, strict=True)), axis: chunk}
            x, y = (row_operand(cx, t, n, point, axis, width, operands, pairs) for n, t in enumerate((a, b)))
            sums.set(key, chunk, pairs.into(cx, x, y, sums.get(key, chunk), width))
    return sums.result()
