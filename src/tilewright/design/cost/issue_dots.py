"""What the dots of a tile cost to issue: lanes along the sum, lanes along the result, or registers that are tiles."""

from __future__ import annotations

import math

from tilewright.design.atoms import AT_ONCE, PORTION, TILED
from tilewright.design.cost.forms import HALF_TO_F32, Form, Forms
from tilewright.design.cost.slots import Slots
from tilewright.design.panels import TILE_BYTES
from tilewright.language import ir


class Dots:
    """Costs of dots; the form of each result is noted among the others."""

    def __init__(self, forms: Forms) -> None:
        self.forms, self.t, self.rates, self.program = forms, forms.t, forms.rates, forms.program

    def issue(self, let: ir.Let, dot: ir.Dot, slots: Slots) -> None:
        """One dot, by the instruction that its design names."""
        atom = str(self.t.decisions.get(f"atom.{let.name}", "fma"))
        if atom in TILED:
            self._tiles(let, dot, slots)
            return
        if self.t.lane_of((dot.axis, *let.type.axes)) == dot.axis:
            self._inner(let, dot, atom, slots)
        else:
            self._outer(let, dot, atom, slots)

    def _inner(self, let: ir.Let, dot: ir.Dot, atom: str, slots: Slots) -> None:
        """Lanes along the sum: each element of the result is a vector of partial sums."""
        t, rates = self.t, self.rates
        width, per = t.width(dot.axis), 2 if atom in ("bf16x2", "vnni") else 1
        chunks = -(-t.points[dot.axis] // (width * per))
        out = math.prod(t.points[a] for a in let.type.axes)
        self._multiply(out * chunks, width, atom, slots)
        for name in (dot.a, dot.b):
            self._inner_operand(name, dot.axis, width * per, chunks, atom, slots)
        spread = self.forms.spreads(let, dot.axis)
        self.forms[let.name] = Form(let.type.axes, None, spread=width if spread else 0)
        if spread:
            slots.chain = max(slots.chain, chunks * (rates.pair_latency if per == 2 else rates.latency))
        else:
            self.forms.fold(Form(let.type.axes, None, spread=width), slots)

    def _inner_operand(self, name: str, axis: str, width: int, chunks: int, atom: str, slots: Slots) -> None:
        let = self.program.values[name]
        rows = math.prod(self.t.points[a] for a in let.type.axes if a != axis)
        if isinstance(let.expr, ir.Load):
            ref = let.expr.ref
            lane = self.forms.loaded_lane(let, ref)
            if lane == axis or atom in ("bf16x2", "vnni"):
                size = width * let.type.dtype.bytes
                slots.loads(self.rates, size, rows * chunks, self.forms.crossing(ref, size))
            else:
                self.forms.loads(let.type.axes, lane, let.type.dtype.bytes, ref, slots)
                self.forms.converted(Form(let.type.axes, lane), let.type.axes, axis, slots)
        else:
            self.forms.converted(self.forms.of(name, Form(let.type.axes)), let.type.axes, axis, slots)
        if let.type.dtype.bits == 16 and atom == "fma":
            slots.vectors(self.rates, width, HALF_TO_F32 * rows * chunks)

    def _multiply(self, number: float, width: int, atom: str, slots: Slots) -> None:
        rate = self.rates.pairs if atom in ("bf16x2", "vnni") else self.rates.fma
        slots.vectors(self.rates, width, number, multiply=True, rate=rate)

    def _outer(self, let: ir.Let, dot: ir.Dot, atom: str, slots: Slots) -> None:
        """Lanes along the result: one operand is broadcast element by element."""
        t, rates = self.t, self.rates
        lane = t.lane_of(let.type.axes)
        width, per = t.width(lane), 2 if atom in ("bf16x2", "vnni") else 1
        steps = -(-t.points[dot.axis] // per)
        self._multiply(t.parts(let.type.axes, lane) * steps, width, atom, slots)
        for name in (dot.a, dot.b):
            if per == 2 and self._is_woven(name, lane):
                self._woven(self.program.values[name], let, dot.axis, lane, steps, slots)
            else:
                self._outer_operand(name, dot.axis, lane, steps, per, slots)
        self.forms[let.name] = Form(let.type.axes, lane)
        if let.name in self.program.accumulates:
            slots.chain = max(slots.chain, steps * (rates.pair_latency if per == 2 else rates.latency))

    def _outer_operand(self, name: str, axis: str, lane: str | None, steps: int, per: int, slots: Slots) -> None:
        t, let = self.t, self.program.values[name]
        axes, itemsize = let.type.axes, let.type.dtype.bytes
        others = math.prod(t.points[a] for a in axes if a not in (axis, lane))
        across = lane is not None and lane in axes
        vectors = others * steps * (t.chunks(str(lane)) if across else 1)
        widen = itemsize == 2 and per == 1
        if not isinstance(let.expr, ir.Load):
            self._in_registers(self.forms.of(name, Form(axes)), axes, axis, lane, per, slots)
            return
        ref = let.expr.ref
        packed = ref.buffer in self.forms.panels
        if packed and self.t.decisions.get(f"unpack.{ref.buffer}"):
            itemsize, widen = 4, False
        loaded = self.forms.loaded_lane(let, ref)
        if per == 2 or loaded == lane or (packed and not across):
            size = t.width(lane) * itemsize * per if across else itemsize * per
            slots.loads(self.rates, size, vectors, self.forms.crossing(ref, size) if across else 0.0)
            if not across and widen:
                slots.vectors(self.rates, t.width(lane), vectors)  # the scalar is widened, then broadcast
        elif loaded is not None:
            self.forms.loads(axes, loaded, itemsize, ref, slots)
            self.forms.converted(Form(axes, loaded), axes, lane, slots)
        else:
            self.forms.loads(axes, None, itemsize, ref, slots)
            if across:
                self.forms.converted(Form(axes, None), axes, lane, slots)
        if widen:
            slots.vectors(self.rates, t.width(lane) if across else 1, HALF_TO_F32 * vectors)

    def _in_registers(
        self, form: Form, axes: tuple[str, ...], axis: str, lane: str | None, per: int, slots: Slots
    ) -> None:
        """An operand that was computed: as vectors along the lanes, or broadcast; pairs are half as many."""
        if per == 1 or form.same or form.lane is None:
            self.forms.converted(form, axes, lane, slots)
            return
        width, number = self.t.width(form.lane), math.prod(self.t.points[a] for a in axes)
        if form.lane != axis:  # two vectors of neighbours are interleaved
            slots.shuffles(self.rates, width, number / width)
        if lane != form.lane:
            slots.shuffles(self.rates, self.t.width(lane), number / per)

    def _is_woven(self, name: str, lane: str | None) -> bool:
        """Whether pairs of an operand are made of two vectors along the lanes, as it is not packed in pairs."""
        let = self.program.values[name]
        return isinstance(let.expr, ir.Load) and lane in let.type.axes and let.expr.ref.buffer not in self.forms.panels

    def _woven(self, let: ir.Let, into: ir.Let, axis: str, lane: str | None, steps: int, slots: Slots) -> None:
        """Pairs of rows that are interleaved as they are read; what lies outside the dot's loop was so before it."""
        assert isinstance(let.expr, ir.Load)
        t, loops = self.t, self.program.loop_of
        others = math.prod(t.points[a] for a in let.type.axes if a not in (axis, lane))
        vectors = others * steps * t.chunks(str(lane))
        if loops.get(let.name) != loops.get(into.name):
            slots.loads(self.rates, self.rates.vector_bytes, vectors)
            return
        size = t.width(lane) * let.type.dtype.bytes
        slots.loads(self.rates, size, 2 * vectors, self.forms.crossing(let.expr.ref, size))
        slots.shuffles(self.rates, t.width(lane), 2 * vectors)
        if (sums := t.parts(into.type.axes, lane)) > AT_ONCE and vectors > PORTION:
            slots.stores(self.rates, self.rates.vector_bytes, vectors)  # they wait for the other portions of the sums
            slots.loads(self.rates, self.rates.vector_bytes, vectors * -(-sums // PORTION))

    def _tiles(self, let: ir.Let, dot: ir.Dot, slots: Slots) -> None:
        """AMX: a product of tile registers is 16 cycles, a load of one is 16 lines."""
        t = self.t
        lane = t.lane_of(let.type.axes)
        blocks = math.prod(-(-t.points[a] // 16) for a in let.type.axes)
        steps = -(-t.points[dot.axis] * self.program.values[dot.a].type.dtype.bytes // TILE_BYTES)
        slots.multiply += self.rates.tile * blocks * steps
        for name in (dot.a, dot.b):
            rows = math.prod(-(-t.points[a] // 16) for a in self.program.values[name].type.axes if a != dot.axis)
            slots.load += 16 * rows * steps / self.rates.fma
        slots.instructions += 3 * blocks * steps
        self.forms[let.name] = Form(let.type.axes, lane)


__all__ = ["Dots"]
