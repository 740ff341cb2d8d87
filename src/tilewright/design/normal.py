"""The normal form of a design: of those that differ in nothing that a kernel shows at its sizes, one.

The lanes of a design are an order in which each tile looks for the axis that its vectors run along: where no tile has
two of them, or the first of a tile's stays the first, another order is the same kernel. A block that covers the whole
of an axis may be larger still, and the order of loops is none where only one of them goes round. A search that took
such designs for different ones would try one kernel again and again, and two searches would choose where there is
nothing to choose.
"""

from __future__ import annotations

from collections.abc import Sequence

from tilewright.design.default import Facts
from tilewright.design.design import Choice, Design
from tilewright.design.legality import legal
from tilewright.language import ir, structure


class Normal:
    """Designs of one program at the sizes of `facts` in normal form."""

    def __init__(self, kernel: ir.Kernel, facts: Facts) -> None:
        self._kernel, self._facts = kernel, facts
        self._axes = structure.axes(kernel)
        self._parallel = [
            [a.name for a in nest.loop.axes if not a.each] for nest in structure.nests(kernel) if nest.loop.parallel
        ]
        self._tiles = list(dict.fromkeys(_tiles(kernel)))

    def __call__(self, design: Design) -> Design:
        """The design that does the same: lanes in the first order that does, no larger blocks and no idle order.

        Off CPUs it is the design itself: what tiles, lanes and orders come to there is not known here.
        """
        if not self._facts.machine.is_cpu:
            return design
        changes = {**self._lanes(design), **self._blocks(design)}
        changes |= self._orders(_with(design, changes))
        if not changes:
            return design
        form = _with(design, changes)
        return form if changes.keys() == {"lanes"} or not legal(self._kernel, form, self._facts) else design

    # -------------------------------------------------------------------------------------------- lanes
    def _lanes(self, design: Design) -> dict[str, Choice | None]:
        lanes = design.names("lanes")
        used = [a for a in lanes if self._extent(design, a) > 1]
        if len(lanes) < 2 or not used:
            return {}
        ordered = _first_order(used, [[a for a in used if a in tile] for tile in self._tiles])
        return {} if ordered == lanes else {"lanes": ordered}

    def _extent(self, design: Design, axis: str) -> int:
        """Points of a tile along an axis, as `Footprint.extent` has them."""
        if axis in self._axes:
            return 1 if self._axes[axis].each else design.number(f"tile.{axis}", 1)
        return self._facts.sizes.get(axis, self._facts.lanes)

    # ----------------------------------------------------------------------------------- blocks and order
    def _blocks(self, design: Design) -> dict[str, Choice | None]:
        found: dict[str, Choice | None] = {}
        for axis, block in design.prefixed("block"):
            size = self._size(axis)
            whole = -(-size // self._extent(design, axis)) * self._extent(design, axis) if size else 0
            if whole and isinstance(block, int) and block > whole:
                found[f"block.{axis}"] = whole
        return found

    def _orders(self, design: Design) -> dict[str, Choice | None]:
        """Orders that say nothing: of each parallel loop at most one axis takes more than one step."""
        found: dict[str, Choice | None] = {}
        for name, steps in (("order", self._outer_steps), ("inner", self._inner_steps)):
            if design.names(name) and all(sum(steps(design, a) != 1 for a in axes) < 2 for axes in self._parallel):
                found[name] = None
        return found

    def _outer_steps(self, design: Design, axis: str) -> int:
        """Steps outside of blocks; 0 where the size is not known."""
        return -(-self._size(axis) // (design.number(f"block.{axis}") or self._extent(design, axis)))

    def _inner_steps(self, design: Design, axis: str) -> int:
        """Steps inside a block; 1 for an axis without blocks."""
        block = design.number(f"block.{axis}")
        return -(-block // self._extent(design, axis)) if block else 1

    def _size(self, axis: str) -> int:
        while axis in self._axes:
            axis = self._axes[axis].over
        return self._facts.sizes.get(axis, 0)


def _with(design: Design, changes: dict[str, Choice | None]) -> Design:
    decisions: dict[str, Choice | None] = {**dict(design.decisions), **changes}
    return Design.of({n: c for n, c in decisions.items() if c is not None})


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
