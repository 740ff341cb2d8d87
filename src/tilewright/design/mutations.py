"""The edges of the design graph: named changes of one decision, or of a few that must move together.

A mutation is a value: `mutation.apply(design)` gives the changed design, or says why there is none. It knows
nothing of the program; `neighbours` derives from a program's structure those mutations whose results are legal.
The meaning of the program never changes, up to the rounding of sums.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol

from tilewright.design.default import Facts
from tilewright.design.design import Choice, Design
from tilewright.design.legality import legal
from tilewright.language import ir, structure


@dataclass(frozen=True)
class Illegal:
    """Why a mutation leads nowhere from a design."""

    reason: str


class Mutation(Protocol):
    """A named, frozen, hashable change of a design."""

    def apply(self, design: Design) -> Design | Illegal:
        """The changed design; Illegal where it would be the same design, or none."""
        ...


# ---------------------------------------------------------------------------------------------- tiles
@dataclass(frozen=True)
class SetTile:
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
        block = design.number(f"block.{self.axis}")
        if block:
            changes[f"block.{self.axis}"] = -(-block // self.points) * self.points
        return _changed(design, changes)


@dataclass(frozen=True)
class Vectorise:
    """Twice as many neighbours along an axis are moved and computed by one instruction.

    before:  for k in K step 2 { a0 = load(A, (i, k), vec=1); a1 = load(A, (i, k+1), vec=1); ... }
    after:   for k in K step 2 { (a0, a1) = load(A, (i, k), vec=2); ... }      lanes=(k)

    An axis that has the lanes already gets a tile, and so a vector, of twice as many points.
    """

    axis: str

    def apply(self, design: Design) -> Design | Illegal:
        """The design with `axis` first in lanes and a tile of two points or more; or with a tile twice as wide."""
        tile = f"tile.{self.axis}"
        if self.axis in design.names("lanes"):
            return SetTile(self.axis, 2 * design.number(tile, 1)).apply(design)
        wider = SetTile(self.axis, max(2, design.number(tile, 1))).apply(design)
        start = wider if isinstance(wider, Design) else design
        return _changed(start, {"lanes": (self.axis, *design.names("lanes"))})


@dataclass(frozen=True)
class Interchange:
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
class Unroll:
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


# --------------------------------------------------------------------------------------------- blocks
@dataclass(frozen=True)
class Block:
    """Tiles are visited cache block by cache block; 0 takes the block away again.

    before:  for m in M step 4, n in N step 32 { ... }
    after:   for m0 in M step 64 { for m in m0 step 4, n in N step 32 { ... } }      block.m=64  inner=(m)
    """

    axis: str
    points: int
    parallel: bool = True  # a block of the summed axis has no place among the inner axes

    def apply(self, design: Design) -> Design | Illegal:
        """The design with `block.AXIS=points`, and the axis among the inner ones."""
        tile = design.number(f"tile.{self.axis}", 1)
        if self.points % tile:
            return Illegal(f"block.{self.axis}={self.points} is not a multiple of tile.{self.axis}={tile}")
        changes: dict[str, Choice | None] = {f"block.{self.axis}": self.points or None}
        if self.parallel:
            inner = [a for a in design.names("inner") if a != self.axis]
            inner += [self.axis] if self.points else []
            changes["inner"] = tuple(inner) or None
        return _changed(design, changes)


@dataclass(frozen=True)
class Reorder:
    """Axes of a loop nest in another order, outside blocks (`order`) or inside (`inner`), slowest first.

    before:  for m in M step 4, n in N step 32 { ... }        order=(m, n)
    after:   for n in N step 32, m in M step 4 { ... }        order=(n, m)
    """

    level: str
    axes: tuple[str, ...]

    def apply(self, design: Design) -> Design | Illegal:
        """The design with that order."""
        if self.level not in ("order", "inner"):
            return Illegal(f"{self.level} is no level of a nest; take order or inner")
        return _changed(design, {self.level: self.axes})


# -------------------------------------------------------------------------------- memory and instructions
@dataclass(frozen=True)
class Pack:
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
class PackLocally:
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
class Widen:
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
class UseAtom:
    """Dots of one nest by another instruction, their operands in the layout it reads.

    before:  acc0 = fma(a0, b0, acc0)
    after:   acc0 = dpbf16(a0, b0, acc0)      atom.dot0=bf16x2  pack.a=pair  pack.b=pair  tile.k=2
    """

    dots: tuple[str, ...]
    atom: str
    layouts: tuple[tuple[str, str], ...] = ()
    tiles: tuple[tuple[str, int], ...] = ()

    def apply(self, design: Design) -> Design | Illegal:
        """The design with `atom.DOT=atom` for each dot, those layouts, and tiles of at least those points."""
        changes: dict[str, Choice | None] = {f"atom.{d}": self.atom if self.atom != "fma" else None for d in self.dots}
        for tensor, layout in self.layouts:
            changes |= {f"pack.{tensor}": layout, f"unpack.{tensor}": None}
        for axis, points in self.tiles:
            changes[f"tile.{axis}"] = -(-design.number(f"tile.{axis}", 1) // points) * points
        return _changed(design, changes)


@dataclass(frozen=True)
class Stream:
    """Results are written around the caches, or through them.

    before:  store y[m, n] = y0
    after:   store y[m, n] = y0 @nontemporal      nontemporal.y=True
    """

    tensor: str
    wanted: bool

    def apply(self, design: Design) -> Design | Illegal:
        """The design with or without `nontemporal.TENSOR`."""
        return _changed(design, {f"nontemporal.{self.tensor}": True if self.wanted else None})


def _changed(design: Design, changes: Mapping[str, Choice | None]) -> Design | Illegal:
    """The design with `changes`, None dropping a decision; Illegal where nothing is changed."""
    decisions: dict[str, Choice | None] = {**dict(design.decisions), **changes}
    result = Design.of({name: choice for name, choice in decisions.items() if choice is not None})
    if result == design:
        return Illegal(f"{', '.join(changes)}: the design has it so already")
    return result


# ----------------------------------------------------------------------------------------- neighbours
def neighbours(kernel: ir.Kernel, design: Design, facts: Facts) -> Iterator[Mutation]:
    """Every mutation of `design` that the program's structure suggests and whose result is legal, in a fixed order."""
    seen = {design}
    for mutation in _suggested(kernel, design, facts):
        result = mutation.apply(design)
        if isinstance(result, Illegal) or result in seen or legal(kernel, result, facts):
            continue
        seen.add(result)
        yield mutation


