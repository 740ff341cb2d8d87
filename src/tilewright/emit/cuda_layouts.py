"""Which thread holds which positions of an axis: distributions of `tw/layout.cuh`, one for each axis of a program."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from tilewright.language import ir


@dataclass(frozen=True)
class Spread:
    """`groups` runs of `run` neighbours a thread; `bits` bits of its number, from `low` on, say which."""

    groups: int
    run: int = 1
    low: int = 0
    bits: int = 0

    @property
    def points(self) -> int:
        """Positions that all threads hold together."""
        return self.groups * self.run << self.bits

    @property
    def cpp(self) -> str:
        """The type in the tile library."""
        return f"tw::Spread<{self.groups}, {self.run}, {self.low}, {self.bits}>"


@dataclass(frozen=True)
class AccRows:
    """Rows of mma and wgmma accumulators: warps in a grid (`warps` x `columns`, rows fastest), fragments of 16 rows."""

    warps: int
    columns: int
    fragments: int
    run = 1

    @property
    def points(self) -> int:
        """Positions that all threads hold together."""
        return 16 * self.warps * self.fragments

    @property
    def bits(self) -> int:
        """More than 0: several threads hold a column."""
        return 3

    @property
    def cpp(self) -> str:
        """The type in the tile library."""
        return f"tw::AccRows<{self.warps}, {self.columns}, {self.fragments}>"


@dataclass(frozen=True)
class AccCols:
    """Columns of the same: fragments of 8 in each of `columns` warps, two neighbours a lane."""

    warps: int
    columns: int
    fragments: int
    run = 2

    @property
    def points(self) -> int:
        """Positions that all threads hold together."""
        return 8 * self.columns * self.fragments

    @property
    def bits(self) -> int:
        """More than 0: several threads hold a row."""
        return 2

    @property
    def cpp(self) -> str:
        """The type in the tile library."""
        return f"tw::AccCols<{self.warps}, {self.columns}, {self.fragments}>"


@dataclass(frozen=True)
class OperandRows:
    """Rows of a second operand of mma that comes straight from memory: `columns` warps, `fragments` of 8 rows each.

    `warps` neighbouring warps each are dealt along the sum.
    """

    warps: int
    columns: int
    fragments: int
    run = 1
    bits = 3

    @property
    def points(self) -> int:
        """Positions that all threads hold together."""
        return 8 * self.columns * self.fragments

    @property
    def cpp(self) -> str:
        """The type in the tile library."""
        return f"tw::OperandRows<{self.warps}, {self.columns}, {self.fragments}>"


@dataclass(frozen=True)
class WarpRows:
    """Rows that every lane of a warp has: `rows` for each of `columns` warps (each `warps` neighbouring ones)."""

    warps: int
    columns: int
    rows: int
    run = 1
    bits = 0

    @property
    def points(self) -> int:
        """Positions that all threads hold together."""
        return self.columns * self.rows

    @property
    def cpp(self) -> str:
        """The type in the tile library."""
        return f"tw::WarpRows<{self.warps}, {self.columns}, {self.rows}>"


@dataclass(frozen=True)
class Chunks:
    """Positions of a sum in one warp: `groups` of `run` neighbours a lane, 2^`lane_bits` lanes side by side."""

    groups: int
    run: int
    lane_bits: int

    @property
    def points(self) -> int:
        """Positions that all lanes hold together."""
        return (self.groups * self.run) << self.lane_bits

    @property
    def bits(self) -> int:
        """More than 0: several lanes have parts of each sum. What the four lanes of mma have, it adds up itself."""
        return self.lane_bits if self.lane_bits == 5 else 0

    @property
    def cpp(self) -> str:
        """The type in the tile library."""
        return f"tw::Chunks<{self.groups}, {self.run}, {self.lane_bits}>"


Dist = Spread | AccRows | AccCols | OperandRows | WarpRows | Chunks


@dataclass(frozen=True)
class Layouts:
    """The distribution of each axis that values have."""

    of: Mapping[str, Dist]
    _rank: Mapping[str, tuple[int, int]] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        order = {a: (_kind(d), n) for n, (a, d) in enumerate(self.of.items())}
        object.__setattr__(self, "_rank", order)

    def order(self, axes: Iterable[str]) -> tuple[str, ...]:
        """The axes as tiles have them: rows before columns, runs of neighbours last."""
        return tuple(sorted(axes, key=lambda a: self._rank[a]))

    def declare(self) -> list[str]:
        """The C++ types of the axes."""
        return [f"struct {axis_name(a)} : {d.cpp} {{}};" for a, d in self.of.items()]


_MEMBERS = frozenset({"N", "INNER", "RUN", "LO", "BITS", "WARPS", "WARP_STRIDE", "at", "base"})


def axis_name(axis: str) -> str:
    """The C++ name of an axis' distribution: not that of one of its members."""
    return f"{axis}_" if axis in _MEMBERS else axis


def _kind(dist: Dist) -> int:
    match dist:
        case AccRows():
            return 0
        case AccCols():
            return 1
        case Spread(run=run) | OperandRows(run=run) | WarpRows(run=run) | Chunks(run=run):
            return 0 if run == 1 else 1


# ------------------------------------------------------------------------------------------------- inference
@dataclass(frozen=True)
class Wish:
    """What is known of an axis before threads are dealt to it: points of a tile, neighbours that an access takes."""

    points: int
    run: int = 1


def spread(kernel: ir.Kernel, wishes: Mapping[str, Wish], lanes: tuple[str, ...], threads: int) -> Layouts:
    """Distributions of all axes in `wishes`; threads go to those in `lanes`, in order, as far as they have points.

    Two axes of one value never share a bit of the thread's number; axes that do not meet may. What is left is held in
    registers, or as copies.
    """
    meets = _meetings(kernel)
    total = threads.bit_length() - 1
    taken: dict[str, tuple[int, int]] = {}
    for axis in lanes:
        if axis not in wishes:
            continue
        others = [taken[b] for b in meets.get(axis, ()) if b in taken]
        low = max((at + bits for at, bits in others), default=0)
        wish = wishes[axis]
        groups = -(-wish.points // wish.run)
        taken[axis] = (low, max(0, min(total - low, (groups - 1).bit_length())))
    return Layouts({a: _spread(w, *taken.get(a, (0, 0))) for a, w in wishes.items()})


def _spread(wish: Wish, low: int, bits: int) -> Spread:
    return Spread(-(-wish.points // (wish.run << bits)), wish.run, low if bits else 0, bits)


def _meetings(kernel: ir.Kernel) -> dict[str, set[str]]:
    """For each axis the axes that are held together with it."""
    meets: dict[str, set[str]] = {}
    for stmt in ir.walk(kernel.body):
        if isinstance(stmt, ir.Let):
            for axis in stmt.type.axes:
                meets.setdefault(axis, set()).update(b for b in stmt.type.axes if b != axis)
    return meets


__all__ = [
    "AccCols", "AccRows", "Chunks", "Dist", "Layouts", "OperandRows", "Spread", "WarpRows", "Wish", "axis_name",
    "spread",
]  # fmt: skip
