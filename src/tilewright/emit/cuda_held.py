"""Loads that are made one step of their loops ahead (`@prefetch @engine=registers`), into the registers of their use.

A tile is asked for again as soon as its last value was used: keys of the next step come while this one's softmax is
made, values while the next one begins. Nothing passes through shared memory, and nobody waits for anybody. As in
`cuda_ahead`, a cursor runs ahead of the loops, of which there may be one inside another.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from tilewright.emit.cuda_abi import TensorMap
from tilewright.emit.cuda_cursor import Cursor, bounds, enter, stride
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
    @property
    def cursor(self) -> Cursor | None:
        """What runs ahead of two loops; of one loop its place says all."""
        return Cursor(*self.loops) if len(self.loops) == 2 else None

    def begin(self, values: Values) -> None:
        """The cursor, how each load is asked for where it stands, and those of the first step."""
        out, kept, types = values.out, dict(values.scope.ranges), dict(values.types)
        axis, last, cursor = self.loops[0].axes[0], self.loops[-1].axes[0], self.cursor
        low, high = bounds(values, axis)
        out.line(f"int {axis.name}_next = {low};")
        if cursor:
            cursor.begin(values, low, high)
        there = "there" if cursor else f"{axis.name}_next < {high}"
        whole = f"{last.name}_next + {last.step or 1} <= {f'{last.name}_high' if cursor else high}"
        for let in self.loads:
            with out.block(f"const auto ask_{cname(let.name)} = [&]()"):
                if cursor:
                    cursor.told(values, low, high)
                else:
                    enter(values, axis, f"{axis.name}_next", low, high)
                out.line(f"return {values.hold(let, there, whole)};")
            out.line(";")
            values.scope.ranges, values.types = dict(kept), dict(types)
        if cursor:
            out.line("find();")
        for let in self.loads:
            out.line(f"auto {cname(let.name)}_held = ask_{cname(let.name)}();")

    def before(self, values: Values) -> None:
        """The cursor goes on: from now on loads that are asked for are those of the next step."""
        outer = self.loops[0]
        if self.cursor is None:
            values.out.line(f"{outer.axes[0].name}_next += {stride(outer)};")
            return
        values.out.line(f"{self.cursor.onward};")
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


def held_of(loops: tuple[ir.Loop, ...]) -> Held | None:
    """Such loops, where the loads of the innermost one say so."""
    lets = [s for s in (loops[-1].body if loops else ()) if isinstance(s, ir.Let) and ir.note(s.notes, "prefetch")]
    return Held(loops) if lets and ir.note(lets[0].notes, "engine") == "registers" else None


__all__ = ["Held", "held_of"]
