"""Numbers that the places of loads are looked up by, such as those of pages: loaded a turn of their loop earlier.

Loads that run ahead (`cuda_ahead`, `cuda_held`) ask for places that such a number says. Asked for only then, it would be
a trip to memory on the way of every step.
"""

from __future__ import annotations

from dataclasses import dataclass

from tilewright.emit.cuda_maps import ctype
from tilewright.emit.cuda_scope import Range
from tilewright.emit.cuda_text import cname
from tilewright.emit.cuda_values import Values
from tilewright.language import ir


@dataclass(frozen=True)
class Lookups:
    """The numbers that a loop loads by its own position; its cursor stands at `at`, and goes on by `stride` to `high`."""

    loop: ir.Loop
    at: str
    stride: int
    low: str
    high: str

    @property
    def axis(self) -> ir.Axis:
        """The axis of the loop."""
        return self.loop.axes[0]

    @property
    def lets(self) -> tuple[ir.Let, ...]:
        """Those numbers."""
        own = {s.name for s in self.loop.body if isinstance(s, ir.Let)}
        return tuple(
            s
            for s in self.loop.body
            if isinstance(s, ir.Let) and isinstance(s.expr, ir.Load) and not s.type.axes
            if self.axis.name in s.expr.ref.index and not own & set(s.expr.ref.index)
        )

    def begin(self, values: Values) -> None:
        """How each is loaded, the one at the cursor, and the one behind it."""
        out, there = values.out, f"{self.axis.name}_there"
        kept, types = dict(values.scope.ranges), dict(values.types)
        for let in self.lets:
            kind, name = ctype(let.type.dtype), cname(let.name)
            with out.block(f"const auto {name}_of = [&](int {there})"):
                out.line(f"if ({there} >= {self.high}) return {kind}(0);")
                now = values.scope.enter(self.axis, there, self.low, self.high)
                values.scope.ranges[self.axis.name] = Range(
                    there, self.high, now.size, now.grain, now.align, self.axis.each, now.step, self.low, self.high
                )
                values.statement(let)
                out.line(f"return {name};")
            out.line(";")
            values.scope.ranges, values.types = dict(kept), dict(types)
            out.line(f"{kind} {name}_now = {name}_of({self.at}), {name}_then = {name}_of({self.at} + {self.stride});")

    def told(self, values: Values) -> None:
        """The statements of the loop at the cursor, with what was loaded before."""
        for let in self.lets:
            values.types[let.name] = let.type
            values.out.line(f"const {ctype(let.type.dtype)} {cname(let.name)} = {cname(let.name)}_now;")
        known = {s.name for s in self.lets}
        values.emit(tuple(s for s in self.loop.body if isinstance(s, ir.Let) and s.name not in known))

    @property
    def onward(self) -> str:
        """C++ of a list of expressions that follows the cursor to where it stands now; each has a comma before it."""
        steps = (f"{n}_now = {n}_then, {n}_then = {n}_of({self.at} + {self.stride})" for n in self.names)
        return "".join(f", {s}" for s in steps)

    @property
    def names(self) -> tuple[str, ...]:
        """What they are called in C++."""
        return tuple(cname(s.name) for s in self.lets)


__all__ = ["Lookups"]
