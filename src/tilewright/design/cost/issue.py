"""What the statements of a tile cost to issue: loads, arithmetic, reductions, stores; dots and copies by their own."""

from __future__ import annotations

import math

from tilewright.design.cost.forms import Form, Forms
from tilewright.design.cost.issue_copies import issue_copy
from tilewright.design.cost.issue_dots import Dots
from tilewright.design.cost.rates import LINE, Rates
from tilewright.design.cost.schedule import Work
from tilewright.design.cost.slots import Slots
from tilewright.design.cost.sums import Sums
from tilewright.design.cost.tiling import Tiling
from tilewright.language import ir


class Issue:
    """Costs of the work of one design; values are met in the order of the program."""

    def __init__(self, tiling: Tiling, rates: Rates, panels: dict[str, str]) -> None:
        self.t, self.rates, self.program = tiling, rates, tiling.program
        self.forms = Forms(tiling, rates, panels)
        self.dots, self.sums = Dots(self.forms), Sums(self.forms)

    def work(self, work: Work) -> Slots:
        """One execution of `work`."""
        slots = Slots()
        if work.copy is not None:
            issue_copy(self.forms, work.copy, slots)
        if work.spills:
            self._waiting(work, slots)
        for stmt in work.stmts:
            if isinstance(stmt, ir.Let):
                self._let(stmt, slots)
            elif isinstance(stmt, ir.Store):
                self._store(stmt, slots)
        return slots

    def folds(self, axis: str) -> Slots:
        """What follows a loop over `axis`: partial sums in lanes are added up."""
        slots = Slots()
        for name in self.program.accumulates:
            form = self.forms.known.get(name)
            if form is None or not form.spread or self.program.loop_of.get(name) != axis:
                continue
            self.forms.fold(form, slots)
        return slots

    def excess(self, axis: str) -> Slots:
        """Sums beyond the registers, in the loop over `axis`."""
        return self.sums.excess(axis)

    def _let(self, let: ir.Let, slots: Slots) -> None:
        match let.expr:
            case ir.Full() | ir.Coord():
                same = isinstance(let.expr, ir.Full)
                self.forms[let.name] = Form(let.type.axes, None if same else self.t.lane_of(let.type.axes), same)
            case ir.Load(ref):
                self._load(let, ref, slots)
            case ir.Map(op, args):
                self._map(let, op, args, slots)
            case ir.Reduce(_, arg, axis):
                self._reduce(let, arg, axis, slots)
            case ir.Dot():
                self.dots.issue(let, let.expr, slots)
            case ir.Permute(arg):
                form = self.forms.of(arg, Form(let.type.axes))
                self.forms[let.name] = Form(let.type.axes, form.lane, form.same, form.spread)

    def _load(self, let: ir.Let, ref: ir.Ref, slots: Slots) -> None:
        lane = self.forms.loaded_lane(let, ref)
        self.forms[let.name] = Form(let.type.axes, lane)
        if let.name not in self.program.streamed:
            self.forms.loads(let.type.axes, lane, let.type.dtype.bytes, ref, slots)
            if f"prefetch.{let.name}" in self.t.decisions:
                lines = self.t.parts(let.type.axes, lane) * self.t.width(lane) * let.type.dtype.bytes / LINE
                slots.loads(self.rates, 4, max(1.0, lines))

    def _map(self, let: ir.Let, op: str, args: tuple[str, ...], slots: Slots) -> None:
        if let.name in self.program.folded:
            target = next((self.forms[a] for a in args if a in self.forms and a not in self.program.accumulates), None)
            self.forms[let.name] = target or Form(let.type.axes)
            return
        forms = [self.forms.of(a, Form((), None, True)) for a in args]
        lane = self.t.lane_of(let.type.axes)
        if not any(lane in f.axes for f in forms):
            lane = None
        if all(f.same for f in forms):
            self.forms[let.name] = Form(let.type.axes, None, True)
            slots.instructions += 1
            return
        self.forms[let.name] = Form(let.type.axes, lane)
        for form in forms:
            self.forms.converted(form, let.type.axes, lane, slots)
        number, width = self.t.parts(let.type.axes, lane), self.t.width(lane)
        if op == "cast":
            self.forms.cast(self.forms.dtype(args[0]), let.type.dtype.name, width, number, slots)
        else:
            slots.map(self.rates, op, width, number)

    def _reduce(self, let: ir.Let, arg: str, axis: str, slots: Slots) -> None:
        t, form = self.t, self.forms.of(arg, Form(let.type.axes))
        out = math.prod(t.points[a] for a in let.type.axes)
        spread = self.forms.spreads(let, axis)
        if not spread and form.lane != axis:
            number = t.parts(let.type.axes, form.lane) * t.points.get(axis, 1)
            slots.vectors(self.rates, t.width(form.lane), number, multiply=True)
            self.forms[let.name] = Form(let.type.axes, form.lane)
            if let.name in self.program.accumulates:
                slots.chain = max(slots.chain, self.rates.latency)
            return
        self.forms.converted(form, (*let.type.axes, axis), axis, slots)
        width = t.width(axis)
        slots.vectors(self.rates, width, out * t.chunks(axis), multiply=True)
        self.forms[let.name] = Form(let.type.axes, None, spread=width if spread else 0)
        if spread:
            slots.chain = max(slots.chain, self.rates.latency)
        else:
            self.forms.fold(Form(let.type.axes, None, spread=width), slots)

    def _store(self, stmt: ir.Store, slots: Slots) -> None:
        form = self.forms.of(stmt.value, Form(()))
        param = self.program.buffer(stmt.ref.buffer)
        axes, t = form.axes, self.t
        unit = [str(i) for d in t.unit(stmt.ref.buffer) if (i := stmt.ref.index[d]) in axes]
        unit = [a for a in unit if t.width(a) > 1]
        lane = form.lane if form.lane in unit else (unit[0] if unit else None)
        self.forms.converted(form, axes, lane, slots)
        number, width = t.parts(axes, lane), t.width(lane)
        if param.dtype.name != self.forms.dtype(stmt.value):
            self.forms.cast(self.forms.dtype(stmt.value), param.dtype.name, width, number, slots)
        size = width * param.dtype.bytes
        whole = min(number, max(1.0, number * size / self.rates.vector_bytes))
        slots.stores(
            self.rates, min(self.rates.vector_bytes, size * number / whole), whole, self.forms.crossing(stmt.ref, size)
        )

    def _waiting(self, work: Work, slots: Slots) -> None:
        """Unfinished tiles, loaded before and stored after each slab."""
        for access in work.accesses:
            axes = tuple(i for i in access.index if i is not None)
            lane = self.t.lane_of(axes)
            size = self.t.width(lane) * access.itemsize
            slots.loads(self.rates, size, self.t.parts(axes, lane))
            slots.stores(self.rates, size, self.t.parts(axes, lane))


__all__ = ["Issue"]
