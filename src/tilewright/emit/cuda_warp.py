"""Dots by mma.sync on registers: how the axes of their operands and results are dealt to the lanes of a warp.

mma.m16n8k16 has 16 rows (bits 2 to 4 of the lane, and a register), 8 columns (a register, and bits 0 and 1) and sums
over 16 (pairs of registers, and bits 0 and 1). Where the axes of a first operand lie along the rows, up to 16 of its
points stay with a warp; where operands change places (`swap`), up to 8 lie along the columns, in half the registers.

An operand may need an axis dealt otherwise than the result has it: then it is loaded along a *twin* of that axis. See
`tw/warp.cuh`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace

from tilewright.emit.cuda_layouts import Dist, Spread, axis_name
from tilewright.errors import IllegalDesign
from tilewright.language import ir
from tilewright.language.structure import source

_WIDEST = 16
"""Bytes of the widest access."""


@dataclass
class WarpDots:
    """Distributions of axes and of their twins; what is loaded along which twins; how dots are called."""

    of: dict[str, Dist] = field(default_factory=dict)
    twins: dict[str, str] = field(default_factory=dict)
    loaded: dict[str, tuple[str, ...]] = field(default_factory=dict)  # operands -> axes that are twins in them
    second: dict[str, str] = field(default_factory=dict)  # second operands of dots -> axes that these sum over
    calls: dict[str, str] = field(default_factory=dict)  # dots -> the function that multiplies

    def held(self, let: ir.Let, loops: Collection[str]) -> frozenset[str]:
        """Axes of loops along which a second operand may hold anything past the edge: its dots' results, or the first
        operand, are masked there. Such loads ask for nothing and go out at once."""
        if let.name not in self.second:
            return frozenset()
        return frozenset(a for a in let.type.axes if self.named(a) in loops)

    def named(self, axis: str) -> str:
        """The axis as the program names it: a twin's original."""
        return next((a for a, twin in self.twins.items() if twin == axis), axis)

    def along_twins(self, let: ir.Let) -> ir.Let:
        """A load as it is made, or what widens it: some axes are the twins of those that the program names."""
        if let.name not in self.loaded or not isinstance(let.expr, ir.Load | ir.Map):
            return let
        new = {a: self.twins[a] for a in self.loaded[let.name]}
        made = replace(let, type=replace(let.type, axes=tuple(new.get(a, a) for a in let.type.axes)))
        if isinstance(let.expr, ir.Map):
            return made
        ref = replace(let.expr.ref, index=tuple(new.get(str(i), i) for i in let.expr.ref.index))
        return replace(made, expr=ir.Load(ref))

    def twin(self, axis: str) -> str:
        """The twin of an axis, named when it is first asked for."""
        return self.twins.setdefault(axis, f"{axis}_twin")


