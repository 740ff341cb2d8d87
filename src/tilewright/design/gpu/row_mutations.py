"""Changes of designs of rows on a GPU: what stays in registers, what comes early, and who shares a row."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from tilewright.design.design import Design
from tilewright.design.early import early_loads
from tilewright.design.gpu.mutations import Cache, Persist, changed
from tilewright.design.hold import held_rows
from tilewright.design.mutation import Illegal, Mutation, Named, Together
from tilewright.design.mutation_memory import Keep
from tilewright.design.mutation_tiles import SetTile
from tilewright.design.twins import twins
from tilewright.language import ir


@dataclass(frozen=True)
class Early(Named):
    """What a later loop over a row loads is loaded in the first one, and waits in registers.

    before:  for d in D { ... }  for d1 in D { w0 = load w[d1] ... }
    after:   for d in D { w0_ahead = load w[d]; store w0_early[d] = w0_ahead ... }
             for d1 in D { w0 = load w0_early[d1] ... }      early.w0=True
    """

    load: str
    wanted: bool

    def apply(self, design: Design) -> Design | Illegal:
        """The design with or without `early.LOAD`."""
        return changed(design, {f"early.{self.load}": True if self.wanted else None})


@dataclass(frozen=True)
class Hold(Named):
    """What every round of a loop reads of a row is loaded once, before it, and stays in registers.

    before:  for each n in K { for d in D { x0 = load x[m, d] ... } }
    after:   for d_held in D { x0_held = load x[m, d_held]; store x_held[m, d_held] = x0_held }
             for each n in K { for d in D { x0 = load x_held[m, d] ... } }      hold.x=True
    """

    tensor: str
    wanted: bool

    def apply(self, design: Design) -> Design | Illegal:
        """The design with or without `hold.TENSOR`."""
        return changed(design, {f"hold.{self.tensor}": True if self.wanted else None})


@dataclass(frozen=True)
class Share(Named):
    """The blocks of a cluster share the loops over a row, each its tiles, and join what they have added up.

    before:  for d in D step 2048 { ... }
    after:   for d in D step 2048 @bind=cluster @how=cluster @split=8 { ... }
    """

    axes: tuple[str, ...]
    blocks: int

    def apply(self, design: Design) -> Design | Illegal:
        """The design with `split.AXIS` for all axes; one block is none."""
        return changed(design, {f"split.{a}": self.blocks if self.blocks > 1 else None for a in self.axes})


def suggested_rows(kernel: ir.Kernel, design: Design) -> Iterator[Mutation]:
    """Every mutation that loops over rows suggest, whether legal or not, in a fixed order."""
    yield Persist(not design.get("persistent"))
    for axes in _walks(kernel):
        points, blocks = design.number(f"tile.{axes[0]}", 1), design.number(f"split.{axes[0]}", 1)
        yield from (Together(tuple(SetTile(a, n) for a in axes)) for n in (2 * points, points // 2) if n)
        yield from (Share(axes, n) for n in (2 * blocks, blocks // 2) if n)
    yield from (Keep(value, not design.get(f"keep.{value}")) for value in twins(kernel))
    yield from (Early(load, not design.get(f"early.{load}")) for load in early_loads(kernel))
    yield from (Hold(tensor, not design.get(f"hold.{tensor}")) for tensor in held_rows(kernel))
    for param in (p for p in kernel.params if p.dims is not None):
        yield from (Cache(param.name, policy) for policy in (None, "cs", "evict_first"))


def _walks(kernel: ir.Kernel) -> list[tuple[str, ...]]:
    """The axes of serial loops that go over the same dimension."""
    found: dict[str, list[str]] = {}
    for loop in (s for s in ir.walk(kernel.body) if isinstance(s, ir.Loop) and not s.parallel):
        for axis in (a for a in loop.axes if not a.each):
            found.setdefault(axis.over, []).append(axis.name)
    return [tuple(axes) for axes in found.values()]


__all__ = ["Early", "Hold", "Share", "suggested_rows"]