def _suggested(kernel: ir.Kernel, design: Design, facts: Facts) -> Iterator[Mutation]:
    if facts.machine.kind == "nvidia":
        from tilewright.design.gpu.mutations import suggested_gpu

        yield from suggested_gpu(kernel, design, facts)
        return
    yield from _lane_mutations(kernel, design)
    yield from _tile_mutations(kernel, design)
    for nest in structure.nests(kernel):
        yield from _block_mutations(nest, design, facts)
        yield from _order_mutations(nest, design)
        yield from _dot_mutations(kernel, nest, design, facts)
    stores = {s.ref.buffer for s in ir.walk(kernel.body) if isinstance(s, ir.Store)}
    for tensor in sorted(stores):
        yield Stream(tensor, not design.get(f"nontemporal.{tensor}"))


def _tiled(kernel: ir.Kernel) -> list[str]:
    return [a.name for a in structure.axes(kernel).values() if not a.each]


def _tile_mutations(kernel: ir.Kernel, design: Design) -> Iterator[Mutation]:
    for axis in _tiled(kernel):
        points = design.number(f"tile.{axis}", 1)
        for other in (2 * points, points // 2, points + 1, points - 1):
            if other >= 1:
                yield SetTile(axis, other)
    loops = (s for s in ir.walk(kernel.body) if isinstance(s, ir.Loop) and not s.parallel)
    for axis in dict.fromkeys(loop.axes[-1].name for loop in loops if not loop.axes[-1].each):
        times = design.number(f"unroll.{axis}", 1)
        yield Unroll(axis, 2 * times)
        if times > 1:
            yield Unroll(axis, times // 2)


def _lane_mutations(kernel: ir.Kernel, design: Design) -> Iterator[Mutation]:
    lanes = design.names("lanes")
    for axis in _tiled(kernel):
        yield Vectorise(axis)
    for axis in lanes[1:]:
        yield Interchange(axis)


def _block_mutations(nest: structure.Nest, design: Design, facts: Facts) -> Iterator[Mutation]:
    if not nest.loop.parallel:
        return
    axes = [(a.name, True) for a in nest.loop.axes if not a.each]
    if nest.main is not None and not nest.main.axes[0].each:
        axes.append((nest.main.axes[0].name, False))
    for axis, parallel in axes:
        tile, block = design.number(f"tile.{axis}", 1), design.number(f"block.{axis}")
        sizes: Iterable[int] = (2 * block, block // 2, 0) if block else (4 * tile, 16 * tile)
        for size in sizes:
            if size % tile == 0 and size >= 0:
                yield Block(axis, size, parallel)


def _order_mutations(nest: structure.Nest, design: Design) -> Iterator[Mutation]:
    """Neighbouring axes change places."""
    if not nest.loop.parallel:
        return
    written = tuple(a.name for a in nest.loop.axes if not a.each)
    blocked = tuple(a for a in written if design.get(f"block.{a}") is not None)
    for level, present in (("order", design.names("order") or written), ("inner", design.names("inner") or blocked)):
        for n in range(len(present) - 1):
            yield Reorder(level, (*present[:n], present[n + 1], present[n], *present[n + 2 :]))


def _dot_mutations(kernel: ir.Kernel, nest: structure.Nest, design: Design, facts: Facts) -> Iterator[Mutation]:
    operands = _operands(kernel, nest)
    for tensor in operands:
        for layout in (None, "panel", "pair", "tile"):
            yield Pack(tensor, layout)
        yield PackLocally(tensor, not design.get(f"local.{tensor}"))
    yield Widen(operands, not all(design.get(f"unpack.{t}") for t in operands))
    dots = tuple(d.name for d in nest.dots)
    if not dots:
        return
    sums = tuple(dict.fromkeys(d.expr.axis for d in nest.dots if isinstance(d.expr, ir.Dot)))
    yield UseAtom(dots, "fma")
    yield UseAtom(dots, "fma", tuple((t, "panel") for t in operands))
    yield UseAtom(dots, "bf16x2", (), tuple((k, 2 * facts.lanes) for k in sums))
    yield UseAtom(dots, "bf16x2", tuple((t, "pair") for t in operands), tuple((k, 2) for k in sums))


def _operands(kernel: ir.Kernel, nest: structure.Nest) -> tuple[str, ...]:
    """Tensors that dots of a nest read."""
    values = structure.lets(kernel)
    names = [n for d in nest.dots if isinstance(d.expr, ir.Dot) for n in (d.expr.a, d.expr.b)]
    loads = [values[n].expr for n in names]
    return tuple(dict.fromkeys(e.ref.buffer for e in loads if isinstance(e, ir.Load)))


__all__ = [
    "Block", "Illegal", "Interchange", "Mutation", "Pack", "PackLocally", "Reorder", "SetTile", "Stream", "Unroll",
    "UseAtom", "Vectorise", "Widen", "neighbours",
]  # fmt: skip
