"""How values of a tile lie in vectors, and what it costs to have them otherwise: broadcasts, transposes, folds, casts.

Follows the emitter (`emit/llvm_*.py`): a tile has one axis across lanes, or none; a reader that wants other lanes pays
for broadcasts, assembly from scalars, or transposes of blocks of registers; sums along lanes stay spread over them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from tilewright.design.cost.rates import LINE, Rates
from tilewright.design.cost.slots import Slots
from tilewright.design.cost.tiling import Tiling
from tilewright.language import ir

HALF_TO_F32 = 2
"""Instructions that widen a vector of 16-bit floats."""

_F32_TO_HALF = 2


@dataclass(frozen=True)
class Form:
    """How a value lies: its lane axis, one scalar for all (`same`), or partial sums over `spread` lanes."""

    axes: tuple[str, ...]
    lane: str | None = None
    same: bool = False
    spread: int = 0


class Forms:
    """The form of each value of one design so far; values are met in the order of the program."""

    def __init__(self, tiling: Tiling, rates: Rates, panels: dict[str, str]) -> None:
        self.t, self.rates, self.panels = tiling, rates, panels
        self.program = tiling.program
        self.known: dict[str, Form] = {}

    def __getitem__(self, name: str) -> Form:
        return self.known[name]

    def __setitem__(self, name: str, form: Form) -> None:
        self.known[name] = form

    def __contains__(self, name: str) -> bool:
        return name in self.known

    def of(self, name: str, otherwise: Form) -> Form:
        """How a value lies, or `otherwise` where it was not met."""
        return self.known.get(name, otherwise)

    def spreads(self, let: ir.Let, axis: str) -> bool:
        """Whether partial sums stay in lanes until the loop over `axis` ends."""
        name = let.name
        if name not in self.program.accumulates or self.program.loop_of.get(name) != axis:
            return False
        return self.t.lane_of((axis, *let.type.axes)) == axis and self.t.width(axis) > 1

    def fold(self, form: Form, slots: Slots) -> None:
        """All lanes of each part into one: log2 passes; results that lie along an axis are folded together."""
        t, width = self.t, form.spread
        lane = t.lane_of(form.axes)
        number = math.prod(t.points[a] for a in form.axes)
        passes = math.log2(width) if width > 1 else 0.0
        together = min(width, t.width(lane)) if lane is not None else 1
        steps = number * passes if together == 1 else number / together * (2 * (together - 1) + passes)
        slots.shuffles(self.rates, width, steps)
        slots.vectors(self.rates, width, steps)
        slots.chain = max(slots.chain, (self.rates.latency + 3) * passes)

    def loaded_lane(self, let: ir.Let, ref: ir.Ref) -> str | None:
        """The axis along which a tile is loaded: its lanes if neighbours lie along them, else one where they do."""
        axes = let.type.axes
        lane = self.t.lane_of(axes)
        if ref.buffer in self.panels:
            own = self.program.operands[ref.buffer][0]
            return lane if lane == own and self.panels[ref.buffer] == "panel" else None
        unit = [i for d in self.t.unit(ref.buffer) if (i := ref.index[d]) in axes]
        if lane is None or lane in unit:
            return lane
        return next((str(a) for a in unit if a in self.t.lanes and self.t.width(str(a)) > 1), None)

    def loads(self, axes: tuple[str, ...], lane: str | None, itemsize: int, ref: ir.Ref, slots: Slots) -> None:
        size = self.t.width(lane) * itemsize
        slots.loads(self.rates, size, self.t.parts(axes, lane), self.crossing(ref, size))

    def crossing(self, ref: ir.Ref, size: int) -> float:
        """The share of loads of `size` bytes that cross a line: where rows are no multiple of one."""
        param = self.program.buffer(ref.buffer)
        if param.dims is None or size <= 4 or ref.buffer in self.panels or ref.buffer in self.program.scratch:
            return 0.0
        last = param.dims[next(iter(self.t.unit(ref.buffer)), len(param.dims) - 1)] if param.dims else 1
        row = param.dtype.bytes * (self.t.facts.sizes.get(last, 1) if isinstance(last, str) else last)
        return 0.0 if row % size == 0 or len(param.dims) == 1 else min(1.0, size / LINE)

    def converted(self, form: Form, axes: tuple[str, ...], lane: str | None, slots: Slots) -> None:
        """An operand as vectors along `lane`."""
        t, rates = self.t, self.rates
        if form.same or form.lane == lane:
            return
        if lane is None:
            slots.shuffles(rates, 4, math.prod(t.points[a] for a in form.axes))
        elif lane not in form.axes:
            slots.shuffles(rates, t.width(lane), math.prod(t.points[a] for a in form.axes))
        elif form.lane is None:
            slots.shuffles(rates, 4, 1.5 * t.parts(form.axes, lane) * t.width(lane))
        else:
            self._transposed(form.axes, form.lane, lane, slots)

    def _transposed(self, axes: tuple[str, ...], own: str, lane: str, slots: Slots) -> None:
        """Blocks of `width(lane)` vectors along `own`: log2 passes over as many registers, and joins of wider ones."""
        t = self.t
        rest = math.prod(t.points[a] for a in axes if a not in (own, lane))
        blocks = rest * t.chunks(own) * t.chunks(lane)
        rows, columns = t.width(lane), t.width(own)
        slots.shuffles(self.rates, columns, blocks * block_shuffles(rows, columns))

    def dtype(self, name: str) -> str:
        let = self.program.values.get(name)
        return let.type.dtype.name if let is not None else "i64"

    def cast(self, source: str, target: str, width: int, number: float, slots: Slots) -> None:
        if source == target:
            return
        cost = 1 if target == "f16" or source == "f16" else HALF_TO_F32 if source == "bf16" else 1
        if target == "bf16":
            cost = _F32_TO_HALF if self.t.facts.machine.has("avx512bf16") else 6
        slots.vectors(self.rates, width, cost * number)


def block_shuffles(rows: int, columns: int) -> float:
    """Exchanges that turn `rows` vectors of `columns` lanes (powers of two) into their columns.

    A square of n takes log2(n) passes over n registers. Wider than high: one square with missing rows, of which each
    pass has fewer, and a cut of each column; higher than wide: squares, joined two and two.
    """
    if rows == columns:
        return columns * math.log2(columns) if columns > 1 else 0.0
    if rows < columns:
        present, total, step = rows, 0.0, 1
        while step < columns:
            total += min(columns, 2 * present if step >= rows else present)
            present = min(columns, 2 * present) if step >= rows else present
            step *= 2
        return total + columns
    squares = rows // columns
    return squares * block_shuffles(columns, columns) + columns * (squares - 1)


__all__ = ["HALF_TO_F32", "Form", "Forms", "block_shuffles"]
