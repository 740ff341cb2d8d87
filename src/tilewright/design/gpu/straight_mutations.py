"""Changes of designs whose operands go straight from memory to registers; and the ways there and back."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from tilewright.design.default import Facts
from tilewright.design.design import Choice, Design
from tilewright.design.gpu.mutations import Cache, changed
from tilewright.design.gpu.product import Product
from tilewright.design.gpu.simt_mutations import Resident
from tilewright.design.gpu.straight import MOST_ROWS, Straight, straight
from tilewright.design.mutation import Illegal, Mutation, Named
from tilewright.design.mutation_tiles import SetTile

FEW = 64
"""Rows up to which operands may go straight to registers: each warp reads all of x."""

WARPS = ((8, 1), (4, 1), (16, 1), (4, 2), (2, 2), (1, 4), (1, 8), (2, 4), (8, 2), (4, 4), (1, 16))
"""Warps along the sum, and across the columns."""


@dataclass(frozen=True)
class Deal(Named):
    """The weights of a block are dealt to its warps another way: along the sum, across columns, more at once.

    before:  for ... n in N step 8 ... { for ks in K step 512 @bind=warp { for k in ks step 128 { ... } } }
    after:   for ... n in N step 32 ... { for ks in K step 2048 @bind=warp { for k in ks step 256 { ... } } }
    """

    column: str
    depth: str
    points: tuple[int, int]
    warps: int
    along: int

    def apply(self, design: Design) -> Design | Illegal:
        """The design with `tile` of both axes, `warps` and `warps.AXIS`."""
        changes: dict[str, Choice | None] = {
            f"tile.{self.column}": self.points[0],
            f"tile.{self.depth}": self.points[1],
        }
        changes |= {"warps": self.warps, f"warps.{self.depth}": self.along}
        return changed(design, changes)


@dataclass(frozen=True)
class Through(Named):
    """Operands pass through shared memory, in a ring that the copy engine fills, or go straight to registers.

    before:  for k in K step 64 @stages=16 { copy s_b <- b @engine=tma ... dot0 = dot a0 b0 over k @atom=wgmma }
    after:   for ks in K step 512 @bind=warp { for k in ks step 128 { b0 = load b[n, k] ... @atom=mma } }
    """

    decisions: tuple[tuple[str, Choice], ...]

    def apply(self, design: Design) -> Design | Illegal:
        """Those decisions instead of all others."""
        after = Design.of(dict(self.decisions))
        return Illegal("the design has it so already") if after == design else after


@dataclass(frozen=True)
class Ahead(Named):
    """Weights are on their way so many steps ahead, through shared memory of each warp; 0: straight to registers.

    1: straight to registers, each chunk of which is asked for anew as soon as it has been multiplied.

    before:  for k in ks step 128 { b0 = load b[n, k]; a0 = load a[m, k] ... }
    after:   for k in ks step 128 { a0 = load a[m, k]; b0 = load b[n, k] @prefetch=4 ... }
    """

    steps: int

    def apply(self, design: Design) -> Design | Illegal:
        """The design with `stages`, or without."""
        return changed(design, {"stages": self.steps or None})


def suggested_straight(p: Product, design: Design, facts: Facts) -> Iterator[Mutation]:
    """Every mutation of such a design, legal or not, in a fixed order."""
    from tilewright.design.gpu.default import default_product

    s = Straight(p, design, facts)
    _, columns, chunks = s.fragments
    for along, across in WARPS:
        yield from _dealt(s, columns, chunks, along, across)
    for more, fewer in ((2, 1), (1, 2)):
        yield from _dealt(s, columns * more // fewer, chunks, s.along, s.across)
        yield from _dealt(s, columns, chunks * more // fewer, s.along, s.across)
        yield from _dealt(s, columns * more // fewer, chunks * fewer // more, s.along, s.across)
    rows, unit = s.tile(p.m.name), s.unit[0]
    yield from (SetTile(p.m.name, n) for n in (rows - unit, rows + unit) if 0 < n <= MOST_ROWS[s.atom])
    for tensor in dict.fromkeys(o.tensor for o in p.operands if o.axis == p.n.name):
        yield from (Cache(tensor, policy) for policy in (None, "cs"))
    yield from (Resident(n) for n in (1, 2, 3, 4, 6, 8))
    yield from (Ahead(n) for n in (0, 1, 2, 3, 4, 6, 8))
    yield Through(default_product(p, facts).decisions)
    other = "mma" if s.atom == "fma" else "fma"
    yield from (Through(straight(p, facts, c, 8, 1, 4, other).decisions) for c in (1, 2))


def _dealt(s: Straight, columns: int, chunks: int, along: int, across: int) -> Iterator[Mutation]:
    if columns and chunks:
        k = s.product.k.name
        _, width, lanes = s.unit
        points = width * columns * across, lanes * s.run * chunks
        yield Deal(s.product.n.name, k, points, along * across, along)


def straightened(p: Product, facts: Facts) -> Iterator[Mutation]:
    """From a ring to registers, where rows are few."""
    if p.size(p.m, facts) <= FEW:
        yield from (Through(straight(p, facts, c, 8, 1, 4).decisions) for c in (1, 2))
    if p.size(p.m, facts) <= MOST_ROWS["fma"]:
        yield Through(straight(p, facts, 1, 4, 2, 4, "fma").decisions)


__all__ = ["FEW", "WARPS", "Ahead", "Deal", "Through", "straightened", "suggested_straight"]
