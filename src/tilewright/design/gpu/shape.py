"""A nest of loops with what defaults of a GPU ask of it: its axes by kind, its sizes, its widest access."""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass

from tilewright.design.default import Facts
from tilewright.design.design import Choice
from tilewright.language import ir, structure
from tilewright.language.accumulate import find_accumulations

VECTOR = 16
"""Bytes of the widest access."""


@dataclass(frozen=True)
class Shape:
    """A nest with what a default asks of it."""

    kernel: ir.Kernel
    nest: structure.Nest
    facts: Facts

    @property
    def parallel(self) -> list[ir.Axis]:
        """Axes dealt to the grid in tiles."""
        return [a for a in self.nest.loop.axes if not a.each]

    @property
    def serial(self) -> list[ir.Axis]:
        """Axes of the loops inside, in tiles."""
        inner = (s for s in ir.walk(self.nest.loop.body) if isinstance(s, ir.Loop))
        return [a for loop in inner for a in loop.axes if not a.each]

    @property
    def whole(self) -> list[str]:
        """Dimensions that values lie along as a whole."""
        return [d for d in self.kernel.dims if any(d in v.type.axes for v in structure.lets(self.kernel).values())]

    @property
    def is_product(self) -> bool:
        """Whether every dot sums over the only serial loop, between two tiles of parallel axes."""
        main = self.nest.main
        if not self.nest.dots or main is None or len(self.parallel) != 2:
            return False
        return all(isinstance(d.expr, ir.Dot) and d.expr.axis == main.axes[0].name for d in self.nest.dots)

    def size(self, axis: ir.Axis) -> int:
        """How long an axis is."""
        return max(1, self.facts.size(self.kernel, axis))

    @property
    def count(self) -> int:
        """Points of all axes dealt to the grid: rows, tokens, heads."""
        return math.prod(self.size(a) for a in self.nest.loop.axes)

    def sums_only(self, axes: list[ir.Axis]) -> bool:
        """Whether all that the loops over `axes` carry are sums, maxima and minima: parts of a loop could join them."""
        names = {a.name for a in axes}
        inside = [s for s in ir.walk(self.nest.loop.body) if isinstance(s, ir.Loop)]
        loops = [s for s in inside if names & {a.name for a in s.axes}]
        for loop in loops:
            sums = {a.target for a in find_accumulations(loop.body).values()}
            if any(isinstance(s, ir.Assign) and s.name not in sums for s in ir.walk(loop.body)):
                return False
        return all(len(loop.axes) == 1 for loop in loops)

    def widths(self, axes: Collection[str] | None = None) -> dict[str, Choice]:
        """Accesses as wide as they may be, of every tensor with a stride of one; along `axes` only, if given."""
        refs = [ref for _, ref in structure.loads(self.kernel)]
        refs += [s.ref for s in ir.walk(self.kernel.body) if isinstance(s, ir.Store)]
        runs = {r.buffer: r.index[d] for r in refs for d in self.facts.unit.get(r.buffer, ()) if d < len(r.index)}
        wide = [p for p in self.kernel.params if p.name in runs and (axes is None or runs[p.name] in axes)]
        return {f"vec.{p.name}": max(1, VECTOR // p.dtype.bytes) for p in wide}

    @property
    def run(self) -> int:
        """Elements of the narrowest type that one access moves."""
        return VECTOR // min(
            (p.dtype.bytes for p in self.kernel.params if p.dims and p.dtype.kind == "float"), default=4
        )


def power(n: int) -> int:
    """The smallest power of two that is not below n."""
    return 1 << max(0, n - 1).bit_length()


__all__ = ["VECTOR", "Shape", "power"]
