"""A cursor that runs ahead of two loops, one inside the other: to the next step, and what its loads are told by."""

from __future__ import annotations

from dataclasses import dataclass

from tilewright.emit.cuda_maps import ctype
from tilewright.emit.cuda_scope import Range
from tilewright.emit.cuda_text import cname
from tilewright.emit.cuda_values import Values
from tilewright.errors import IllegalDesign
from tilewright.language import ir


@dataclass(frozen=True)
class Cursor:
    """`find()` goes to the first step at or behind the cursor, if one is `there`; `told` is what that step knows."""

    outer: ir.Loop
    inner: ir.Loop

    @property
    def place(self) -> str:
        """C++ of where the cursor stands in the inner loop."""
        return f"{self.inner.axes[0].name}_next"

    @property
    def onward(self) -> str:
        """C++ that leaves a step behind."""
        return f"{self.place} += {self.inner.axes[0].step or 1}"

    def begin(self, values: Values, low: str, high: str) -> None:
        """The variables, and `find`, which keeps what the loads of a step are told by."""
        out, axis, step = values.out, self.outer.axes[0], self.inner.axes[0]
        kept, types = dict(values.scope.ranges), dict(values.types)
        at, place = f"{axis.name}_next", self.place
        out.line(f"int {place} = 0, {step.name}_low = 0, {step.name}_high = 0;")
        for value in self._kept():
            out.line(f"{ctype(value.type.dtype)} {cname(value.name)}_next{{}};")
        out.line("bool there;")
        turns = f"for (there = false; {at} < {high}; {at} += {stride(self.outer)}, {place} = 0)"
        with out.block("const auto find = [&]()"), out.block(turns):
            enter(values, axis, at, low, high)
            values.emit(tuple(s for s in self.outer.body if isinstance(s, ir.Let)))
            first, last = bounds(values, step)
            out.line(f"{place} = max({place}, {first});")
            out.line(f"if ({place} >= {last}) continue;")
            out.line(f"{step.name}_low = {first}, {step.name}_high = {last};")
            for value in self._kept():
                out.line(f"{cname(value.name)}_next = {cname(value.name)};")
            out.line("there = true;")
            out.line("break;")
        out.line(";")
        values.scope.ranges, values.types = kept, types

    def told(self, values: Values, low: str, high: str, parts: bool = True) -> None:
        """What a load is told by both loops, at the cursor; with `parts` of the axes that tiles lie along."""
        enter(values, self.outer.axes[0], f"{self.outer.axes[0].name}_next", low, high, parts)
        for value in self._kept():
            values.types[value.name] = value.type
            values.out.line(f"const {ctype(value.type.dtype)} {cname(value.name)} = {cname(value.name)}_next;")
        last = self.inner.axes[0]
        enter(values, last, self.place, f"{last.name}_low", f"{last.name}_high", parts)

    def _kept(self) -> list[ir.Let]:
        """Numbers that the outer loop makes for the inner one."""
        lets = [s for s in self.outer.body if isinstance(s, ir.Let)]
        if tiles := [s.name for s in lets if s.type.axes]:
            raise IllegalDesign(f"stages: {tiles[0]} is a tile of the outer loop; load it when its step comes")
        return lets


def bounds(values: Values, axis: ir.Axis) -> tuple[str, str]:
    """C++ of the ends of a loop."""
    return values.scope.bounds(axis, {n: cname(n) for n in values.types})


def enter(values: Values, axis: ir.Axis, at: str, low: str, high: str, parts: bool = True) -> None:
    """The axis stands at `at`, between the ends of its loop."""
    now = values.scope.enter(axis, at, low, high)
    values.scope.ranges[axis.name] = Range(at, high, now.size, now.grain, now.align, axis.each, now.step, low, high)
    if parts and axis.name in values.layouts.of:
        values.out.line(values.part(axis.name))


def stride(loop: ir.Loop) -> int:
    """From a step of a loop to the next one of the same warp."""
    axis = loop.axes[0]
    return (1 if axis.each else axis.step or 1) * ir.number(loop.notes, "turns", 1)


__all__ = ["Cursor", "bounds", "enter", "stride"]
