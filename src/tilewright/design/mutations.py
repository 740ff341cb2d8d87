"""The edges of the design graph at one design: which mutations a program's structure suggests, and which are legal."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from tilewright.design.atoms import TILED
from tilewright.design.default import Facts
from tilewright.design.design import Design
from tilewright.design.legality import DEALT, legal
from tilewright.design.mutation import Illegal, Mutation, Together
from tilewright.design.mutation_memory import (
    Deal,
    FetchAhead,
    Keep,
    Pack,
    PackLocally,
    Prefetch,
    Stream,
    UseAtom,
    UseThreads,
    Widen,
)
from tilewright.design.mutation_tiles import (
    Accumulate,
    Block,
    Interchange,
    Part,
    Reorder,
    Scalarise,
    Scatter,
    SetTile,
    Unroll,
    Vectorise,
)
from tilewright.design.panels import TILE_BYTES, WORDS
from tilewright.design.twins import twins
from tilewright.design.view import View
from tilewright.language import ir, structure
from tilewright.language.dtypes import dtype

ACCUMULATORS = (1, 2, 4, 8)
"""Accumulators of one sum: as many as hide the latency of the additions, in powers of two."""


def neighbours(kernel: ir.Kernel, design: Design, facts: Facts) -> Iterator[Mutation]:
    """Every mutation of `design` that the program's structure suggests and whose result is legal, in a fixed order."""
    for mutation, _ in steps(kernel, design, facts):
        yield mutation


def steps(kernel: ir.Kernel, design: Design, facts: Facts) -> Iterator[tuple[Mutation, Design]]:
    """The neighbours with the designs that they lead to, each design once."""
    seen = {design}
    for mutation in suggested(kernel, design, facts):
        result = mutation.apply(design)
        if isinstance(result, Illegal) or result in seen:
            continue
        seen.add(result)
        if not legal(kernel, result, facts):
            yield mutation, result


def suggested(kernel: ir.Kernel, design: Design, facts: Facts) -> Iterator[Mutation]:
    """Every mutation that the structure suggests, whether legal or not, in a fixed order."""
    if facts.machine.kind == "systolic":
        from tilewright.design.systolic.design import suggested_systolic

        yield from suggested_systolic(kernel, design, facts)
        return
    if facts.machine.kind == "dataflow":
        from tilewright.design.dataflow.design import suggested_dataflow

        yield from suggested_dataflow(kernel, design, facts)
        return
    if facts.machine.kind == "nvidia":
        from tilewright.design.gpu.mutations import suggested_gpu

        yield from suggested_gpu(kernel, design, facts)
        return
    yield from _lane_mutations(kernel, design)
    yield from _tile_mutations(kernel, design, facts)
    yield from _sum_mutations(kernel, design, facts)
    for nest in structure.nests(kernel):
        yield from _block_mutations(kernel, nest, design)
        yield from _order_mutations(nest, design)
        yield from _scatter_mutations(kernel, nest, design, facts)
        yield from _pack_mutations(kernel, nest, design)
        yield from _atom_mutations(kernel, nest, facts)
        yield from _prefetch_mutations(nest, design)
        yield from _part_mutations(kernel, nest, design, facts)
    stores = {s.ref.buffer for s in ir.walk(kernel.body) if isinstance(s, ir.Store)}
    for tensor in sorted(stores):
        yield Stream(tensor, not design.get(f"nontemporal.{tensor}"))
    for value in (name for name, twin in twins(kernel).items() if twin.is_computed):
        yield Keep(value, not design.get(f"keep.{value}"))
    yield from _thread_mutations(kernel, design, facts)


# ------------------------------------------------------------------------------------- tiles and lanes
def _tiled(kernel: ir.Kernel) -> list[str]:
    return [a.name for a in structure.axes(kernel).values() if not a.each]


def _whole(kernel: ir.Kernel) -> list[str]:
    """Dims that values lie along as a whole."""
    used = {a for let in structure.lets(kernel).values() for a in let.type.axes}
    return [d for d in kernel.dims if d in used and d not in structure.axes(kernel)]


