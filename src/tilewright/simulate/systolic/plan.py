"""What a scheduled program makes an array do: its folds, and what lies ready while one is computed."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction

from tilewright.errors import IllegalDesign
from tilewright.language import ir, structure
from tilewright.machines.machine import Machine

Range = tuple[int, int]


@dataclass(frozen=True)
class Array:
    """The cells and what feeds them.

    `tile_cycles` are the cycles in which what one fold needs anew comes from memory, `block_cycles` those for an
    element of what streams; both are 0 where the machine states no bandwidth.
    """

    rows: int
    columns: int
    clock_hz: float
    byte_cycles: Fraction
    stream_byte_cycles: Fraction
    accumulator_bits: int

    @classmethod
    def of(cls, machine: Machine) -> Array:
        """The array of a machine of kind systolic."""
        limits, clock = dict(machine.limits), machine.clock_hz or 1.0
        levels = {level.name: level.bandwidth for level in machine.levels}

        def cycles(bandwidth: float | None) -> Fraction:
            return Fraction(0) if bandwidth is None else Fraction(clock) / Fraction(bandwidth)

        return cls(
            int(limits["rows"]), int(limits["columns"]), clock, cycles(levels.get("weights")),
            cycles(levels.get("unified_buffer")), int(limits.get("accumulator_bits", 32)),
        )  # fmt: skip


@dataclass(frozen=True)
class Fold:
    """One pass of the array: the cells that hold something, and how many steps stream through them."""

    rows: Range
    columns: Range
    streamed: Range


@dataclass(frozen=True)
class Plan:
    """A product on an array.

    `flow` says what stands still (ws, os, is); the axes of the product lie along rows, columns and the stream as
    `axes` says, with sizes and tiles. `fifo`, `cells` and `sums` are the stages of the scheduled program: tiles
    fetched ahead, tiles in the cells, sets of sums. `itemsize` is the bytes of an operand's element.
    """

    array: Array
    flow: str
    axes: tuple[str, str, str]
    sizes: tuple[int, int, int]
    tiles: tuple[int, int, int]
    fifo: int
    cells: int
    sums: int
    itemsize: int
    repeats: int = 1

    # ------------------------------------------------------------------------------------- the folds
    @property
    def overlaps(self) -> bool:
        """Whether the next tile is shifted in, or the next sums begin, while one computes."""
        return (self.sums if self.flow == "os" else self.cells) > 1

    @property
    def tiles_a_block(self) -> int:
        """Folds for one tile of the stream."""
        return math.prod(_count(n, t) for n, t in zip(self.sizes[:2], self.tiles[:2], strict=True))

    @property
    def blocks(self) -> list[int]:
        """Steps that stream through each fold, for one tile of the stream after the other."""
        size, tile = (self.sizes[2], self.sizes[2]) if self.flow == "os" else (self.sizes[2], self.tiles[2])
        return [hi - lo for lo, hi in ranges(size, tile)] * self.repeats

    @property
    def folds(self) -> int:
        """Passes of the array in all."""
        return self.tiles_a_block * len(self.blocks)

    def each(self) -> Iterator[Fold]:
        """The folds of one product in the order of the program: stream, columns, rows; of outputs: rows, columns."""
        rows, columns, streamed = (list(ranges(n, t)) for n, t in zip(self.sizes, self.tiles, strict=True))
        if self.flow == "os":
            yield from (Fold(r, c, (0, self.sizes[2])) for r in rows for c in columns)
        else:
            yield from (Fold(r, c, s) for s in streamed for c in columns for r in rows)

    # ------------------------------------------------------------------------------------ its traffic
    @property
    def fetch_cycles(self) -> Fraction:
        """Cycles in which main memory delivers what one fold needs: a whole tile, ragged or not."""
        r, c = self.array.rows, self.array.columns
        elements = (r + c) * self.sizes[2] if self.flow == "os" else r * c
        return elements * self.itemsize * self.array.byte_cycles

    def wait_cycles(self, streamed: int) -> int:
        """Cycles before the first fold of a tile of the stream, in which the buffer that it streams from is filled."""
        if self.flow == "os":
            return 0
        return math.ceil(streamed * self.sizes[0] * self.itemsize * self.array.stream_byte_cycles)

    def passes(self) -> Iterator[tuple[int, int]]:
        """For each fold, the steps that stream, and the cycles in which the buffer they stream from is filled first."""
        for steps in self.blocks:
            wait = self.wait_cycles(steps)
            for number in range(self.tiles_a_block):
                yield steps, 0 if number else wait

    @property
    def macs(self) -> int:
        """Multiplications that the product needs."""
        return math.prod(self.sizes) * self.repeats


def plan(scheduled: ir.Kernel, sizes: Mapping[str, int], machine: Machine) -> Plan:
    """The plan of a scheduled program; IllegalDesign for a program that holds nothing in the cells of an array."""
    allocs = {s.name: s for s in ir.walk(scheduled.body) if isinstance(s, ir.Alloc)}
    held = [a for a in allocs.values() if ir.note(a.notes, "place") == "array"]
    dots = [s for s in ir.walk(scheduled.body) if isinstance(s, ir.Let) and isinstance(s.expr, ir.Dot)]
    if len(held) != 1 or len(dots) != 1 or not isinstance(dots[0].expr, ir.Dot):
        raise IllegalDesign(f"{scheduled.name} is not scheduled for an array; lower it with lower_systolic")
    dot, lets, known = dots[0], structure.lets(scheduled), structure.axes(scheduled)
    expr = dots[0].expr
    m, n, k = dot.type.axes[0], dot.type.axes[1], expr.axis
    flow = "os" if set(held[0].dims) == {m, n} else "ws" if n in held[0].dims else "is"
    order = {"ws": (k, n, m), "is": (k, m, n), "os": (m, n, k)}[flow]
    repeats = math.prod(sizes[a.over] for a in known.values() if a.each)
    stages = [_depth(a) for a in allocs.values() if ir.note(a.notes, "place") == "scratch" and _is_tile(a, k)]
    sums = next((a for a in allocs.values() if ir.note(a.notes, "place") == "accumulator"), held[0])
    return Plan(
        Array.of(machine), flow, order, tuple(sizes[known[a].over] for a in order),  # type: ignore[arg-type]
        tuple(known[a].step or 1 for a in order), min(stages), _depth(held[0]), _depth(sums),  # type: ignore[arg-type]
        lets[expr.a].type.dtype.bytes, repeats,
    )  # fmt: skip


def _is_tile(alloc: ir.Alloc, depth: str) -> bool:
    """Whether a buffer holds a part of the sum, and not all of it."""
    return depth in alloc.dims


def _depth(alloc: ir.Alloc) -> int:
    return ir.number(alloc.notes, "stages", 1)


def ranges(size: int, tile: int) -> Iterator[Range]:
    """Tiles of a dimension; the last one may be short."""
    return ((lo, min(lo + tile, size)) for lo in range(0, size, tile))


def _count(size: int, tile: int) -> int:
    return -(-size // tile)
