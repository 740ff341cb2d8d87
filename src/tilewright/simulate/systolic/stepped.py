"""A scheduled program executed with values, its products by the cells of an array, cycle by cycle.

The interpreter runs the program twice: once to see which tiles each fold multiplies, once with what the cells made
of them. Everything that is not a product on the array is the interpreter's.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np

from tilewright.errors import AccumulatorOverflow
from tilewright.language import ir
from tilewright.language.interpreter import Array as Values
from tilewright.language.interpreter import Execution, aligned
from tilewright.simulate.systolic.cells import Pass, both_stream, one_stands
from tilewright.simulate.systolic.control import Control, Times
from tilewright.simulate.systolic.plan import Plan

_LANES = 1 << 18
"""Cells that are stepped together: few enough for the caches of the host."""


@dataclass(frozen=True)
class Product:
    """What one fold multiplies: a tile that stands still (or streams in from above), and one that streams in."""

    held: Values
    moving: Values


def run_stepped(scheduled: ir.Kernel, plan: Plan, tensors: Mapping[str, Values], scalars: Mapping[str, float]) -> int:
    """Execute `scheduled`, writing its results into `tensors`; the cycles that the array took.

    AccumulatorOverflow where an integer sum leaves the accumulator's bits.
    """
    control = Control(plan)
    times = control.run()
    seen = _Seen.of(scheduled, tensors, scalars, 16, exact=False)
    seen.plan, seen.products = plan, []
    seen.block(scheduled.body)
    results = _outputs(plan, seen.products, times)
    made = _Made.of(scheduled, tensors, scalars, 16, exact=False)
    made.plan, made.results = plan, iter(results)
    made.block(scheduled.body)
    return control.cycles


class _Seen(Execution):
    """An execution that notes the operands of every product on the array."""

    plan: Plan
    products: list[Product]

    def expr(self, expr: ir.Expr, tile_type: ir.TileType) -> Values:
        if not isinstance(expr, ir.Dot):
            return super().expr(expr, tile_type)
        left, right = (self.aligned(name, (axis, expr.axis)) for name, axis in self._operands(expr, tile_type))
        # Held: rows of cells first. Moving: a row of cells first, then what streams into it.
        shapes = {"ws": (right.T, left.T), "is": (left.T, right.T), "os": (right.T, left)}
        self.products.append(Product(*shapes[self.plan.flow]))
        return np.zeros((left.shape[0], right.shape[0]), self.dtype(tile_type.dtype))

    @staticmethod
    def _operands(expr: ir.Dot, tile_type: ir.TileType) -> Iterator[tuple[str, str]]:
        yield expr.a, tile_type.axes[0]
        yield expr.b, tile_type.axes[1]


class _Made(Execution):
    """An execution that takes products from the array, and adds up integers as wide as its accumulators are."""

    plan: Plan
    results: Iterator[Values]

    def expr(self, expr: ir.Expr, tile_type: ir.TileType) -> Values:
        if isinstance(expr, ir.Dot):
            return next(self.results)
        if isinstance(expr, ir.Map) and expr.op == "add" and tile_type.dtype.name == "i32":
            total = sum(
                aligned(self.values[n][1].astype(np.int64), self.values[n][0], tile_type.axes) for n in expr.args
            )
            return _within(np.asarray(total), self.plan)
        return super().expr(expr, tile_type)


def _within(sums: Values, plan: Plan) -> Values:
    """The sums, as they are; AccumulatorOverflow where one does not fit."""
    bits = plan.array.accumulator_bits
    limit = 1 << (bits - 1)
    if sums.size and (sums.max() >= limit or sums.min() < -limit):
        worst = max(sums.max(), -sums.min(), key=abs)
        raise AccumulatorOverflow(
            f"a sum reaches {worst} and an accumulator has {bits} bits (up to {limit - 1}); "
            f"scale the operands down, or split the sum over {plan.axes[0 if plan.flow != 'os' else 2]} and add the "
            f"parts in a wider type"
        )
    return sums


# -------------------------------------------------------------------------------------------- the cells
def _outputs(plan: Plan, products: list[Product], times: list[Times]) -> list[Values]:
    """What the array makes of each product of the program, in order: tiles of the result."""
    if plan.flow == "os":
        return _standing_sums(plan, products, times)
    outputs = []
    for group in _together(plan, products, times):
        passes = [_tile_pass(plan, t, chunk) for t, chunk in group]
        made, _ = one_stands(passes, plan.array.rows, plan.array.columns, _kind(products))
        for (_, chunk), values in zip(group, made, strict=True):
            for product, out in zip(chunk, values, strict=True):
                tile = out[:, : product.held.shape[1]]
                outputs.append(_within(tile if plan.flow == "ws" else tile.T, plan))
    return outputs


def _kind(products: list[Product]) -> Any:
    """Integers are added as 64 bits, so that what leaves an accumulator is seen; floats in f32."""
    return np.int64 if products[0].held.dtype.kind == "i" else np.float32


def _together(plan: Plan, products: list[Product], times: list[Times]) -> Iterator[list[tuple[Times, list[Product]]]]:
    """Passes that are stepped together: all of them in one lane where they overlap, else many lanes of one."""
    if plan.overlaps:
        yield [(t, [p]) for t, p in zip(times, products, strict=True)]
        return
    lanes = max(1, _LANES // (plan.array.rows * plan.array.columns))
    for steps, run in groupby(zip(times, products, strict=True), key=lambda pair: pair[0].steps):
        same = [product for _, product in run]
        for at in range(0, len(same), lanes):
            shift = 0 if plan.flow == "os" else plan.array.rows
            yield [(Times(0, shift, steps), same[at : at + lanes])]


def _tile_pass(plan: Plan, times: Times, products: list[Product]) -> Pass:
    rows, columns, kind = plan.array.rows, plan.array.columns, _kind(products)
    held = np.stack([_padded(p.held, (rows, columns), kind) for p in products])
    moving = np.stack([_padded(p.moving, (rows, times.steps), kind) for p in products])
    return Pass(times.shift, times.start, held, moving)


def _standing_sums(plan: Plan, products: list[Product], times: list[Times]) -> list[Values]:
    """The program adds up parts of a sum that stays in the cells: the first part brings it all, the others nothing."""
    parts = -(-plan.sizes[2] // plan.tiles[2])
    whole = [_joined(products[at : at + parts]) for at in range(0, len(products), parts)]
    outputs: list[Values] = []
    for group in _together(plan, whole, times):
        passes = [_stream_pass(plan, t, chunk) for t, chunk in group]
        made, _ = both_stream(passes, plan.array.rows, plan.array.columns, _kind(products))
        for (_, chunk), values in zip(group, made, strict=True):
            for product, out in zip(chunk, values, strict=True):
                tile = _within(out[: product.moving.shape[0], : product.held.shape[1]], plan)
                outputs += [tile, *(np.zeros_like(tile) for _ in range(parts - 1))]
    return outputs


def _joined(parts: list[Product]) -> Product:
    return Product(np.concatenate([p.held for p in parts], 0), np.concatenate([p.moving for p in parts], 1))


def _stream_pass(plan: Plan, times: Times, products: list[Product]) -> Pass:
    rows, columns, kind = plan.array.rows, plan.array.columns, _kind(products)
    held = np.stack([_padded(p.held, (times.steps, columns), kind) for p in products])
    moving = np.stack([_padded(p.moving, (rows, times.steps), kind) for p in products])
    return Pass(times.shift, times.start, held, moving)


def _padded(tile: Values, shape: tuple[int, int], kind: Any) -> Values:
    """A tile in the cells: those beyond its edges hold 0."""
    cells = np.zeros(shape, kind)
    cells[: tile.shape[0], : tile.shape[1]] = tile
    return cells
