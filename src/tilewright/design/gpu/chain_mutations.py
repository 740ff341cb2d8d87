"""Changes of designs of chains: tiles, rings, what overlaps, who takes turns, the order of tiles."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from tilewright.design.default import Facts
from tilewright.design.design import Design
from tilewright.design.gpu.chain import Chain
from tilewright.design.gpu.chain_design import COLUMNS, PACKS, SHAPES
from tilewright.design.gpu.mutations import Cache, Deepen, OrderTiles, Persist, Reshape, StoreBy, changed
from tilewright.design.mutation import Illegal, Mutation, Named


@dataclass(frozen=True)
class Lag(Named):
    """The second product of a step is issued after the first of the next one, and runs under what is computed of that.

    before:  pv = dot pb vt over t @atom=wgmma
    after:   pv = dot pb vt over t @atom=wgmma @behind=1
    """

    wanted: bool

    def apply(self, design: Design) -> Design | Illegal:
        """The design with or without `overlap`; without it warpgroups do not take turns."""
        return changed(design, {"overlap": True} if self.wanted else {"overlap": None, "schedule": None})


@dataclass(frozen=True)
class TakeTurns(Named):
    """One warpgroup's products at a time: the others compute meanwhile.

    before:  role consumer { for i { .. qk = dot q0 k0 .. } }
    after:   role consumer { for i { sync turn wait;  .. qk = dot q0 k0 ..;  sync turn arrive .. } }
    """

    wanted: bool

    def apply(self, design: Design) -> Design | Illegal:
        """The design with `schedule=pingpong` and what that needs, or without."""
        return changed(design, {"schedule": "pingpong", "overlap": True} if self.wanted else {"schedule": None})


@dataclass(frozen=True)
class Draw(Named):
    """Blocks that stay draw their next tile when they are free, or have their tiles dealt beforehand.

    before:  for each h in H, i0 in S step 128 parallel @bind=grid @persistent=true
    after:   for each h in H, i0 in S step 128 parallel @bind=grid @drawn=true @persistent=true
    """

    wanted: bool

    def apply(self, design: Design) -> Design | Illegal:
        """The design with `drawn` and what that needs, or without."""
        return changed(design, {"drawn": True, "persistent": True} if self.wanted else {"drawn": None})


@dataclass(frozen=True)
class RunAhead(Named):
    """What a tile copies once is copied while the tile before is worked on, or when that is done with its own.

    before:  for each h in H, i0 in S step 128 parallel @bind=grid { alloc s_q .. }
    after:   for each h in H, i0 in S step 128 parallel @bind=grid @stages=2 { alloc s_q @stages=2 .. }
    """

    items: int

    def apply(self, design: Design) -> Design | Illegal:
        """The design with `stages.item`; one is none."""
        return changed(design, {"stages.item": self.items if self.items > 1 else None})


@dataclass(frozen=True)
class Descend(Named):
    """The last tiles of rows come first: they have the most columns where later rows see more.

    before:  for each h in H, i0 in S step 128 parallel @bind=grid
    after:   for each h in H, i0 in S step 128 parallel @bind=grid @descending=true
    """

    wanted: bool

    def apply(self, design: Design) -> Design | Illegal:
        """The design with or without `grid.descending`."""
        return changed(design, {"grid.descending": True if self.wanted else None})


@dataclass(frozen=True)
class OwnSteps(Named):
    """Each warpgroup takes the steps that its own rows need: fewer, and fewer with masks, where rows see other columns.

    before:  for t in T to stop step 128 @stages=3
    after:   for t in T to stop step 128 @own=true @stages=3
    """

    wanted: bool

    def apply(self, design: Design) -> Design | Illegal:
        """The design with or without `own`."""
        return changed(design, {"own": True if self.wanted else None})


@dataclass(frozen=True)
class Pack(Named):
    """Positions of an axis that share all columns lie side by side in a tile of rows: query heads of one head of keys.

    before:  for each h in H, each g in G, i0 in S step 128 parallel @bind=grid
    after:   for each h in H, g0 in G step 4, i0 in S step 32 parallel @bind=grid
    """

    axis: str
    row: str
    positions: int

    def apply(self, design: Design) -> Design | Illegal:
        """The design with so many positions in a tile, and as many rows in all; 1 is none."""
        rows = design.number(f"tile.{self.row}") * design.number(f"tile.{self.axis}", 1)
        if rows % self.positions:
            return Illegal(f"{rows} rows are not {self.positions} equal parts")
        packed = {f"tile.{self.axis}": self.positions if self.positions > 1 else None}
        return changed(design, {**packed, f"tile.{self.row}": rows // self.positions})


def suggested_chain(c: Chain, design: Design, facts: Facts) -> Iterator[Mutation]:
    """Every mutation that the structure suggests, whether legal or not, in a fixed order."""
    row, step, stages = c.row.name, c.step.name, design.number("stages", 2)
    schedule = str(design.get("schedule", "cooperative"))
    shapes: list[tuple[int, int, int]] = [(r, g, design.number(f"tile.{step}")) for r, g in SHAPES]
    shapes += [(design.number(f"tile.{row}"), design.number("warpgroups", 1), n) for n in COLUMNS]
    for rows, groups, columns in shapes:
        tiles = tuple(sorted(((row, rows), (step, columns))))
        yield Reshape(tiles, groups, schedule if groups > 1 else "cooperative", stages)
        yield Reshape(tiles, groups, schedule if groups > 1 else "cooperative", 2)
    yield from (Deepen(n) for n in (stages - 1, stages + 1) if n > 0)
    yield Lag(not design.get("overlap"))
    yield TakeTurns(schedule == "cooperative")
    yield from (RunAhead(items) for items in (1, 2))
    if c.packed is not None and facts.sizes.get(c.packed.over, 1) > 1:
        yield from (Pack(c.packed.name, row, n) for n in PACKS)
    yield OwnSteps(not design.get("own"))
    yield Draw(not design.get("drawn"))
    yield Descend(not design.get("grid.descending"))
    yield from (OrderTiles("grouped", group) for group in (4, 8, 16, 32))
    yield OrderTiles("row")
    if not design.get("drawn") and design.number("stages.item", 1) == 1:
        yield Persist(not design.get("persistent"))
    for tensor in c.outputs:
        yield from (StoreBy(tensor, way, stages) for way in ("direct", "tma"))
    policies: tuple[str | None, ...] = (None, "evict_first", "evict_last")
    for tensor in dict.fromkeys(o.tensor for o in (*c.still, *c.moving)):
        yield from (Cache(tensor, policy) for policy in policies)


__all__ = ["Descend", "Draw", "Lag", "OwnSteps", "Pack", "RunAhead", "TakeTurns", "suggested_chain"]