def _lane_mutations(kernel: ir.Kernel, design: Design) -> Iterator[Mutation]:
    lanes = design.names("lanes")
    for axis in _tiled(kernel):
        yield Vectorise(axis)
    for axis in _whole(kernel):
        if axis not in lanes:
            yield Vectorise(axis, tiled=False)
    for axis in lanes[1:]:
        yield Interchange(axis)
    for axis in lanes:
        yield Scalarise(axis)


def _tile_mutations(kernel: ir.Kernel, design: Design, facts: Facts) -> Iterator[Mutation]:
    for axis in _tiled(kernel):
        yield from (SetTile(axis, n) for n in _near(design.number(f"tile.{axis}", 1), facts.lanes))
    yield from _trades(kernel, design)
    loops = (s for s in ir.walk(kernel.body) if isinstance(s, ir.Loop) and not s.parallel)
    for axis in dict.fromkeys(loop.axes[-1].name for loop in loops if not loop.axes[-1].each):
        times = design.number(f"unroll.{axis}", 1)
        yield from (Unroll(axis, n) for n in (2 * times, times // 2, times + 1, times - 1) if n >= 1)


APART = (16, 64)
"""Positions between the points of a tile: enough for each to be a stream of some pages, few enough to be dealt out."""


AHEAD = (0, 4, 16)
"""Tiles of a serial loop that its loads may be fetched ahead."""


def _scatter_mutations(kernel: ir.Kernel, nest: structure.Nest, design: Design, facts: Facts) -> Iterator[Mutation]:
    """Rows that are met once, each along a loop: fetched ahead, or several at a time in as many streams."""
    inside = [s for loop in nest.serial for s in loop.body if isinstance(s, ir.Let) and isinstance(s.expr, ir.Load)]
    refs = [s.expr.ref for s in inside if isinstance(s.expr, ir.Load)]
    unit = {ref.index[d] for ref in refs for d in facts.unit.get(ref.buffer, ())}
    long = [a.name for a in nest.loop.axes if nest.loop.parallel and not a.each and facts.size(kernel, a) > 1]
    for axis in long:
        streamed = len(long) == 1 and axis not in unit and any(axis in ref.index for ref in refs)
        if streamed and nest.dots:
            for load in (s for s in inside if isinstance(s.expr, ir.Load) and axis in s.expr.ref.index):
                yield from (FetchAhead(load.name, n) for n in AHEAD)
        if streamed and nest.dots and (design.number(f"tile.{axis}", 1) > 1 or design.get(f"apart.{axis}")):
            yield from (Scatter(axis, n) for n in (1, *APART))


def _sum_mutations(kernel: ir.Kernel, design: Design, facts: Facts) -> Iterator[Mutation]:
    """Sums that lie across lanes in several accumulators, with a tile that has a vector for each."""
    view = View(kernel, design, facts)
    for axis in structure.summed_in_loops(kernel):
        if axis not in design.names("lanes"):
            continue
        for count in ACCUMULATORS:
            yield Accumulate(axis, count)
            if (points := count * view.chunk(axis)) > view.extent(axis):
                yield Together((SetTile(axis, points), Accumulate(axis, count)))


def _near(points: int, lanes: int) -> list[int]:
    """Sizes of a tile next to `points`: twice and half, one point more and less, one or two vectors more and less."""
    changes = (
        2 * points,
        points // 2,
        points + 1,
        points - 1,
        *(points + s * n * lanes for n in (1, 2) for s in (1, -1)),
    )
    return [n for n in changes if n >= 1]


def _trades(kernel: ir.Kernel, design: Design) -> Iterator[Mutation]:
    """Tiles of two axes of one nest that change together, so that the registers they take stay about as many."""
    for nest in structure.nests(kernel):
        axes = [a.name for a in nest.loop.axes if not a.each]
        for one in axes:
            for other in axes:
                more, less = design.number(f"tile.{one}", 1), design.number(f"tile.{other}", 1)
                if one != other and less > 1:
                    yield Together((SetTile(one, 2 * more), SetTile(other, less // 2)))


# ---------------------------------------------------------------------------------------- loop nests
def _block_mutations(kernel: ir.Kernel, nest: structure.Nest, design: Design) -> Iterator[Mutation]:
    if not nest.loop.parallel:
        return
    axes = [(a.name, True) for a in nest.loop.axes if not a.each]
    if nest.main is not None and not nest.main.axes[0].each:
        axes.append((nest.main.axes[0].name, False))
    local = tuple(PackLocally(t, False) for t in _operands(kernel, nest) if design.get(f"local.{t}"))
    for axis, parallel in axes:
        tile, block = design.number(f"tile.{axis}", 1), design.number(f"block.{axis}")
        sizes: Iterable[int] = (
            (2 * block, block // 2, block + tile, block - tile, 0) if block else (4 * tile, 16 * tile)
        )
        for size in sizes:
            if size % tile == 0 and size >= 0:
                yield Block(axis, size, parallel)
        if block and local:
            yield Together((*local, Block(axis, 0, parallel)))


def _order_mutations(nest: structure.Nest, design: Design) -> Iterator[Mutation]:
    """Neighbouring axes change places."""
    if not nest.loop.parallel:
        return
    written = tuple(a.name for a in nest.loop.axes if not a.each)
    blocked = tuple(a for a in written if design.get(f"block.{a}") is not None)
    for level, present in (("order", design.names("order") or written), ("inner", design.names("inner") or blocked)):
        if design.names(level):
            yield Reorder(level, ())
        for n in range(len(present) - 1):
            yield Reorder(level, (*present[:n], present[n + 1], present[n], *present[n + 2 :]))


# --------------------------------------------------------------------------------------------- dots
def _pack_mutations(kernel: ir.Kernel, nest: structure.Nest, design: Design) -> Iterator[Mutation]:
    operands = _operands(kernel, nest)
    for tensor in operands:
        for layout in (None, "panel", "pair", "quad", "tile"):
            yield Pack(tensor, layout)
        if design.get(f"unpack.{tensor}"):
            yield Together((Widen(operands, False), Pack(tensor, None)))
        yield PackLocally(tensor, not design.get(f"local.{tensor}"))
    groups = dict.fromkeys([operands, *(_operands_of(kernel, (dot,)) for dot in nest.dots)])
    for group in groups:
        wanted = not all(design.get(f"unpack.{t}") for t in group)
        yield Widen(group, wanted)
        if wanted:
            yield Together((*(Pack(t, "panel") for t in group), Widen(group, True)))


def _atom_mutations(kernel: ir.Kernel, nest: structure.Nest, facts: Facts) -> Iterator[Mutation]:
    """All dots of the nest by another instruction, or one of them alone."""
    for dots in dict.fromkeys([nest.dots, *((dot,) for dot in nest.dots)]):
        if dots:
            yield from _atoms(kernel, dots, facts)


def _atoms(kernel: ir.Kernel, dots: tuple[ir.Let, ...], facts: Facts) -> Iterator[Mutation]:
    names, operands = tuple(d.name for d in dots), _operands_of(kernel, dots)
    sums = tuple(dict.fromkeys(d.expr.axis for d in dots if isinstance(d.expr, ir.Dot)))
    panels = tuple((t, "panel") for t in operands)
    yield UseAtom(names, "fma")
    yield UseAtom(names, "fma", panels)
    yield Together((UseAtom(names, "fma", panels), *(SetTile(k, 1) for k in sums)))
    yield Together((UseAtom(names, "fma"), *(Pack(t, None) for t in operands), *(SetTile(k, 1) for k in sums)))
    tiled = tuple(k for k in sums if k in structure.axes(kernel))  # others are summed as a whole
    yield UseAtom(names, "bf16x2", (), tuple((k, 2 * facts.lanes) for k in tiled))
    yield UseAtom(names, "bf16x2", (), tuple((k, 2) for k in tiled))
    yield UseAtom(names, "vnni", (), tuple((k, 2 * facts.lanes) for k in sums))
    yield UseAtom(names, "bf16x2", tuple((t, "pair") for t in operands), tuple((k, 2) for k in sums))
    for lane in dict.fromkeys(a for d in dots for a in d.type.axes):
        yield from (_tile_registers(kernel, dots, lane, sums, atom) for atom in TILED)


def _tile_registers(
    kernel: ir.Kernel, dots: tuple[ir.Let, ...], lane: str, sums: tuple[str, ...], atom: str
) -> UseAtom:
    """AMX with `lane` along the columns of the results: its operands hold words of neighbours, the others rows."""
    layouts, bits = {}, dtype(TILED[atom]).bits
    for tensor, axes in _operand_axes(kernel, dots):
        layouts[tensor] = WORDS[bits] if lane in axes else "tile"
    rows = tuple(dict.fromkeys(a for d in dots for a in d.type.axes))
    tiles = (*((a, 16) for a in rows), *((k, 8 * TILE_BYTES // bits) for k in sums))
    return UseAtom(tuple(d.name for d in dots), atom, tuple(layouts.items()), tiles, lane)


def _operand_axes(kernel: ir.Kernel, dots: tuple[ir.Let, ...]) -> list[tuple[str, tuple[str, ...]]]:
    """Tensors that dots read, with the axes of the tiles that they read."""
    values = structure.lets(kernel)
    names = [n for d in dots if isinstance(d.expr, ir.Dot) for n in (d.expr.a, d.expr.b)]
    loads = [(values[n], values[n].expr) for n in names]
    return [(e.ref.buffer, let.type.axes) for let, e in loads if isinstance(e, ir.Load)]


def _operands_of(kernel: ir.Kernel, dots: tuple[ir.Let, ...]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(tensor for tensor, _ in _operand_axes(kernel, dots)))


def _operands(kernel: ir.Kernel, nest: structure.Nest) -> tuple[str, ...]:
    """Tensors that dots of a nest read."""
    return _operands_of(kernel, nest.dots)


# --------------------------------------------------------------------------------- memory and threads
def _prefetch_mutations(nest: structure.Nest, design: Design) -> Iterator[Mutation]:
    """Loads whose place moves with the tiles that the parallel loop deals out."""
    dealt = {a.name for a in nest.loop.axes if design.get(f"block.{a.name}") is None}
    for let in (s for s in ir.walk(nest.loop.body) if isinstance(s, ir.Let) and isinstance(s.expr, ir.Load)):
        assert isinstance(let.expr, ir.Load)
        if nest.loop.parallel and dealt & set(let.expr.ref.index) and not design.get(f"pack.{let.expr.ref.buffer}"):
            ahead = design.number(f"prefetch.{let.name}")
            yield from (Prefetch(let.name, n) for n in ((2 * ahead, ahead // 2) if ahead else (1,)))
        elif design.get(f"prefetch.{let.name}"):
            yield Prefetch(let.name, 0)


def _part_mutations(kernel: ir.Kernel, nest: structure.Nest, design: Design, facts: Facts) -> Iterator[Mutation]:
    """A loop in order dealt to threads: a share for each, twice as many and half as many parts, or in one piece."""
    for loop in nest.serial if nest.loop.parallel else ():
        axis = loop.axes[0]
        if now := design.number(f"part.{axis.name}"):
            yield from (Part(axis.name, points) for points in (0, 2 * now, now // 2))
        elif (share := -(-facts.size(kernel, axis) // max(2, facts.team))) > 0:
            yield Part(axis.name, share)


def _thread_mutations(kernel: ir.Kernel, design: Design, facts: Facts) -> Iterator[Mutation]:
    """Fewer threads or more; and tiles in turns or in runs, where some are more work than others."""
    threads, cores = design.number("threads"), facts.team
    counts = (0, threads // 2, 2 * threads) if threads else (1, cores // 2)
    for count in counts:
        if count < cores:
            yield UseThreads(count)
    loops = (s for s in ir.walk(kernel.body) if isinstance(s, ir.Loop))
    uneven = any(a.start is not None or a.stop is not None for loop in loops for a in loop.axes)
    if cores > 1 and (uneven or design.get("dealt") is not None):
        yield from (Deal(how) for how in (None, *DEALT))


__all__ = [
    "Accumulate", "Block", "FetchAhead", "Illegal", "Interchange", "Keep", "Mutation", "Pack", "PackLocally",
    "Part", "Prefetch", "Reorder", "Scalarise", "Scatter", "SetTile", "Stream", "Together", "Unroll", "UseAtom",
    "UseThreads", "Vectorise", "Widen", "neighbours", "steps", "suggested",
]  # fmt: skip
