"""A design beside the program it is for: what rules of legality ask about both."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from tilewright.design.atoms import PAIRED
from tilewright.design.design import Choice, Design
from tilewright.design.footprint import Footprint
from tilewright.language import ir, structure


def shown(value: Choice) -> str:
    """A decision's value as messages write it."""
    return f"({', '.join(value)})" if isinstance(value, tuple) else str(value)


@dataclass(frozen=True)
class View(Footprint):
    """A design, the program it is for, and the names that both use."""

    @cached_property
    def tensors(self) -> dict[str, ir.Param]:
        """Tensor parameters by name."""
        return {p.name: p for p in self.kernel.params if p.dims is not None}

    @cached_property
    def tiled(self) -> dict[str, ir.Axis]:
        """Axes that have tiles."""
        return {n: a for n, a in self.axes.items() if not a.each}

    @cached_property
    def nests(self) -> list[structure.Nest]:
        """The top-level loops."""
        return structure.nests(self.kernel)

    @cached_property
    def parallel(self) -> list[tuple[str, ...]]:
        """The tiled axes of each top-level parallel loop."""
        return [tuple(a.name for a in n.loop.axes if not a.each) for n in self.nests if n.loop.parallel]

    @cached_property
    def unrollable(self) -> frozenset[str]:
        """Last axes of serial loops."""
        loops = [s for s in ir.walk(self.kernel.body) if isinstance(s, ir.Loop) and not s.parallel]
        return frozenset(loop.axes[-1].name for loop in loops)

    def chunk(self, axis: str) -> int:
        """Points of a summed axis that lies across lanes and one instruction takes: pairs take twice as many."""
        pairs = any(
            dot.axis == axis and self.design.get(f"atom.{name}") in PAIRED for name, (_, dot) in self.dots.items()
        )
        return self.width(axis) * (2 if pairs else 1)

    @cached_property
    def single(self) -> Footprint:
        """What the program takes with the smallest tiles: no design takes less."""
        tiles = {f"tile.{a}": 1 for a in self.tiled} | {f"unroll.{a}": 1 for a in self.unrollable}
        return Footprint(self.kernel, Design.of({**dict(self.design.decisions), **tiles}), self.facts)

    def loads_of(self, tensor: str) -> list[tuple[ir.Let, ir.Ref]]:
        """Loads from a tensor."""
        return [(let, ref) for let, ref in structure.loads(self.kernel) if ref.buffer == tensor]

    def dots_of(self, value: str) -> list[tuple[ir.Let, ir.Dot]]:
        """Dots that multiply a value."""
        return [(let, dot) for let, dot in self.dots.values() if value in (dot.a, dot.b)]

    def readers_of(self, tensor: str) -> list[tuple[ir.Let, ir.Dot]]:
        """Dots that multiply what is loaded from a tensor."""
        return [found for let, _ in self.loads_of(tensor) for found in self.dots_of(let.name)]

    def operand(self, name: str) -> tuple[ir.Let, str | None]:
        """An operand of a dot, and the tensor that it is loaded from."""
        let = self.values[name]
        return let, let.expr.ref.buffer if isinstance(let.expr, ir.Load) else None

    def runs_along(self, tensor: str, axis: str) -> bool:
        """Whether a tensor has stride one along an axis."""
        dims = [ref.index.index(axis) for _, ref in self.loads_of(tensor) if axis in ref.index]
        return bool(dims) and all(d in self.facts.unit.get(tensor, ()) for d in dims)

    def dim(self, axis: str) -> str:
        """The dimension that an axis is a range of."""
        while axis in self.axes:
            axis = self.axes[axis].over
        return axis

    def fixed_size(self, axis: str) -> int | None:
        """The size of an axis' dimension where no other is ever met."""
        dim = self.dim(axis)
        return self.facts.sizes.get(dim) if dim in self.facts.fixed else None
