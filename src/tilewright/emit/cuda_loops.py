"""Serial loops as C++, and the sums that they make: each thread adds to its own part, and what all have is joined once.

Loops that pass operands through shared memory, or that are dealt to blocks and warps, are written by others.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tilewright.emit.cuda_layouts import Chunks
from tilewright.emit.cuda_maps import reducer
from tilewright.emit.cuda_text import cname
from tilewright.language import ir
from tilewright.language.accumulate import Accumulation, find_accumulations

if TYPE_CHECKING:
    from tilewright.emit.cuda_values import Values


@dataclass
class Loops:
    """The loops of one team of threads: `sums` are those of the loops being written, by the value that is added.

    `shared`: inside a loop that the blocks of a cluster share. `again`: inside a loop whose turns go over a row again.
    """

    sums: dict[str, Accumulation] = field(default_factory=dict)
    shared: bool = False
    again: bool = False

    def write(self, values: Values, loop: ir.Loop) -> None:
        """A serial loop. Sums whose terms lie in several threads are joined once, behind it."""
        if values.fragments is not None and ir.note(loop.notes, "bind") == "warp":
            values.fragments.parts(values, loop)
            return
        if values.rings is not None and any(isinstance(s, ir.Copy) for s in loop.body):
            values.rings(values, loop)
            return
        if values.parts is not None and ir.note(loop.notes, "how") is not None:
            values.parts(values, loop)
            return
        if values.ahead is not None and values.ahead.starts(loop):
            values.ahead.begin(values)
        found = find_accumulations(loop.body)
        outer, alone = self.sums, self.shared
        self.shared = is_shared(loop)
        self._begin(values, found)
        self.sums = {**outer, **found}
        self._axes(values, loop, 0)
        self.sums = outer
        self._end(values, found)
        self.shared = alone

    def accumulating(self, values: Values, body: tuple[ir.Stmt, ...]) -> None:
        """The statements of a loop's body, sums added in place (those whose terms do not lie in several threads)."""
        outer = self.sums
        self.sums = {**outer, **find_accumulations(body)}
        values.emit(body)
        self.sums = outer

    # ---------------------------------------------------------------------------------------------------- sums
    def add(self, values: Values, let: ir.Let) -> None:
        """A reduction, or a dot, added to what each thread has of its loop's result."""
        into = self._into(values, let.name, self.sums[let.name])
        match let.expr:
            case ir.Reduce(op, arg, axis):
                values.out.line(f"tw::fold({reducer(op)}, {into}, {values.name(arg)}, {cname(axis)});")
            case ir.Dot():
                values.products(let, into)

    def join(self, values: Values, axis: str, op: str, name: str) -> None:
        """What all threads, and all blocks that share the loop, have of a sum along an axis, in each of them."""
        if values.fragments is not None and isinstance(values.layouts.of[axis], Chunks):
            values.fragments.join(values, axis, name)
        elif values.bits(axis):
            values.out.line(f"tw::join<{values.axis(axis)}>({op}, {name}, {values.team});")
        if self.shared:
            values.out.line(f"tw::join_blocks<{values.blocks}>({op}, {name}, {values.team}, meeting, turn);")

    def _begin(self, values: Values, found: Mapping[str, Accumulation]) -> None:
        """Each thread's own part of every sum, before the loop that adds to it."""
        for name, a in found.items():
            if self._is_spread(values, name, a):
                tile = values.tile(values.types[a.target])
                values.out.line(f"auto {self._into(values, name, a)} = tw::nothing<{tile}>({reducer(a.op)});")

    def _end(self, values: Values, found: Mapping[str, Accumulation]) -> None:
        """The parts of all threads joined with what was there before, after the loop."""
        for name, a in found.items():
            if self._is_spread(values, name, a):
                target, parts = cname(a.target), self._into(values, name, a)
                self.join(values, a.axis, reducer(a.op), parts)
                joined = values.map(reducer(a.op), f"{target}, {parts}", values.types[a.target])
                values.out.line(f"{target} = {joined};")

    def _into(self, values: Values, name: str, sums: Accumulation) -> str:
        return f"{cname(sums.target)}_parts" if self._is_spread(values, name, sums) else cname(sums.target)

    def _is_spread(self, values: Values, name: str, sums: Accumulation) -> bool:
        """Whether the terms of a loop's result lie in several threads."""
        return values.parts_of(name, sums.axis) > 0 or self.shared

    # ---------------------------------------------------------------------------------------------------- axes
    def _axes(self, values: Values, loop: ir.Loop, depth: int) -> None:
        if depth == len(loop.axes):
            self._body(values, loop)
            return
        axis, scope = loop.axes[depth], values.scope
        low, high = scope.bounds(axis, {n: cname(n) for n in values.types})
        if axis.name in values.layouts.of and _of_registers(values, axis, loop):
            self._piecewise(values, loop, axis, depth)
            return
        at = cname(axis.name) if axis.each else f"{axis.name}_at"
        unroll = ir.note(loop.notes, "unroll", 1) if depth == len(loop.axes) - 1 else 1
        if unroll != 1:
            values.out.line(f"#pragma unroll {unroll}")
        step = 1 if axis.each else axis.step or 1
        first, stride = (f"{low} + rank * {step}", step * values.blocks) if is_shared(loop) else (low, step)
        stride *= ir.number(loop.notes, "turns", 1)
        with values.out.block(f"for (int {at} = {first}; {at} < {high}; {at} += {stride})"):
            scope.enter(axis, at, low, high)
            if axis.name in values.layouts.of:
                values.out.line(values.part(axis.name))
            outer, self.again = self.again, True
            self._axes(values, loop, depth + 1)
            self.again = outer

    def _body(self, values: Values, loop: ir.Loop) -> None:
        steps = values.ahead if values.ahead is not None and values.ahead.steps(loop) else None
        if steps:
            steps.before(values)
        values.emit(loop.body)
        if steps:
            steps.after(values)

    def _piecewise(self, values: Values, loop: ir.Loop, axis: ir.Axis, depth: int) -> None:
        """A loop over pieces of what lies in registers: written out, as registers have no addresses.

        Pieces that are surely whole come first and ask for no edge, so that all their loads are on their way at once.
        Not in turns that load nothing: there edges keep the compiler from holding more at once than there is room for.
        """
        parent, step = values.scope[axis.over], axis.step or 1
        blocks = values.blocks if is_shared(loop) else 1
        count = values.layouts.of[axis.over].points // step
        bounded = axis.start is not None or axis.stop is not None
        whole = 0 if bounded or parent.size is None else min(count, parent.size // (blocks * step))
        whole = 0 if self.again and whole < count else whole
        for low, high in ((0, whole), (whole, count)):
            if low < high:
                self._pieces(values, loop, axis, depth, (low, high, blocks), ragged=low == whole)

    def _pieces(
        self, values: Values, loop: ir.Loop, axis: ir.Axis, depth: int, which: tuple[int, int, int], ragged: bool
    ) -> None:
        """Pieces `low` to before `high`, of as many `blocks`; edges are asked for only where they are `ragged`."""
        (low, high, blocks), parent, step = which, values.scope[axis.over], axis.step or 1
        number = f"{axis.name}_nth"
        values.out.line("#pragma unroll")
        with values.out.block(f"for (int {number} = {low}; {number} < {high}; ++{number})"):
            nth = number if blocks == 1 else f"({number} * {blocks} + rank)"
            at = f"{parent.start} + {nth} * {step}" if parent.start != "0" else f"{nth} * {step}"
            values.scope.enter(axis, at, parent.start, parent.stop)
            if ragged:
                values.scope.open(axis.name)  # some may be short, or not there at all
            else:
                values.scope.fill(axis.name)
            values.pieces[axis.name] = (axis.over, number)
            values.out.line(values.part(axis.name))
            self._axes(values, loop, depth + 1)


def is_shared(loop: ir.Loop) -> bool:
    """Whether the tiles of a loop are dealt to the blocks of a cluster."""
    return ir.note(loop.notes, "bind") == "cluster"


def _of_registers(values: Values, axis: ir.Axis, loop: ir.Loop) -> bool:
    """Whether a loop goes over what lies in registers."""
    loads = [s.expr.ref for s in loop.body if isinstance(s, ir.Let) and isinstance(s.expr, ir.Load)]
    stores = [s.ref for s in loop.body if isinstance(s, ir.Store)]
    return any(axis.over in values.registers.get(ref.buffer, ()) for ref in (*loads, *stores))


__all__ = ["Loops", "is_shared"]
