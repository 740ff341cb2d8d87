"""Changes of a GPU design: each names what it changes, and leaves the meaning of the program as it is."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from tilewright.design.default import Facts
from tilewright.design.design import Choice, Design
from tilewright.design.gpu.chain import chain
from tilewright.design.gpu.default import FEW_ROWS, deepest_ring, shapes
from tilewright.design.gpu.product import Product, product
from tilewright.design.gpu.resources import Resources
from tilewright.design.gpu.straight import is_straight
from tilewright.design.mutation import Illegal, Mutation, Named
from tilewright.language import ir


@dataclass(frozen=True)
class Reshape(Named):
    """Another tile of the result, and with it warpgroups, their schedule, and the depth of the ring.

    before:  for m0 in M step 128, n0 in N step 256 ... { for m in m0 step 64 parallel @bind=warpgroup { ... } }
    after:   for m0 in M step 256, n0 in N step 128 ... { for m in m0 step 64 parallel @bind=warpgroup { ... } }
    """

    tiles: tuple[tuple[str, int], ...]
    warpgroups: int
    schedule: str
    stages: int

    def apply(self, design: Design) -> Design | Illegal:
        """The design with `tile.AXIS`, `warpgroups`, `schedule` and `stages`."""
        changes: dict[str, Choice | None] = {f"tile.{axis}": points for axis, points in self.tiles}
        changes |= {"warpgroups": self.warpgroups, "stages": self.stages}
        changes["schedule"] = self.schedule if self.schedule != "cooperative" else None
        return changed(design, changes)


@dataclass(frozen=True)
class Deepen(Named):
    """More or fewer steps of the main loop in flight.

    before:  for k in K step 64 @stages=4 { alloc s_a @stages=4 ... }
    after:   for k in K step 64 @stages=6 { alloc s_a @stages=6 ... }
    """

    stages: int

    def apply(self, design: Design) -> Design | Illegal:
        """The design with `stages`."""
        return changed(design, {"stages": self.stages})


@dataclass(frozen=True)
class Lengthen(Named):
    """Longer or shorter steps of the main loop, in a ring of as many bytes.

    before:  for k in K step 64 @stages=8 { ... }
    after:   for k in K step 128 @stages=4 { ... }
    """

    axis: str
    points: int
    stages: int

    def apply(self, design: Design) -> Design | Illegal:
        """The design with `tile.AXIS=points` and `stages`."""
        return changed(design, {f"tile.{self.axis}": self.points, "stages": self.stages})


@dataclass(frozen=True)
class SplitSum(Named):
    """A sum in parts that are dealt to blocks and joined in order; one part: by one block.

    before:  for k in K step 64 { ... };  store c[m, n] = acc
    after:   for s in K step 2048 @bind=grid @how=two_pass { for k in s step 64 { ... } ... }

    Joined in order by one block (`two_pass`), by the blocks of a cluster, or in memory by atomics in any order.
    """

    axis: str
    parts: int
    how: str
    stages: int

    def apply(self, design: Design) -> Design | Illegal:
        """The design with `split.AXIS` and `how.AXIS`; results of parts leave directly."""
        one = self.parts == 1
        changes: dict[str, Choice | None] = {
            f"split.{self.axis}": None if one else self.parts,
            f"how.{self.axis}": None if one else self.how,
            "stages": self.stages,
        }
        if not one:
            changes |= {name: None for name, _ in design.decisions if name.startswith("store.")}
        return changed(design, changes)


@dataclass(frozen=True)
class Spread(Named):
    """Neighbouring blocks along an axis form a cluster: what does not depend on the axis is read once for all.

    before:  for m0 in M step 128 ... { copy s_b <- b @engine=tma }
    after:   for m0 in M step 256 ... { for m1 in m0 step 128 parallel @bind=cluster { copy s_b <- b @multicast=2 } }
    """

    axis: str
    blocks: int

    def apply(self, design: Design) -> Design | Illegal:
        """The design with `cluster.AXIS=blocks`; one block is no cluster."""
        return changed(design, {f"cluster.{self.axis}": self.blocks if self.blocks > 1 else None})


@dataclass(frozen=True)
class OrderTiles(Named):
    """Tiles are dealt out row by row, in groups of rows, or along a Hilbert curve.

    before:  for m0 in M, n0 in N parallel @bind=grid @order=row
    after:   for m0 in M, n0 in N parallel @bind=grid @group=8 @order=grouped
    """

    order: str
    group: int = 8

    def apply(self, design: Design) -> Design | Illegal:
        """The design with `grid.order` and, where it is grouped, `grid.group`."""
        return changed(
            design, {"grid.order": self.order, "grid.group": self.group if self.order == "grouped" else None}
        )


@dataclass(frozen=True)
class Persist(Named):
    """Blocks stay and take tile after tile, or there is a block for each.

    before:  for m0 in M, n0 in N parallel @bind=grid
    after:   for m0 in M, n0 in N parallel @bind=grid @persistent=true
    """

    wanted: bool

    def apply(self, design: Design) -> Design | Illegal:
        """The design with or without `persistent`."""
        return changed(design, {"persistent": True if self.wanted else None})


@dataclass(frozen=True)
class StoreBy(Named):
    """Results leave from registers, or through shared memory and the copy engine while the next tile is begun.

    before:  store c[m, n] = v
    after:   alloc s_c @stages=2;  store s_c[m, n] = v;  copy c[m, n] <- s_c[m, n] @engine=tma
    """

    tensor: str
    way: str
    stages: int

    def apply(self, design: Design) -> Design | Illegal:
        """The design with `store.TENSOR`, and a ring that leaves room for it."""
        return changed(
            design, {f"store.{self.tensor}": self.way if self.way != "direct" else None, "stages": self.stages}
        )


@dataclass(frozen=True)
class Cache(Named):
    """What L2 does with a tensor once it was read.

    before:  copy s_b <- b @engine=tma
    after:   copy s_b <- b @cache=evict_first @engine=tma
    """

    tensor: str
    policy: str | None

    def apply(self, design: Design) -> Design | Illegal:
        """The design with `cache.TENSOR=policy`, or without one."""
        return changed(design, {f"cache.{self.tensor}": self.policy})


@dataclass(frozen=True)
class Boxes(Named):
    """One instruction of the copy engine moves so many rows of a tensor, or as many as it can (None).

    before:  copy s_b <- b @engine=tma
    after:   copy s_b <- b @box=8 @engine=tma
    """

    tensor: str
    rows: int | None

    def apply(self, design: Design) -> Design | Illegal:
        """The design with `box.TENSOR`, or without one."""
        return changed(design, {f"box.{self.tensor}": self.rows})


@dataclass(frozen=True)
class Overlap(Named):
    """The matrix unit works on one step while the next is issued, or each step is waited for.

    before:  dot0 = dot a0 b0 over k @atom=wgmma @inflight=0
    after:   dot0 = dot a0 b0 over k @atom=wgmma @inflight=1
    """

    steps: int

    def apply(self, design: Design) -> Design | Illegal:
        """The design with `inflight`."""
        return changed(design, {"inflight": None if self.steps == 1 else self.steps})


@dataclass(frozen=True)
class ReadEarly(Named):
    """What is read beside the sums is asked for before the main loop and waits in registers, or behind it.

    before:  for k in K { ... };  residual0 = load residual[m, n]
    after:   alloc held @place=register;  early = load residual[m, n0];  store held[m, n0] = early
             for k in K { ... };  residual0 = load held[m, n]                              early.residual=True
    """

    tensor: str
    wanted: bool

    def apply(self, design: Design) -> Design | Illegal:
        """The design with or without `early.TENSOR`."""
        return changed(design, {f"early.{self.tensor}": True if self.wanted else None})


@dataclass(frozen=True)
class Stagger(Named):
    """A warpgroup begins some steps after the one before it, and so ends later: it multiplies meanwhile; 0: together.

    before:  role consumer @warps=8 { ... }
    after:   role consumer @stagger=2 @warps=8 { ... }
    """

    steps: int

    def apply(self, design: Design) -> Design | Illegal:
        """The design with `stagger`, or without one."""
        return changed(design, {"stagger": self.steps or None})


@dataclass(frozen=True)
class PackRows(Named):
    """An operand is copied first to rows that the copy engine can read, or read where it lies.

    before:  copy sa[m, k] <- a[m, k] @engine=plain
    after:   a' = a, rows at multiples of 128 bytes;  copy sa[m, k] <- a'[m, k] @engine=tma      pack.a=row
    """

    tensor: str
    wanted: bool

    def apply(self, design: Design) -> Design | Illegal:
        """The design with or without `pack.TENSOR=row`."""
        return changed(design, {f"pack.{self.tensor}": "row" if self.wanted else None})


def changed(design: Design, changes: Mapping[str, Choice | None]) -> Design | Illegal:
    """The design with `changes`, None dropping a decision; Illegal where nothing is changed."""
    decisions: dict[str, Choice | None] = {**dict(design.decisions), **changes}
    result = Design.of({name: choice for name, choice in decisions.items() if choice is not None})
    return Illegal(f"{', '.join(changes)}: the design has it so already") if result == design else result


def suggested_gpu(kernel: ir.Kernel, design: Design, facts: Facts) -> Iterator[Mutation]:
    """Every mutation that a program suggests, with the matrix unit or without, legal or not, in a fixed order."""
    found = product(kernel)
    if is_straight(design) and not isinstance(found, str):
        from tilewright.design.gpu.straight_mutations import suggested_straight

        yield from suggested_straight(found, design, facts)
        return
    on_unit = any(atom == "wgmma" for _, atom in design.prefixed("atom"))
    if on_unit and isinstance(found, str) and not isinstance(chained := chain(kernel), str):
        from tilewright.design.gpu.chain_mutations import suggested_chain

        yield from suggested_chain(chained, design, facts)
        return
    if isinstance(found, str) or not on_unit:
        from tilewright.design.gpu.simt_mutations import suggested_simt

        yield from suggested_simt(kernel, design, facts)
        return
    r = Resources(found, design, facts)
    yield from _shapes(r)
    yield from _rings(r)
    yield from _splits(r)
    for axis in (found.m.name, found.n.name):
        yield from (Spread(axis, blocks) for blocks in (1, 2, 4))
    few = found.size(found.m, facts) <= FEW_ROWS  # one column of tiles: their order is no choice
    if not few:
        yield from (OrderTiles("grouped", group) for group in (4, 8, 16))
        yield from (OrderTiles(order) for order in ("row", "hilbert"))
    yield Persist(not design.get("persistent"))
    for tensor in found.outputs:
        for way in ("direct", "tma"):
            yield StoreBy(tensor, way, _fit(r, {f"store.{tensor}": way}))
    yield from (ReadEarly(tensor, not design.get(f"early.{tensor}")) for tensor in r.beside)
    for tensor in dict.fromkeys(o.tensor for o in found.operands if not few or o.axis == found.n.name):
        yield from (Cache(tensor, policy) for policy in (None, "evict_first", "evict_last"))
        yield from (Boxes(tensor, rows) for rows in (None, 8, 16) if few)
    for tensor in dict.fromkeys(o.tensor for o in found.operands):
        if tensor not in facts.aligned or design.get(f"pack.{tensor}") is not None:
            yield PackRows(tensor, design.get(f"pack.{tensor}") is None)
    yield from (Stagger(steps) for steps in (0, 1, 2) if design.number("warpgroups", 1) > 1 or not steps)
    yield Overlap(1 - design.number("inflight", 1))
    from tilewright.design.gpu.straight_mutations import straightened

    yield from straightened(found, facts)


def _shapes(r: Resources) -> Iterator[Mutation]:
    p: Product = r.product
    for rows, columns, groups, schedule in shapes(p, r.facts, r.swap):
        tiles = ((r.row, rows), (r.column, columns))
        change: dict[str, Choice] = {"warpgroups": groups, "schedule": schedule}
        change |= {f"tile.{a}": n for a, n in tiles}
        yield Reshape(tuple(sorted(tiles)), groups, schedule, _fit(r, change))


def _rings(r: Resources) -> Iterator[Mutation]:
    stages, depth = r.design.number("stages"), r.depth
    most = deepest_ring(r.product, r.design, r.facts)
    # Where steps are many and small, one more or less is no other design.
    near = (stages - 1, stages + 1) if most < 8 else (most // 3,)
    yield from (Deepen(n) for n in dict.fromkeys((*near, stages // 2, most // 2, most)) if n > 1)
    k = r.product.k.name
    yield Lengthen(k, 2 * depth, max(2, stages // 2))
    yield Lengthen(k, max(1, depth // 2), 2 * stages)


def _splits(r: Resources) -> Iterator[Mutation]:
    k = r.product.k.name
    for parts in (1, 2, 3, 4, 5, 6, 8, 12, 16):
        for how in ("cluster", "two_pass", "atomic") if parts > 1 else ("two_pass",):
            yield SplitSum(k, parts, how, _fit(r, {f"split.{k}": parts, f"how.{k}": how}))


def _fit(r: Resources, change: Mapping[str, Choice]) -> int:
    """As many stages as fit after a change, and no more than there were or than are usual."""
    after = Design.of({**dict(r.design.decisions), **change})
    return min(max(r.design.number("stages"), 4), deepest_ring(r.product, after, r.facts))


__all__ = [
    "Boxes", "Cache", "Deepen", "Lengthen", "OrderTiles", "Overlap", "PackRows", "Persist", "ReadEarly", "Reshape",
    "SplitSum", "Spread", "Stagger", "StoreBy", "changed", "suggested_gpu",
]  # fmt: skip
