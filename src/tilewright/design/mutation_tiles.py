"""Mutations of loops: tiles, lanes, unrolling, accumulators, cache blocks, and the order in which all are visited."""

from __future__ import annotations

from dataclasses import dataclass

from tilewright.design.design import Choice, Design
from tilewright.design.mutation import Illegal, Named, changed


@dataclass(frozen=True)
class SetTile(Named):
    """Another number of points of an axis in one register tile; a block of that axis stays whole tiles.

    before:  for m in M step 4, n in N step 32 { ... }        tile.m=4  block.m=8
    after:   for m in M step 6, n in N step 32 { ... }        tile.m=6  block.m=12
    """

    axis: str
    points: int

    def apply(self, design: Design) -> Design | Illegal:
        """The design with `tile.AXIS=points`."""
        if self.points < 1:
            return Illegal(f"a tile of {self.axis} has at least one point, not {self.points}")
        changes: dict[str, Choice] = {f"tile.{self.axis}": self.points}
        return changed(design, changes | whole_tiles(design, self.axis, self.points))


@dataclass(frozen=True)
class Scatter(Named):
    """The points of a tile come from runs that follow each other in memory: as many long streams, not short pieces.

    before:  for n in N step 4 { ... }               tile.n=4
    after:   for n in N step 4 apart 16 { ... }      tile.n=4  apart.n=16
    """

    axis: str
    apart: int

    def apply(self, design: Design) -> Design | Illegal:
        """The design with `apart.AXIS=apart`; neighbours are 1 apart, and that is not written down."""
        if self.apart < 1:
            return Illegal(f"points of {self.axis} lie 1 apart or more, not {self.apart}")
        return changed(design, {f"apart.{self.axis}": self.apart if self.apart > 1 else None})


@dataclass(frozen=True)
class Vectorise(Named):
    """Twice as many neighbours along an axis are moved and computed by one instruction.

    before:  for k in K step 2 { a0 = load(A, (i, k), vec=1); a1 = load(A, (i, k+1), vec=1); ... }
    after:   for k in K step 2 { (a0, a1) = load(A, (i, k), vec=2); ... }      lanes=(k)

    An axis that has the lanes already gets a tile, and so a vector, of twice as many points. Values lie along the
    whole of a dimension that has no tiles (`tiled=False`).
    """

    axis: str
    tiled: bool = True

    def apply(self, design: Design) -> Design | Illegal:
        """The design with `axis` first in lanes and a tile of two points or more; or with a tile twice as wide."""
        tile = f"tile.{self.axis}"
        if not self.tiled:
            return changed(design, {"lanes": (self.axis, *(a for a in design.names("lanes") if a != self.axis))})
        if self.axis in design.names("lanes"):
            return SetTile(self.axis, 2 * design.number(tile, 1)).apply(design)
        wider = SetTile(self.axis, max(2, design.number(tile, 1))).apply(design)
        start = wider if isinstance(wider, Design) else design
        return changed(start, {"lanes": (self.axis, *design.names("lanes"))})


@dataclass(frozen=True)
class Interchange(Named):
    """Another axis lies across the lanes wherever values have both.

    before:  lanes=(k, n)     partial sums of k in every lane, folded after the loop
    after:   lanes=(n, k)     an element of n in every lane
    """

    axis: str

    def apply(self, design: Design) -> Design | Illegal:
        """The design with `axis` at the front of lanes."""
        lanes = design.names("lanes")
        if self.axis not in lanes:
            return Illegal(f"{self.axis} is not among the lanes {lanes}; vectorise it first")
        return changed(design, {"lanes": (self.axis, *(a for a in lanes if a != self.axis))})


@dataclass(frozen=True)
class Scalarise(Named):
    """An axis has no lanes any more: each of its points is a value of its own.

    before:  lanes=(n, m)
    after:   lanes=(n)
    """

    axis: str

    def apply(self, design: Design) -> Design | Illegal:
        """The design without `axis` among its lanes."""
        lanes = tuple(a for a in design.names("lanes") if a != self.axis)
        return changed(design, {"lanes": lanes or None})


@dataclass(frozen=True)
class Unroll(Named):
    """More or fewer tiles of a serial loop written out in one pass; the remainder runs one by one.

    before:  for k in K step 1 { acc0 = fma(a0, b0, acc0) }
    after:   for k in K step 1 @unroll=2 { acc0 = fma(a0, b0, acc0); acc0 = fma(a1, b1, acc0) }
    """

    axis: str
    times: int

    def apply(self, design: Design) -> Design | Illegal:
        """The design with `unroll.AXIS=times`; once is no unrolling."""
        if self.times < 1:
            return Illegal(f"a loop over {self.axis} cannot be written out {self.times} times")
        return changed(design, {f"unroll.{self.axis}": self.times if self.times > 1 else None})


