"""The normal form of a design: of those that differ in nothing that a kernel shows, one.

The lanes of a design are an order in which each tile looks for the axis that its vectors run along. Where no tile has
two of them, or the first of a tile's stays the first, another order is the same kernel under another name: a search that
took it for another one would try it again, and two searches could choose differently where there is nothing to choose.
"""

from __future__ import annotations

from collections.abc import Sequence

from tilewright.design.default import Facts
from tilewright.design.design import Design
from tilewright.language import ir, structure


class Normal:
    """Designs of one program in normal form."""

    def __init__(self, kernel: ir.Kernel, facts: Facts) -> None:
        self._facts = facts
        self._single = {name: axis.each for name, axis in structure.axes(kernel).items()}
        self._tiles = list(dict.fromkeys(_tiles(kernel)))

    def __call__(self, design: Design) -> Design:
        """The design that emits the same kernel, its lanes in the first order that does; axes of one point go."""
        lanes = design.names("lanes")
        used = [a for a in lanes if self._extent(design, a) > 1]
        if len(lanes) < 2 or not used:
            return design
        ordered = _first_order(used, [[a for a in used if a in tile] for tile in self._tiles])
        return design if ordered == lanes else design.with_(lanes=ordered)

    def _extent(self, design: Design, axis: str) -> int:
        """Points of a tile along an axis, as `Footprint.extent` has them."""
        if axis in self._single:
            return 1 if self._single[axis] else design.number(f"tile.{axis}", 1)
        return self._facts.sizes.get(axis, self._facts.lanes)


def _first_order(axes: Sequence[str], tiles: Sequence[Sequence[str]]) -> tuple[str, ...]:
    """The axes in the alphabet's order, but each after the one that comes first in a tile of both."""
    before: dict[str, set[str]] = {a: set() for a in axes}
    for first, *others in filter(None, tiles):
        for other in others:
            before[other].add(first)
    ordered: list[str] = []
    while len(ordered) < len(axes):
        ordered.append(min(a for a in axes if a not in ordered and before[a] <= set(ordered)))
    return tuple(ordered)


def _tiles(kernel: ir.Kernel) -> list[frozenset[str]]:
    """The axes of every tile that chooses one of them for its lanes: values, and products with what they sum over."""
    found = []
    for let in structure.lets(kernel).values():
        found.append(frozenset(let.type.axes))
        if isinstance(let.expr, ir.Dot | ir.Reduce):
            found.append(frozenset((*let.type.axes, let.expr.axis)))
    return found


__all__ = ["Normal"]
