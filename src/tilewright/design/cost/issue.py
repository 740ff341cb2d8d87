"""What the statements of a tile cost to issue: loads, arithmetic, shuffles between layouts, stores, and chains of sums.

Follows the emitter (`emit/llvm_*.py`): a tile has one axis across lanes, or none; a reader that wants other lanes pays
for broadcasts, assembly from scalars, or transposes of blocks of registers; sums along lanes stay spread over them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from tilewright.design.atoms import TILED
from tilewright.design.cost.rates import LINE, Rates
from tilewright.design.cost.schedule import Copy, Work
from tilewright.design.cost.slots import Slots
from tilewright.design.cost.tiling import Tiling
from tilewright.design.panels import ROWS, TILE_BYTES, copied_depth
from tilewright.language import ir

_HALF_TO_F32 = 2  # instructions that widen a vector of 16-bit floats
_F32_TO_HALF = 2
SPILLED = 3
"""Stores and loads of a step for each sum too many: compilers spill more than they must, and sums wait for memory."""


@dataclass(frozen=True)
class Form:
    """How a value lies: its lane axis, one scalar for all (`same`), or partial sums over `spread` lanes."""

    axes: tuple[str, ...]
    lane: str | None = None
    same: bool = False
    spread: int = 0


class Issue:
    """Costs of the work of one design; values are met in the order of the program."""

    def __init__(self, tiling: Tiling, rates: Rates, panels: dict[str, str]) -> None:
        self.t, self.rates, self.panels = tiling, rates, panels
        self.program = tiling.program
        self.forms: dict[str, Form] = {}

    # --------------------------------------------------------------------------------------------- work
    def work(self, work: Work) -> Slots:
        """One execution of `work`."""
        slots = Slots()
        if work.copy is not None:
            self._copy(work.copy, slots)
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
            form = self.forms.get(name)
            if form is None or not form.spread or self.program.loop_of.get(name) != axis:
                continue
            self._fold(form, slots)
        return slots

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

    # --------------------------------------------------------------------------------------------- values
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
                self._dot(let, let.expr, slots)
            case ir.Permute(arg):
                form = self.forms.get(arg, Form(let.type.axes))
                self.forms[let.name] = Form(let.type.axes, form.lane, form.same, form.spread)

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

    def _load(self, let: ir.Let, ref: ir.Ref, slots: Slots) -> None:
        lane = self.loaded_lane(let, ref)
        self.forms[let.name] = Form(let.type.axes, lane)
        if let.name not in self.program.streamed:
            self._loads(let.type.axes, lane, let.type.dtype.bytes, ref, slots)
            if f"prefetch.{let.name}" in self.t.decisions:
                lines = self.t.parts(let.type.axes, lane) * self.t.width(lane) * let.type.dtype.bytes / LINE
                slots.loads(self.rates, 4, max(1.0, lines))

    def _loads(self, axes: tuple[str, ...], lane: str | None, itemsize: int, ref: ir.Ref, slots: Slots) -> None:
        size = self.t.width(lane) * itemsize
        slots.loads(self.rates, size, self.t.parts(axes, lane), self._crossing(ref, size))

    def _crossing(self, ref: ir.Ref, size: int) -> float:
        """The share of loads of `size` bytes that cross a line: where rows are no multiple of one."""
        param = self.program.buffer(ref.buffer)
        if param.dims is None or size <= 4 or ref.buffer in self.panels or ref.buffer in self.program.scratch:
            return 0.0
        last = param.dims[next(iter(self.t.unit(ref.buffer)), len(param.dims) - 1)] if param.dims else 1
        row = param.dtype.bytes * (self.t.facts.sizes.get(last, 1) if isinstance(last, str) else last)
        return 0.0 if row % size == 0 or len(param.dims) == 1 else min(1.0, size / LINE)

    def _map(self, let: ir.Let, op: str, args: tuple[str, ...], slots: Slots) -> None:
        if let.name in self.program.folded:
            target = next((self.forms[a] for a in args if a in self.forms and a not in self.program.accumulates), None)
            self.forms[let.name] = target or Form(let.type.axes)
            return
        forms = [self.forms.get(a, Form((), None, True)) for a in args]
        lane = self.t.lane_of(let.type.axes)
        if not any(lane in f.axes for f in forms):
            lane = None
        if all(f.same for f in forms):
            self.forms[let.name] = Form(let.type.axes, None, True)
            slots.instructions += 1
            return
        self.forms[let.name] = Form(let.type.axes, lane)
        for form in forms:
            self._converted(form, let.type.axes, lane, slots)
        number, width = self.t.parts(let.type.axes, lane), self.t.width(lane)
        if op == "cast":
            self._cast(self._dtype(args[0]), let.type.dtype.name, width, number, slots)
        else:
            slots.map(self.rates, op, width, number)

    def _dtype(self, name: str) -> str:
        let = self.program.values.get(name)
        return let.type.dtype.name if let is not None else "i64"

    def _cast(self, source: str, target: str, width: int, number: float, slots: Slots) -> None:
        if source == target:
            return
        cost = 1 if target == "f16" or source == "f16" else _HALF_TO_F32 if source == "bf16" else 1
        if target == "bf16":
            cost = _F32_TO_HALF if self.t.facts.machine.has("avx512bf16") else 6
        slots.vectors(self.rates, width, cost * number)

    def _converted(self, form: Form, axes: tuple[str, ...], lane: str | None, slots: Slots) -> None:
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

    # ------------------------------------------------------------------------------------------- reductions
    def _reduce(self, let: ir.Let, arg: str, axis: str, slots: Slots) -> None:
        t, form = self.t, self.forms.get(arg, Form(let.type.axes))
        out = math.prod(t.points[a] for a in let.type.axes)
        spread = self._spreads(let, axis)
        if not spread and form.lane != axis:
            number = t.parts(let.type.axes, form.lane) * t.points.get(axis, 1)
            slots.vectors(self.rates, t.width(form.lane), number, multiply=True)
            self.forms[let.name] = Form(let.type.axes, form.lane)
            if let.name in self.program.accumulates:
                slots.chain = max(slots.chain, self.rates.latency)
            return
        self._converted(form, (*let.type.axes, axis), axis, slots)
        width = t.width(axis)
        slots.vectors(self.rates, width, out * t.chunks(axis), multiply=True)
        self.forms[let.name] = Form(let.type.axes, None, spread=width if spread else 0)
        if spread:
            slots.chain = max(slots.chain, self.rates.latency)
        else:
            self._fold(Form(let.type.axes, None, spread=width), slots)

    def _spreads(self, let: ir.Let, axis: str) -> bool:
        """Whether partial sums stay in lanes until the loop over `axis` ends."""
        name = let.name
        if name not in self.program.accumulates or self.program.loop_of.get(name) != axis:
            return False
        return self.t.lane_of((axis, *let.type.axes)) == axis and self.t.width(axis) > 1

    def _fold(self, form: Form, slots: Slots) -> None:
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

    # ------------------------------------------------------------------------------------------------- dots
    def _dot(self, let: ir.Let, dot: ir.Dot, slots: Slots) -> None:
        atom = str(self.t.decisions.get(f"atom.{let.name}", "fma"))
        if atom in TILED:
            self._tile_dot(let, dot, slots)
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
        spread = self._spreads(let, dot.axis)
        self.forms[let.name] = Form(let.type.axes, None, spread=width if spread else 0)
        if spread:
            slots.chain = max(slots.chain, chunks * (rates.pair_latency if per == 2 else rates.latency))
        else:
            self._fold(Form(let.type.axes, None, spread=width), slots)

    def _inner_operand(self, name: str, axis: str, width: int, chunks: int, atom: str, slots: Slots) -> None:
        let = self.program.values[name]
        rows = math.prod(self.t.points[a] for a in let.type.axes if a != axis)
        if isinstance(let.expr, ir.Load):
            ref = let.expr.ref
            lane = self.loaded_lane(let, ref)
            if lane == axis or atom in ("bf16x2", "vnni"):
                size = width * let.type.dtype.bytes
                slots.loads(self.rates, size, rows * chunks, self._crossing(ref, size))
            else:
                self._loads(let.type.axes, lane, let.type.dtype.bytes, ref, slots)
                self._converted(Form(let.type.axes, lane), let.type.axes, axis, slots)
        else:
            self._converted(self.forms.get(name, Form(let.type.axes)), let.type.axes, axis, slots)
        if let.type.dtype.bits == 16 and atom == "fma":
            slots.vectors(self.rates, width, _HALF_TO_F32 * rows * chunks)

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
            self._converted(self.forms.get(name, Form(axes)), axes, lane, slots)
            return
        ref = let.expr.ref
        packed = ref.buffer in self.panels
        if packed and self.t.decisions.get(f"unpack.{ref.buffer}"):
            itemsize, widen = 4, False
        loaded = self.loaded_lane(let, ref)
        if per == 2 or loaded == lane or (packed and not across):
            size = t.width(lane) * itemsize * per if across else itemsize * per
            slots.loads(self.rates, size, vectors, self._crossing(ref, size) if across else 0.0)
            if not across and widen:
                slots.vectors(self.rates, t.width(lane), vectors)  # the scalar is widened, then broadcast
        elif loaded is not None:
            self._loads(axes, loaded, itemsize, ref, slots)
            self._converted(Form(axes, loaded), axes, lane, slots)
        else:
            self._loads(axes, None, itemsize, ref, slots)
            if across:
                self._converted(Form(axes, None), axes, lane, slots)
        if widen:
            slots.vectors(self.rates, t.width(lane) if across else 1, _HALF_TO_F32 * vectors)

    def _tile_dot(self, let: ir.Let, dot: ir.Dot, slots: Slots) -> None:
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

    # --------------------------------------------------------------------------------------- stores and copies
    def _store(self, stmt: ir.Store, slots: Slots) -> None:
        form = self.forms.get(stmt.value, Form(()))
        param = self.program.buffer(stmt.ref.buffer)
        axes, t = form.axes, self.t
        unit = [str(i) for d in t.unit(stmt.ref.buffer) if (i := stmt.ref.index[d]) in axes]
        unit = [a for a in unit if t.width(a) > 1]
        lane = form.lane if form.lane in unit else (unit[0] if unit else None)
        self._converted(form, axes, lane, slots)
        number, width = t.parts(axes, lane), t.width(lane)
        if param.dtype.name != self._dtype(stmt.value):
            self._cast(self._dtype(stmt.value), param.dtype.name, width, number, slots)
        size = width * param.dtype.bytes
        whole = min(number, max(1.0, number * size / self.rates.vector_bytes))
        slots.stores(
            self.rates, min(self.rates.vector_bytes, size * number / whole), whole, self._crossing(stmt.ref, size)
        )

    def _waiting(self, work: Work, slots: Slots) -> None:
        """Unfinished tiles, loaded before and stored after each slab."""
        for access in work.accesses:
            axes = tuple(i for i in access.index if i is not None)
            lane = self.t.lane_of(axes)
            size = self.t.width(lane) * access.itemsize
            slots.loads(self.rates, size, self.t.parts(axes, lane))
            slots.stores(self.rates, size, self.t.parts(axes, lane))

    def _copy(self, copy: Copy, slots: Slots) -> None:
        """Rows of a panel: read along the sum and transposed in registers, or as they lie; 32-bit lanes either way."""
        t, rates = self.t, self.rates
        load = self.program.loads[copy.tensor][0]
        assert isinstance(load.expr, ir.Load)
        itemsize = load.type.dtype.bytes
        rows, depth = t.points[copy.lane], copied_depth(copy.layout, itemsize)
        pair = 1 if copy.layout == "panel" else 4 // itemsize
        words = depth // pair
        along = [load.expr.ref.index[d] for d in t.unit(copy.tensor)]
        size, written = words * pair * itemsize, 4 if copy.widened or pair > 1 else itemsize
        if copy.layout == "tile":
            slots.loads(rates, size, rows)
            slots.stores(rates, size, rows)
            return
        block = min(rows, ROWS) if rows % ROWS == 0 or rows < ROWS else rows
        width = min(t.full, 1 << max(0, (min(block, t.full) - 1).bit_length()))
        chunks = -(-rows // width)
        if copy.depth in along:
            slots.loads(rates, size, rows, self._crossing(load.expr.ref, size))
            shuffles = block_shuffles(width, words) if width > 1 else 1.5 * words
            slots.shuffles(rates, words, chunks * shuffles)
        else:
            slots.loads(rates, width * itemsize, chunks * depth)
            if pair > 1:
                slots.shuffles(rates, width, 2 * (pair - 1) * chunks * words)
        if copy.widened:
            slots.vectors(rates, words, _HALF_TO_F32 * rows)
        slots.stores(rates, width * written, chunks * words)


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