@dataclass(frozen=True)
class Accumulate(Named):
    """A sum whose axis lies across lanes in more or fewer accumulators that take turns, joined when the loop ends.

    before:  for k in K step 32 { acc0 = fma(a0, b0, acc0); acc0 = fma(a1, b1, acc0) }
    after:   for k in K step 32 { acc0 = fma(a0, b0, acc0); acc1 = fma(a1, b1, acc1) };  acc0 += acc1      split.k=2
    """

    axis: str
    count: int

    def apply(self, design: Design) -> Design | Illegal:
        """The design with `split.AXIS=count`; one accumulator is no split."""
        if self.count < 1:
            return Illegal(f"a sum over {self.axis} takes one accumulator at least, not {self.count}")
        return changed(design, {f"split.{self.axis}": self.count if self.count > 1 else None})


@dataclass(frozen=True)
class Part(Named):
    """A serial loop is dealt to threads in parts of so many points, whose states are joined; 0: one thread runs it all.

    before:  for m in M { acc = 0;  for k in K { acc += ... };  store y[m] = acc }
    after:   for m in M, ks in K step 4096 { acc = 0;  for k in ks { acc += ... };  store parts[m, ks] = acc }
             for m in M { for ks in K step 4096 { acc += parts[m, ks] };  store y[m] = acc }      part.k=4096
    """

    axis: str
    points: int

    def apply(self, design: Design) -> Design | Illegal:
        """The design with `part.AXIS=points`, in whole tiles."""
        if self.points < 0:
            return Illegal(f"a part of {self.axis} has at least one point, not {self.points}")
        tile = design.number(f"tile.{self.axis}", 1)
        return changed(design, {f"part.{self.axis}": -(-self.points // tile) * tile or None})


@dataclass(frozen=True)
class Block(Named):
    """Tiles are visited cache block by cache block; 0 takes the block away again.

    before:  for m in M step 4, n in N step 32 { ... }
    after:   for m0 in M step 64 { for m in m0 step 4, n in N step 32 { ... } }      block.m=64
    """

    axis: str
    points: int
    parallel: bool = True  # whether it is an axis of the nest itself, not the one summed over

    def apply(self, design: Design) -> Design | Illegal:
        """The design with `block.AXIS=points`; an order of the inner axes takes it in, or loses it."""
        tile = design.number(f"tile.{self.axis}", 1)
        if self.points % tile:
            return Illegal(f"block.{self.axis}={self.points} is not a multiple of tile.{self.axis}={tile}")
        changes: dict[str, Choice | None] = {f"block.{self.axis}": self.points or None}
        if inner := design.names("inner"):
            kept = tuple(a for a in inner if self.points or a != self.axis)
            new = self.parallel and self.points and self.axis not in kept
            changes["inner"] = (*kept, *([self.axis] if new else ())) or None
        return changed(design, changes)


@dataclass(frozen=True)
class Reorder(Named):
    """Axes of a loop nest in another order, outside blocks (`order`) or inside (`inner`), slowest first.

    No axes: the order in which the program names them.

    before:  for m in M step 4, n in N step 32 { ... }        order=(m, n)
    after:   for n in N step 32, m in M step 4 { ... }        order=(n, m)
    """

    level: str
    axes: tuple[str, ...]

    def apply(self, design: Design) -> Design | Illegal:
        """The design with that order."""
        if self.level not in ("order", "inner"):
            return Illegal(f"{self.level} is no level of a nest; take order or inner")
        return changed(design, {self.level: self.axes or None})


def whole_tiles(design: Design, axis: str, tile: int) -> dict[str, Choice]:
    """The block and the part of an axis as whole tiles of that many points, where it has them."""
    sizes = {f"{kind}.{axis}": design.number(f"{kind}.{axis}") for kind in ("block", "part")}
    return {name: -(-size // tile) * tile for name, size in sizes.items() if size}


__all__ = [
    "Accumulate", "Block", "Interchange", "Part", "Reorder", "Scalarise", "Scatter", "SetTile", "Unroll",
    "Vectorise", "whole_tiles",
]  # fmt: skip
