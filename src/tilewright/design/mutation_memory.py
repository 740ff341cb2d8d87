"""Mutations of what loops move and compute with: packed operands, instructions, ways around the caches, threads."""

from __future__ import annotations

from dataclasses import dataclass

from tilewright.design.design import Choice, Design
from tilewright.design.mutation import Illegal, Named, changed
from tilewright.design.mutation_tiles import whole_tiles


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
        return changed(design, changes)


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
        return changed(design, {f"local.{self.tensor}": True if self.wanted else None})


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
        return changed(design, {f"unpack.{t}": True if self.wanted else None for t in self.tensors})


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
            changes |= whole_tiles(design, axis, tile)
        return changed(design, changes)


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
        return changed(design, {f"nontemporal.{self.tensor}": True if self.wanted else None})


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
        return changed(design, {f"prefetch.{self.load}": self.iterations or None})


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
        return changed(design, {f"ahead.{self.load}": self.tiles or None})


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
        return changed(design, {f"keep.{self.value}": True if self.wanted else None})


@dataclass(frozen=True)
class UseThreads(Named):
    """At most so many threads take part, where the parts are too small for more; 0: all there are.

    before:  4 threads, a quarter of the tiles each
    after:   2 threads, half of the tiles each      threads=2
    """

    count: int

    def apply(self, design: Design) -> Design | Illegal:
        """The design with `threads=count`."""
        return changed(design, {"threads": self.count or None})


@dataclass(frozen=True)
class Deal(Named):
    """Threads take tiles one by one in turn, or draw short runs of them when they are free; None: one run each.

    Turns mix tiles of more and of less work. Draws also serve threads of which one begins late, or is slower.

    before:  for s in share(range(0, S, 4))      thread 1 of 2: the later half, with most keys under a causal mask
    after:   for s in turns(range(0, S, 4))      thread 1 of 2: every second tile      dealt=turns
    """

    how: str | None

    def apply(self, design: Design) -> Design | Illegal:
        """The design with `dealt=how`."""
        return changed(design, {"dealt": self.how})


__all__ = ["Deal", "FetchAhead", "Keep", "Pack", "PackLocally", "Prefetch", "Stream", "UseAtom", "UseThreads", "Widen"]
