"""Loads that are made one step of their loops ahead (`@prefetch @engine=registers`), into the registers of their use.

A tile is asked for again as soon as its last value was used: keys of the next step come while this one's softmax is
made, values while the next one begins. Nothing passes through shared memory, and nobody waits for anybody. As in
`cuda_ahead`, a cursor runs ahead of the loops, of which there may be one inside another.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from tilewright.emit.cuda_abi import TensorMap
from tilewright.emit.cuda_maps import ctype
from tilewright.emit.cuda_scope import Range
from tilewright.emit.cuda_text import cname
from tilewright.emit.cuda_values import Values
from tilewright.errors import IllegalDesign
from tilewright.language import ir


@dataclass
class Held:
    """Writes such loops of one warp: one loop, or two of which the inner one has the loads."""

    loops: tuple[ir.Loop, ...]
    maps: list[TensorMap] = field(default_factory=list)  # none: as `Ahead` has them

    def __post_init__(self) -> None:
        reads = [n for s in self.loops[-1].body if isinstance(s, ir.Let) for n in ir.operands(s.expr)]
        if twice := [s.name for s in self.loads if reads.count(s.name) > 1]:
            raise IllegalDesign(f"engine=registers: {twice[0]} is read twice in a step; take another engine")
        if len(self.loops) > 2:
            raise IllegalDesign("stages: steps lie in more than two loops; drop the decision")

    @property
    def loads(self) -> tuple[ir.Let, ...]:
        """Those of a step."""
        return tuple(s for s in self.loops[-1].body if isinstance(s, ir.Let) and ir.note(s.notes, "prefetch"))

    def starts(self, loop: ir.Loop) -> bool:
        """Whether this is the outermost loop of the steps."""
        return loop is self.loops[0]

    def steps(self, loop: ir.Loop) -> bool:
        """Whether this is the innermost loop."""
        return loop is self.loops[-1]

    def holds(self, let: ir.Let) -> bool:
        """Whether a load is made ahead."""
        return any(s.name == let.name for s in self.loads)

    # ------------------------------------------------------------------------------------------------- text
    def begin(self, values: Values) -> None:
        """The cursor, how each load is asked for where it stands, and those of the first step."""
        out, kept, types = values.out, dict(values.scope.ranges), dict(values.types)
        axis = self.loops[0].axes[0]
        low, high = self._bounds(values, axis)
        out.line(f"int {axis.name}_next = {low};")
        inner = len(self.loops) == 2
        if inner:
            self._search(values, low, high)
        last = self.loops[-1].axes[0]
        there = "there" if inner else f"{axis.name}_next < {high}"
        whole = f"{last.name}_next + {last.step or 1} <= {f'{last.name}_high' if inner else high}"
        for let in self.loads:
            with out.block(f"const auto ask_{cname(let.name)} = [&]()"):
                self._enter(values, axis, f"{axis.name}_next", low, high)
                self._told(values)
                out.line(f"return {values.hold(let, there, whole)};")
            out.line(";")
            values.scope.ranges, values.types = dict(kept), dict(types)
        if inner:
            out.line("find();")
        for let in self.loads:
            out.line(f"auto {cname(let.name)}_held = ask_{cname(let.name)}();")

    def before(self, values: Values) -> None:
        """The cursor goes on: from now on loads that are asked for are those of the next step."""
        outer, last = self.loops[0], self.loops[-1].axes[0]
        if len(self.loops) == 1:
            values.out.line(f"{last.name}_next += {self._stride(outer)};")
            return
        values.out.line(f"{last.name}_next += {last.step or 1};")
        values.out.line("find();")

    def after(self, values: Values) -> None:
        """Nothing is left to do behind a step."""

    def used(self, values: Values, names: tuple[str, ...]) -> None:
        """Values were read for the last time in this step: those of the next one may come."""
        for let in self.loads:
            if let.name in names:
                values.out.line(f"{cname(let.name)}_held = ask_{cname(let.name)}();")

    def taken(self, values: Values, let: ir.Let, most: int, terms: list[str]) -> str:
        """C++ of a load of the step at hand."""
        return f"tw::held<{values.tile(let.type)}, {most}>({', '.join([f'{cname(let.name)}_held', *terms])})"

    def _told(self, values: Values) -> None:
        """What the inner loop is told by the outer one, at the cursor."""
        if len(self.loops) == 1:
            return
        for value in self._kept():
            values.types[value.name] = value.type
            values.out.line(f"const {ctype(value.type.dtype)} {cname(value.name)} = {cname(value.name)}_next;")
        last = self.loops[1].axes[0]
        self._enter(values, last, f"{last.name}_next", f"{last.name}_low", f"{last.name}_high")

    def _search(self, values: Values, low: str, high: str) -> None:
        """`find` goes to the first step at or behind the cursor, and keeps what its loads are told by."""
        out, (outer, walk) = values.out, self.loops
        axis, step = outer.axes[0], walk.axes[0]
        kept, types = dict(values.scope.ranges), dict(values.types)
        at, place = f"{axis.name}_next", f"{step.name}_next"
        out.line(f"int {place} = 0, {step.name}_low = 0, {step.name}_high = 0;")
        for value in self._kept():
            out.line(f"{ctype(value.type.dtype)} {cname(value.name)}_next{{}};")
        out.line("bool there;")
        turns = f"for (there = false; {at} < {high}; {at} += {self._stride(outer)}, {place} = 0)"
        with out.block("const auto find = [&]()"), out.block(turns):
            self._enter(values, axis, at, low, high)
            values.emit(tuple(s for s in outer.body if isinstance(s, ir.Let)))
            first, last = self._bounds(values, step)
            out.line(f"{place} = max({place}, {first});")
            out.line(f"if ({place} >= {last}) continue;")
            out.line(f"{step.name}_low = {first}, {step.name}_high = {last};")
            for value in self._kept():
                out.line(f"{cname(value.name)}_next = {cname(value.name)};")
            out.line("there = true;")
            out.line("break;")
        out.line(";")
        values.scope.ranges, values.types = kept, types

    def _kept(self) -> list[ir.Let]:
        """Numbers that the outer loop makes for the inner one."""
        lets = [s for s in self.loops[0].body if isinstance(s, ir.Let)]
        if tiles := [s.name for s in lets if s.type.axes]:
            raise IllegalDesign(f"engine=registers: {tiles[0]} is a tile of the outer loop; take another engine")
        return lets

    def _bounds(self, values: Values, axis: ir.Axis) -> tuple[str, str]:
        return values.scope.bounds(axis, {n: cname(n) for n in values.types})

    def _enter(self, values: Values, axis: ir.Axis, at: str, low: str, high: str) -> None:
        now = values.scope.enter(axis, at, low, high)
        values.scope.ranges[axis.name] = Range(at, high, now.size, now.grain, now.align, axis.each, now.step, low, high)
        if axis.name in values.layouts.of:
            values.out.line(values.part(axis.name))

    @staticmethod
    def _stride(loop: ir.Loop) -> int:
        """From a step of a loop to the next one of the same warp."""
        axis = loop.axes[0]
        return (1 if axis.each else axis.step or 1) * ir.number(loop.notes, "turns", 1)


def held_of(loops: tuple[ir.Loop, ...]) -> Held | None:
    """Such loops, where the loads of the innermost one say so."""
    lets = [s for s in (loops[-1].body if loops else ()) if isinstance(s, ir.Let) and ir.note(s.notes, "prefetch")]
    return Held(loops) if lets and ir.note(lets[0].notes, "engine") == "registers" else None


__all__ = ["Held", "held_of"]
