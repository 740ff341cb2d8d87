"""Sums that registers cannot hold: how many are too many, and what storing and loading them takes."""

from __future__ import annotations

from tilewright.design.atoms import AT_ONCE, TILED
from tilewright.design.cost.forms import Forms
from tilewright.design.cost.slots import Slots
from tilewright.language import ir

SPILLED = 3
"""Stores and loads of a step for each sum too many: compilers spill more than they must, and sums wait for memory."""


class Sums:
    """The sums of one design, by the loop that adds to them."""

    def __init__(self, forms: Forms) -> None:
        self.forms, self.t, self.rates, self.program = forms, forms.t, forms.rates, forms.program

    def excess(self, axis: str) -> Slots:
        """Sums beyond the registers, in the loop over `axis`: each is stored and loaded at every step of the sum.

        Other values are made and used part by part, and need few registers at a time.
        """
        live, held, steps = 0.0, 0.0, 1.0
        for name in self.program.accumulates:
            if self.program.loop_of.get(name) != axis or name not in self.forms:
                continue
            let = self.program.values[name]
            live += self._accumulators(let)
            held = max(held, self._held(let))
            if isinstance(let.expr, ir.Dot):
                steps = max(steps, self._steps(let, let.expr))
        beyond = live + held + 1 - self.rates.registers
        whole = self._products(axis)  # stored and loaded once a step, sums at each product
        spilled = SPILLED * (max(0.0, beyond) * steps + min(whole, max(0.0, beyond + whole)))
        slots, size = Slots(), self.rates.vector_bytes
        if spilled > 0:
            slots.loads(self.rates, size, spilled)
            slots.stores(self.rates, size, spilled)
        return slots

    def _products(self, axis: str) -> float:
        """Registers of whole dots of a step in the loop over `axis`: all of one is there before any of it is read."""
        found = 0.0
        for name, let in self.program.values.items():
            inside = self.program.loop_of.get(name) == axis and name not in self.program.accumulates
            if inside and isinstance(let.expr, ir.Dot) and name in self.forms:
                found = max(found, float(self.t.parts(let.type.axes, self.t.lane_of(let.type.axes))))
        return found

    def _steps(self, let: ir.Let, dot: ir.Dot) -> float:
        """Products that follow one another into each sum of a dot's tile."""
        per = 2 if self.t.decisions.get(f"atom.{let.name}") in ("bf16x2", "vnni") else 1
        inner = self.t.lane_of((dot.axis, *let.type.axes)) == dot.axis
        if per == 2 and not inner and self._accumulators(let) > AT_ONCE:
            return 1.0  # a portion of them takes all terms while the others wait
        return -(-self.t.points[dot.axis] // (per * (self.t.width(dot.axis) if inner else 1)))

    def _accumulators(self, let: ir.Let) -> float:
        """Registers of the sums that a reduction or dot adds to."""
        if self.t.decisions.get(f"atom.{let.name}") in TILED:
            return 0.0
        form = self.forms[let.name]
        if not form.spread:
            return float(self.t.parts(let.type.axes, form.lane))
        several = max(1, self.t.number(f"split.{self.program.loop_of.get(let.name)}", 1))
        return float(several * self.t.parts(let.type.axes, None))

    def _held(self, let: ir.Let) -> float:
        """Registers of the operand of a dot that stays while the other streams by."""
        if not isinstance(let.expr, ir.Dot):
            return 1.0
        lane = self.t.lane_of((let.expr.axis, *let.type.axes))
        operands = [self.program.values[n].type.axes for n in (let.expr.a, let.expr.b)]
        return min(float(self.t.parts(tuple(a for a in axes if a != let.expr.axis), lane)) for axes in operands)


__all__ = ["SPILLED", "Sums"]
