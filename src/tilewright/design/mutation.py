"""The edges of the design graph as values: named changes of one decision, or of a few that must move together.

`mutation.apply(design)` gives the changed design, or says why there is none. A mutation knows nothing of the
program, whose meaning it never changes, up to the rounding of sums; `mutations.neighbours` derives from a program
those whose results are legal.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Protocol

from tilewright.design.design import Choice, Design


@dataclass(frozen=True)
class Illegal:
    """Why a mutation leads nowhere from a design."""

    reason: str


class Mutation(Protocol):
    """A named, frozen, hashable change of a design; its text is its name and values, as in `SetTile(m, 6)`."""

    def apply(self, design: Design) -> Design | Illegal:
        """The changed design; Illegal where it would be the same design, or none."""
        ...


class Named:
    """A mutation as reports write it."""

    def __str__(self) -> str:
        values = (getattr(self, f.name) for f in fields(self))  # type: ignore[arg-type]
        return f"{type(self).__name__}({', '.join(map(_shown, values))})"


def _shown(value: object) -> str:
    return f"({', '.join(map(_shown, value))})" if isinstance(value, tuple) else str(value)


@dataclass(frozen=True)
class Together(Named):
    """Several changes of decisions that must move together, one after the other.

    before:  tile.m=4  tile.n=32
    after:   tile.m=8  tile.n=16      Together((SetTile(m, 8), SetTile(n, 16)))
    """

    parts: tuple[Mutation, ...]

    def apply(self, design: Design) -> Design | Illegal:
        """The design after all parts; a part that changes nothing is passed over."""
        result, found = design, Illegal("nothing is to be changed")
        for part in self.parts:
            changed = part.apply(result)
            if isinstance(changed, Design):
                result = changed
            else:
                found = changed
        return found if result == design else result


# ---------------------------------------------------------------------------------------------- tiles
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
        return _changed(design, changes | _whole_tiles(design, self.axis, self.points))


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
        return _changed(design, {f"apart.{self.axis}": self.apart if self.apart > 1 else None})


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
            return _changed(design, {"lanes": (self.axis, *(a for a in design.names("lanes") if a != self.axis))})
        if self.axis in design.names("lanes"):
            return SetTile(self.axis, 2 * design.number(tile, 1)).apply(design)
        wider = SetTile(self.axis, max(2, design.number(tile, 1))).apply(design)
        start = wider if isinstance(wider, Design) else design
        return _changed(start, {"lanes": (self.axis, *design.names("lanes"))})


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
        return _changed(design, {"lanes": (self.axis, *(a for a in lanes if a != self.axis))})


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
        return _changed(design, {"lanes": lanes or None})


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
        return _changed(design, {f"unroll.{self.axis}": self.times if self.times > 1 else None})


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
        return _changed(design, {f"split.{self.axis}": self.count if self.count > 1 else None})


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
        return _changed(design, {f"part.{self.axis}": -(-self.points // tile) * tile or None})


# --------------------------------------------------------------------------------------------- blocks
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
        return _changed(design, changes)


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
        return _changed(design, {self.level: self.axes or None})


# -------------------------------------------------------------------------------- memory and instructions
@dataclass(frozen=True)
class Pack(Named):
    """An operand of dots is copied into panels before the loops, or read where it lies (None).

    before:  for ... { b0 = load b[n, k] }
    after:   copy b_packed[n, k] <- b[n, k];  for ... { b0 = load b_packed[n, k] }      pack.b=panel
    """

    tensor: str
    layout: str | None

    def apply(self, design: Design) -> Design | Illegal:
        """The design with `pack.TENSOR=layout`."""
        changes: dict[str, Choice | None] = {f"pack.{self.tensor}": self.layout, f"unpack.{self.tensor}": None}
        if self.layout is None:
            changes[f"local.{self.tensor}"] = None
        return _changed(design, changes)


@dataclass(frozen=True)
class PackLocally(Named):
    """A packed operand is packed inside each cache block by the thread that uses it, or once for all threads.

    before:  copy b_packed[n, k] <- b[n, k];  for n0 in N step 256 { for n in n0 step 32 { ... } }
    after:   for n0 in N step 256 { copy b_packed[n, k] <- b[n, k];  for n in n0 step 32 { ... } }      local.b=True
    """

    tensor: str
    wanted: bool

    def apply(self, design: Design) -> Design | Illegal:
        """The design with or without `local.TENSOR`."""
        if self.wanted and design.get(f"pack.{self.tensor}") is None:
            return Illegal(f"{self.tensor} is not packed; pack it first")
        return _changed(design, {f"local.{self.tensor}": True if self.wanted else None})


@dataclass(frozen=True)
class Widen(Named):
    """16-bit operands of dots become f32 when they are packed, or when they are multiplied.

    before:  copy b_packed[n, k] <- b[n, k];  for ... { b0 = load b_packed[n, k] : bf16; ... f32(b0) }
    after:   copy b_packed[n, k] <- f32(b[n, k]);  for ... { b0 = load b_packed[n, k] : f32 }      unpack.b=True
    """

    tensors: tuple[str, ...]
    wanted: bool

    def apply(self, design: Design) -> Design | Illegal:
        """The design with or without `unpack.TENSOR` for each tensor."""
        return _changed(design, {f"unpack.{t}": True if self.wanted else None for t in self.tensors})


@dataclass(frozen=True)
class UseAtom(Named):
    """Dots of one nest by another instruction, their operands in the layout it reads.

    before:  acc0 = fma(a0, b0, acc0)
    after:   acc0 = dpbf16(a0, b0, acc0)      atom.dot0=bf16x2  pack.a=pair  pack.b=pair  tile.k=2
    """

    dots: tuple[str, ...]
    atom: str
    layouts: tuple[tuple[str, str], ...] = ()
    tiles: tuple[tuple[str, int], ...] = ()
    lane: str | None = None

    def apply(self, design: Design) -> Design | Illegal:
        """The design with `atom.DOT=atom` for each dot, those layouts, tiles of whole such numbers of points, and lane.

        Blocks stay whole tiles.
        """
        changes: dict[str, Choice | None] = {f"atom.{d}": self.atom if self.atom != "fma" else None for d in self.dots}
        for tensor, layout in self.layouts:
            changes |= {f"pack.{tensor}": layout, f"unpack.{tensor}": None}
        if self.lane is not None:
            changes["lanes"] = (self.lane, *(a for a in design.names("lanes") if a != self.lane))
        for axis, points in self.tiles:
            tile = -(-design.number(f"tile.{axis}", 1) // points) * points
            changes[f"tile.{axis}"] = tile
            changes |= _whole_tiles(design, axis, tile)
        return _changed(design, changes)


@dataclass(frozen=True)
class Stream(Named):
    """Results are written around the caches, or through them.

    before:  store y[m, n] = y0
    after:   store y[m, n] = y0 @nontemporal      nontemporal.y=True
    """

    tensor: str
    wanted: bool

    def apply(self, design: Design) -> Design | Illegal:
        """The design with or without `nontemporal.TENSOR`."""
        return _changed(design, {f"nontemporal.{self.tensor}": True if self.wanted else None})


@dataclass(frozen=True)
class Prefetch(Named):
    """What a load will read some iterations of the parallel loop later is fetched ahead; 0 iterations: it is not.

    before:  x0 = load x[m, d]
    after:   x0 = load x[m, d] @prefetch=1      prefetch.x0=1
    """

    load: str
    iterations: int

    def apply(self, design: Design) -> Design | Illegal:
        """The design with `prefetch.LOAD=iterations`."""
        return _changed(design, {f"prefetch.{self.load}": self.iterations or None})


@dataclass(frozen=True)
class FetchAhead(Named):
    """What a load will read some tiles of its serial loop later is fetched into the second cache; 0 tiles: it is not.

    before:  for k in K step 128 { b0 = load b[n, k] }
    after:   for k in K step 128 { b0 = load b[n, k] @ahead=16 }      ahead.b0=16
    """

    load: str
    tiles: int

    def apply(self, design: Design) -> Design | Illegal:
        """The design with `ahead.LOAD=tiles`."""
        return _changed(design, {f"ahead.{self.load}": self.tiles or None})


@dataclass(frozen=True)
class Keep(Named):
    """What an earlier loop over a row has computed is read back from scratch by a later one, or computed again.

    before:  for d in D { e = exp x0; ... }  for d1 in D { e1 = exp x1; store y[m, d1] = e1 }
    after:   for d in D { e = exp x0; store kept[m, d] = e; ... }
             for d1 in D { e1 = load kept[m, d1]; store y[m, d1] = e1 }      keep.e1=True
    """

    value: str
    wanted: bool

    def apply(self, design: Design) -> Design | Illegal:
        """The design with or without `keep.VALUE`."""
        return _changed(design, {f"keep.{self.value}": True if self.wanted else None})


@dataclass(frozen=True)
class UseThreads(Named):
    """At most so many threads take part, where the parts are too small for more; 0: all there are.

    before:  4 threads, a quarter of the tiles each
    after:   2 threads, half of the tiles each      threads=2
    """

    count: int

    def apply(self, design: Design) -> Design | Illegal:
        """The design with `threads=count`."""
        return _changed(design, {"threads": self.count or None})


def _whole_tiles(design: Design, axis: str, tile: int) -> dict[str, Choice]:
    """The block and the part of an axis as whole tiles of that many points, where it has them."""
    sizes = {f"{kind}.{axis}": design.number(f"{kind}.{axis}") for kind in ("block", "part")}
    return {name: -(-size // tile) * tile for name, size in sizes.items() if size}


def _changed(design: Design, changes: Mapping[str, Choice | None]) -> Design | Illegal:
    """The design with `changes`, None dropping a decision; Illegal where nothing is changed."""
    decisions: dict[str, Choice | None] = {**dict(design.decisions), **changes}
    result = Design.of({name: choice for name, choice in decisions.items() if choice is not None})
    if result == design:
        return Illegal(f"{', '.join(changes)}: the design has it so already")
    return result


__all__ = [
    "Accumulate", "Block", "Illegal", "Interchange", "Keep", "Mutation", "Named", "Pack", "PackLocally", "Part",
    "Prefetch", "Reorder", "Scalarise", "SetTile", "Stream", "Together", "Unroll", "UseAtom", "UseThreads", "Vectorise",
    "Widen",
]  # fmt: skip
