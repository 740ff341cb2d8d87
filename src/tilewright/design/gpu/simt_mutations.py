"""Changes of designs whose threads all do the same: tiles, warps, lanes, widths of accesses, rings of panels."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from tilewright.design.default import Facts
from tilewright.design.design import Choice, Design
from tilewright.design.gpu.mutations import Deepen, OrderTiles, changed
from tilewright.design.gpu.row_mutations import suggested_rows
from tilewright.design.gpu.stream import loads_ahead
from tilewright.design.mutation import Illegal, Mutation, Named
from tilewright.design.mutation_tiles import SetTile, Unroll
from tilewright.language import ir, structure


@dataclass(frozen=True)
class Warps(Named):
    """More or fewer warps work on the tile of a block.

    before:  kernel k(...) @threads=128 { ... }
    after:   kernel k(...) @threads=256 { ... }
    """

    warps: int

    def apply(self, design: Design) -> Design | Illegal:
        """The design with `warps`."""
        return changed(design, {"warps": self.warps})


@dataclass(frozen=True)
class Lead(Named):
    """An axis gets threads before all others.

    before:  kernel k(...) @lanes=(n,m) { ... }     neighbouring threads hold neighbours along n
    after:   kernel k(...) @lanes=(m,n) { ... }     along m
    """

    axis: str

    def apply(self, design: Design) -> Design | Illegal:
        """The design with the axis first in `lanes`."""
        rest = tuple(a for a in design.names("lanes") if a != self.axis)
        return changed(design, {"lanes": (self.axis, *rest)})


@dataclass(frozen=True)
class Vector(Named):
    """One access moves more or fewer neighbours of a tensor.

    before:  x0 = load x[m, d] @vec=4
    after:   x0 = load x[m, d] @vec=8
    """

    tensor: str
    elements: int

    def apply(self, design: Design) -> Design | Illegal:
        """The design with `vec.TENSOR`; one element is none."""
        return changed(design, {f"vec.{self.tensor}": self.elements if self.elements > 1 else None})


@dataclass(frozen=True)
class Engine(Named):
    """An operand is copied to shared memory by the copy hardware, or through registers.

    before:  copy s_a[m, k] <- a[m, k] @engine=cp_async
    after:   copy s_a[m, k] <- a[m, k] @engine=plain
    """

    tensor: str
    engine: str

    def apply(self, design: Design) -> Design | Illegal:
        """The design with `engine.TENSOR`."""
        return changed(design, {f"engine.{self.tensor}": self.engine})


@dataclass(frozen=True)
class Resident(Named):
    """So many blocks share an SM, with fewer registers for each.

    before:  kernel k(...) @threads=256 { ... }
    after:   kernel k(...) @resident=2 @threads=256 { ... }
    """

    blocks: int

    def apply(self, design: Design) -> Design | Illegal:
        """The design with `resident`; one block is none."""
        return changed(design, {"resident": self.blocks if self.blocks > 1 else None})


@dataclass(frozen=True)
class DealRange(Named):
    """A block takes more or less of a serial loop's range; what blocks have is joined by the last of them.

    before:  for ts in T step 512 @bind=grid @how=two_pass { for tw in ts step 64 @bind=warp ... { ... } }
    after:   for ts in T step 256 @bind=grid @how=two_pass { for tw in ts step 32 @bind=warp ... { ... } }
    """

    axis: str
    points: int

    def apply(self, design: Design) -> Design | Illegal:
        """The design with `part.AXIS`."""
        return changed(design, {f"part.{self.axis}": self.points})


@dataclass(frozen=True)
class FetchAhead(Named):
    """What dots read is on its way so many steps ahead, through shared memory; none: loaded when its step comes.

    before:  for t in tw step 16 { k = load k[b, t, D] ... }
    after:   for t in tw step 16 { k = load k[b, t, D] @prefetch=2 ... }
    """

    steps: int

    def apply(self, design: Design) -> Design | Illegal:
        """The design with `stages`."""
        return changed(design, {"stages": self.steps or None})


@dataclass(frozen=True)
class Bring(Named):
    """What is on its way ahead is brought by the copy engine, by the threads, or straight to the registers of its use.

    before:  k = load k[b, t, D] @prefetch=2
    after:   k = load k[b, t, D] @engine=tma @prefetch=2
    """

    tensors: tuple[str, ...]
    engine: str | None

    def apply(self, design: Design) -> Design | Illegal:
        """The design with `engine.TENSOR` of all these tensors, or without; registers hold one step."""
        one: dict[str, Choice | None] = {"stages": 1} if self.engine == "registers" else {}
        return changed(design, {**one, **{f"engine.{t}": self.engine for t in self.tensors}})


@dataclass(frozen=True)
class TakeTurns(Named):
    """The warps of a block take the steps of its part in turns, side by side in memory; or each has a share of its own.

    before:  for tw in ts step 64 @bind=warp { for t in tw step 16 { ... } }
    after:   for tw in ts step 64 @bind=warp { for t in tw step 16 @turns=4 { ... } }
    """

    wanted: bool

    def apply(self, design: Design) -> Design | Illegal:
        """The design with or without `turns`."""
        return changed(design, {"turns": True if self.wanted else None})


@dataclass(frozen=True)
class ChangePlaces(Named):
    """The operands of dots change places: the other axis of the result lies along the rows of the atom.

    before:  d = dot x y over k @atom=mma
    after:   d = dot x y over k @atom=mma @swap=true
    """

    wanted: bool

    def apply(self, design: Design) -> Design | Illegal:
        """The design with or without `swap`."""
        return changed(design, {"swap": True if self.wanted else None})


def suggested_simt(kernel: ir.Kernel, design: Design, facts: Facts) -> Iterator[Mutation]:
    """Every mutation that the structure suggests, whether legal or not, in a fixed order."""
    for axis in (a.name for a in structure.axes(kernel).values() if not a.each):
        points = design.number(f"tile.{axis}", 1)
        yield from (SetTile(axis, n) for n in (2 * points, points // 2) if n)
    warps = design.number("warps", 4)
    yield from (Warps(n) for n in (2 * warps, warps // 2) if n)
    yield from (Resident(n) for n in (1, 2, 3, 4))
    engines: dict[str, Choice] = dict(design.prefixed("engine"))
    if parts := dict(design.prefixed("part")):
        yield from _parts(kernel, design, parts)
    elif engines:
        yield from _panels(design, engines)
    else:
        yield from _threads(kernel, design)
        if not any(isinstance(v.expr, ir.Dot) for v in structure.lets(kernel).values()):
            yield from suggested_rows(kernel, design)


def _panels(design: Design, engines: dict[str, Choice]) -> Iterator[Mutation]:
    stages = design.number("stages", 2)
    yield from (Deepen(n) for n in (stages + 1, stages - 1))
    for tensor in engines:
        yield from (Engine(tensor, engine) for engine in ("cp_async", "plain"))
    yield from (OrderTiles("grouped", group) for group in (4, 8, 16))
    yield OrderTiles("row")
    yield ChangePlaces(not design.get("swap"))


def _parts(kernel: ir.Kernel, design: Design, parts: dict[str, Choice]) -> Iterator[Mutation]:
    for axis, points in parts.items():
        assert isinstance(points, int)
        yield from (DealRange(axis, n) for n in (2 * points, points // 2) if n)
    yield from (FetchAhead(steps) for steps in (0, 2, 3, 4))
    yield TakeTurns(not design.get("turns"))
    tensors = tuple(sorted({ahead.ref.buffer for ahead in loads_ahead(kernel)}))
    yield from (Bring(tensors, engine) for engine in (None, "tma", "registers"))


def _threads(kernel: ir.Kernel, design: Design) -> Iterator[Mutation]:
    yield from (Lead(axis) for axis in design.names("lanes")[1:])
    for tensor, elements in design.prefixed("vec"):
        assert isinstance(elements, int)
        yield from (Vector(tensor, n) for n in (2 * elements, elements // 2) if n)
    for loop in (s for s in ir.walk(kernel.body) if isinstance(s, ir.Loop) and not s.parallel):
        times = design.number(f"unroll.{loop.axes[-1].name}", 1)
        yield from (Unroll(loop.axes[-1].name, n) for n in (2 * times, times // 2) if n)


__all__ = [
    "Bring",
    "ChangePlaces",
    "DealRange",
    "Engine",
    "FetchAhead",
    "Lead",
    "Resident",
    "TakeTurns",
    "Vector",
    "Warps",
    "suggested_simt",
]