def warp_dots(body: tuple[ir.Stmt, ...], points: Mapping[str, int], space: str = "own") -> WarpDots:
    """What dots of `body` with the atom mma ask of their axes; `points` are those of a whole tile of each.

    `space` is the C++ namespace of the distributions.
    """
    lets = {s.name: s for s in ir.walk(body) if isinstance(s, ir.Let)}
    dots = [s for s in lets.values() if isinstance(s.expr, ir.Dot) and ir.note(s.notes, "atom") == "mma"]
    found = WarpDots()
    most: dict[str, int] = {}  # neighbours along a sum that one access takes
    for dot in dots:
        assert isinstance(dot.expr, ir.Dot)
        first, second = lets[dot.expr.a], lets[dot.expr.b]
        load = source(lets, second.name)
        (column,) = (a for a in second.type.axes if a != dot.expr.axis)
        rows = [a for a in first.type.axes if a != dot.expr.axis]
        if not isinstance(load.expr, ir.Load):
            raise IllegalDesign(f"{dot.name}: its second operand {second.name} is no load; take atom.{dot.name}=fma")
        found.second[load.name] = dot.expr.axis
        most[dot.expr.axis] = widest = _WIDEST // load.type.dtype.bytes
        run = 1 if column in {d.expr.axis for d in dots if isinstance(d.expr, ir.Dot)} else _run(points[column], widest)
        deal = _Deal(found, points, dot, first, second, load, rows, column, run, space)
        (deal.across if ir.note(dot.notes, "swap") else deal.along)()
    for axis in (a for a in most if a not in found.of):  # in order: it tells how tiles lie in registers
        run = max(4, min(most[axis], 1 << max(0, points[axis] // 4).bit_length() - 1))
        found.of[axis] = Spread(-(-points[axis] // (4 * run)), run, 0, 2)
    return found


@dataclass(frozen=True)
class _Deal:
    """One dot: its axes are dealt, and its operands' twins."""

    found: WarpDots
    points: Mapping[str, int]
    dot: ir.Let
    first: ir.Let
    second: ir.Let
    load: ir.Let  # of the second operand: itself, or of the 8 bits that it widens
    rows: list[str]
    column: str
    run: int
    space: str

    @property
    def groups(self) -> int:
        return -(-self.points[self.column] // (8 * self.run))

    def along(self) -> None:
        """The first operand along the rows of mma; columns of the second one lie along bits 2 to 4: a twin."""
        found, twin = self.found, self.found.twin(self.column)
        found.loaded |= dict.fromkeys((self.second.name, self.load.name), (self.column,))
        found.calls[self.dot.name] = (
            f"tw::multiply<{self.space}::{axis_name(self.column)}, {self.space}::{axis_name(twin)}>"
        )
        found.of[self.column] = Spread(self.groups, 2 * self.run, 0, 2)
        found.of[twin] = Spread(self.groups, self.run, 2, 3)
        low = 2
        for axis in reversed(self.rows):
            bits = min(5 - low, (self.points[axis] - 1).bit_length())
            found.of[axis] = Spread(-(-self.points[axis] // (1 << bits)), 1, low if bits else 0, bits)
            low += bits

    def across(self) -> None:
        """The second operand along the rows of mma, the first along its columns: a twin where that is loaded.

        One that is computed has its columns as the result has them, and the sum along bits 2 to 4: it is turned over
        in registers, and the second operand has a twin of the sum's axis.
        """
        assert isinstance(self.dot.expr, ir.Dot)
        found, axis = self.found, self.dot.expr.axis
        loaded = isinstance(self.first.expr, ir.Load)
        depth = axis if loaded else found.twin(axis)
        if loaded:
            found.loaded[self.first.name] = tuple(self.rows)
        else:
            found.loaded |= dict.fromkeys((self.second.name, self.load.name), (axis,))
        names = ", ".join(f"{self.space}::{axis_name(a)}" for a in (self.column, depth))
        found.calls[self.dot.name] = f"tw::multiply_across<{names}, {'true' if loaded else 'false'}>"
        found.of[self.column] = Spread(self.groups, self.run, 2, 3)
        if not loaded:
            found.of[depth] = Spread(-(-self.points[axis] // 8), 2, 0, 2)
        bit = 0  # of the column's number: the first is a register, the others bits of the lane
        for row in reversed(self.rows):
            bits = min(3 - bit, (self.points[row] - 1).bit_length())
            found.of[found.twin(row)] = Spread(1, 1, 2 + bit if bits else 0, bits)
            pair = 2 if bits and bit == 0 else 1
            lanes = bits - 1 if pair == 2 else bits
            found.of[row] = Spread(1, pair, max(0, bit - 1) if lanes else 0, lanes)
            bit += bits


def _run(points: int, most: int) -> int:
    """Neighbours that a lane loads of each row: at most as many as 16 bytes hold, if few lie past the end."""
    fitting = (
        n
        for n in (16, 8, 4, 2)
        if n <= most and 8 * n <= points and -(-points // (8 * n)) * 8 * n <= points + points // 3
    )
    return next(fitting, 1)


__all__ = ["WarpDots", "warp_dots"]
