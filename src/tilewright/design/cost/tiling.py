"""The tiles of one design: how long axes are, what lies across lanes, how many registers a value takes.

The rules are those of `footprint.Footprint` and of the emitter; here they are looked up from plain dictionaries, since
search asks for thousands of designs.
"""

from __future__ import annotations

import math

from tilewright.design.cost.program import Program
from tilewright.design.default import Facts
from tilewright.design.design import Choice, Design


class Tiling:
    """What the decisions of a design say about axes; `points` is the tile of each axis, or the whole of a dim."""

    def __init__(self, program: Program, design: Design, facts: Facts) -> None:
        self.program, self.facts = program, facts
        self.decisions: dict[str, Choice] = dict(design.decisions)
        self.full = facts.lanes
        self.points: dict[str, int] = {}
        for name, axis in program.axes.items():
            self.points[name] = 1 if axis.each else self.number(f"tile.{name}", 1)
        for dim in program.whole:
            self.points[dim] = facts.sizes.get(dim, facts.lanes)
        lanes = self.decisions.get("lanes", ())
        self.lanes: tuple[str, ...] = lanes if isinstance(lanes, tuple) else ()
        self._first = tuple(a for a in self.lanes if self.points.get(a, 1) > 1)

    def number(self, name: str, default: int = 0) -> int:
        """A decision that is a number."""
        value = self.decisions.get(name, default)
        return value if isinstance(value, int) else default

    def size(self, axis: str) -> int:
        """How long an axis is: its dimension, or the tile that it is a range of."""
        known = self.program.axes
        while axis in known:
            axis = known[axis].over
        return self.facts.sizes.get(axis, 1)

    def unit(self, buffer: str) -> tuple[int, ...]:
        """The dimensions of a buffer along which neighbours lie side by side: the last one of a tile's own scratch."""
        own = self.program.scratch.get(buffer)
        return self.facts.unit.get(buffer, ()) if own is None else (len(own.dims) - 1,)

    def width(self, axis: str | None) -> int:
        """Lanes of a vector along `axis`: a power of two, as short as its tile allows; 1 for no axis."""
        if axis is None:
            return 1
        width, points = self.full, max(1, self.points[axis])
        while width // 2 >= points:
            width //= 2
        return width

    def chunks(self, axis: str) -> int:
        """Vectors that cover the tile of an axis."""
        return -(-self.points[axis] // self.width(axis))

    def lane_of(self, axes: tuple[str, ...]) -> str | None:
        """The axis of `axes` that lies across lanes."""
        for a in self._first:
            if a in axes:
                return a
        return None

    def parts(self, axes: tuple[str, ...], lane: str | None) -> int:
        """Registers of a tile with these axes and that lane axis; each scalar takes one."""
        return math.prod(self.chunks(a) if a == lane else self.points[a] for a in axes)
