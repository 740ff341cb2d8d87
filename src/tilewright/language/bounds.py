"""Proves that every access of a program is in bounds, or says which ragged mask or which check it needs.

An axis never leaves its dimension: loops clip their ranges. What a machine must mask is a tile that may be
shorter than its step. An index that is an integer value is in bounds if its interval is.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from tilewright.language import ir
from tilewright.language.scopes import Scope, scopes
from tilewright.language.verifier import refs


@dataclass(frozen=True)
class Unproved:
    """An index that may leave its dimension.

    `why` is "data" where it comes from a tensor or a scalar parameter, and "sizes" where numbers in place of
    symbolic sizes could settle it, or where they show that it does leave the dimension.
    """

    index: ir.Index
    dim: ir.Dim
    why: str


@dataclass(frozen=True)
class Access:
    """A ref of a Load, Store or Copy: axes whose tile may be short there, and indices that are not proved."""

    stmt: ir.Stmt
    ref: ir.Ref
    ragged: tuple[str, ...]
    unproved: tuple[Unproved, ...]

    @property
    def safe(self) -> bool:
        """Whether it needs neither a mask nor a check."""
        return not self.ragged and not self.unproved


@dataclass(frozen=True)
class Interval:
    """Integers from `lo` to `hi`, both included (either may be infinite); `data` if it is taken from a tensor."""

    lo: float
    hi: float
    data: bool = False


_UNKNOWN = Interval(-math.inf, math.inf, data=True)


def prove(kernel: ir.Kernel, sizes: Mapping[str, int] | None = None) -> list[Access]:
    """Every access of `kernel` in program order; `sizes` gives known sizes of dimensions, the others are any size.

    The axes of a ref are ragged by name, an index's own or those of the value that it is.
    """
    prover = _Prover(kernel, sizes or {})
    accesses = []
    for stmt, scope in scopes(kernel):
        accesses += [prover.access(stmt, ref, scope) for ref in refs(stmt)]
        if isinstance(stmt, ir.Let) and stmt.type.dtype.kind == "int":
            prover.learn(stmt, scope)
    return accesses


class _Prover:
    def __init__(self, kernel: ir.Kernel, sizes: Mapping[str, int]) -> None:
        self.sizes = sizes
        self.intervals: dict[str, Interval] = {}
        # Values that are plain positions along an axis: what that axis is a range of.
        self.positions: dict[str, tuple[str, ...]] = {}
        self.updated = {s.name for s in ir.walk(kernel.body) if isinstance(s, ir.Assign)}

    def access(self, stmt: ir.Stmt, ref: ir.Ref, scope: Scope) -> Access:
        ragged = tuple(axis for axis in scope.ref_axes(ref) if self.ragged(axis, scope))
        pairs = zip(ref.index, scope.buffers[ref.buffer].dims, strict=True)
        unproved = [self.index(index, dim, scope) for index, dim in pairs]
        return Access(stmt, ref, ragged, tuple(u for u in unproved if u is not None))

    # --------------------------------------------------------------------------------- ragged tiles

    def ragged(self, name: str, scope: Scope) -> bool:
        """Whether a tile of axis `name` may have fewer elements than its step."""
        axis = scope.axes.get(name)
        if axis is None or axis.each:
            return False
        extent = self.extent(axis, scope)
        return axis.step is None or extent is None or extent % axis.step != 0

    def extent(self, axis: ir.Axis, scope: Scope) -> int | None:
        """How many positions the loop over `axis` covers; None where that is not known or not always the same."""
        parent = scope.axes.get(axis.over)
        if parent is None:
            extent = self.sizes.get(axis.over)
        elif parent.each:
            extent = 1
        else:
            extent = None if self.ragged(parent.name, scope) else parent.step
        if axis.start is None and axis.stop is None:
            return extent
        if extent is None or parent is not None or isinstance(axis.start, str) or isinstance(axis.stop, str):
            return None
        return max(0, min(extent, extent if axis.stop is None else axis.stop) - max(0, axis.start or 0))

    # --------------------------------------------------------------------------------- integer values

    def index(self, index: ir.Index, dim: ir.Dim, scope: Scope) -> Unproved | None:
        """None if `index` is always inside `dim`."""
        size = dim if isinstance(dim, int) else self.sizes.get(dim)
        if isinstance(index, str) and index not in scope.values:
            return None
        if dim in self.positions.get(str(index), ()):
            return None
        at = Interval(index, index) if isinstance(index, int) else self.intervals.get(index, _UNKNOWN)
        if size is not None and at.lo >= 0 and at.hi < size:
            return None
        return Unproved(index, dim, "data" if at.data else "sizes")

    def learn(self, let: ir.Let, scope: Scope) -> None:
        """Note what is known of an integer value."""
        if let.name in self.updated:
            # A carried value may grow from one iteration to the next.
            self.intervals[let.name] = _UNKNOWN
            return
        self.intervals[let.name] = self.interval(let.expr, scope)
        if isinstance(let.expr, ir.Coord):
            self.positions[let.name] = scope.lineage(let.expr.axis)

    def interval(self, expr: ir.Expr, scope: Scope) -> Interval:
        match expr:
            case ir.Full(value) if isinstance(value, str):
                if value not in scope.dims:
                    return self.intervals.get(value, _UNKNOWN)
                return Interval(self.sizes.get(value, 0), self.sizes.get(value, math.inf))
            case ir.Full(value):
                return Interval(value, value)  # type: ignore[arg-type]
            case ir.Coord(axis):
                return Interval(0, self.sizes.get(scope.lineage(axis)[-1], math.inf) - 1)
            case ir.Permute(arg) | ir.Reduce("max" | "min", arg, _) | ir.Map("cast", (arg,)):
                return self.intervals.get(arg, _UNKNOWN)
            case ir.Map(op, args):
                return _combine(op, [self.intervals.get(a, _UNKNOWN) for a in args])
            case _:
                return _UNKNOWN


def _combine(op: str, args: list[Interval]) -> Interval:
    """The interval of `op` on values from the intervals `args`."""
    data = any(a.data for a in args)
    match op, args:
        case "add", [a, b]:
            return Interval(a.lo + b.lo, a.hi + b.hi, data)
        case "sub", [a, b]:
            return Interval(a.lo - b.hi, a.hi - b.lo, data)
        case "neg", [a]:
            return Interval(-a.hi, -a.lo, data)
        case "max", [a, b]:
            return Interval(max(a.lo, b.lo), max(a.hi, b.hi), data)
        case "min", [a, b]:
            return Interval(min(a.lo, b.lo), min(a.hi, b.hi), data)
        case "mul", [a, b]:
            corners = [_times(x, y) for x in (a.lo, a.hi) for y in (b.lo, b.hi)]
            return Interval(min(corners), max(corners), data)
        case "div", [a, b] if b.lo >= 1:
            corners = [_floor_divided(x, y) for x in (a.lo, a.hi) for y in (b.lo, b.hi)]
            return Interval(min(corners), max(corners), data)
        case "mod", [a, b] if b.lo >= 1:
            # Whatever is taken modulo a known size is inside it, even if it came from a tensor.
            return a if a.lo >= 0 and a.hi < b.lo else Interval(0, b.hi - 1, b.data)
        case "select", [_, a, b]:
            return Interval(min(a.lo, b.lo), max(a.hi, b.hi), a.data or b.data)
        case _:
            return Interval(-math.inf, math.inf, data)


def _times(x: float, y: float) -> float:
    # 0 times a bound that is infinite because nothing is known is still 0.
    return 0 if 0 in (x, y) else x * y


def _floor_divided(x: float, y: float) -> float:
    if math.isinf(x):
        return x
    return (0 if x >= 0 else -1) if math.isinf(y) else x // y
