"""Steps of a chain as C++: products issued, what is computed of them, products with that; with masks and without."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tilewright.emit.cuda_chain_body import Sum
from tilewright.emit.cuda_chain_own import own_columns, skip
from tilewright.emit.cuda_chain_values import closure, filled_past_end, live_lets
from tilewright.emit.cuda_plan import PANEL
from tilewright.emit.cuda_scope import Range
from tilewright.emit.cuda_sync import TURNS, arrive, wait
from tilewright.emit.cuda_text import cname
from tilewright.language import ir

if TYPE_CHECKING:
    from tilewright.emit.cuda_chain import ChainText

ATOM_ROWS = 64
_PAIR = 256
_STEP_BYTES = 32


class Step:
    """Writes the loop over columns of a consumer."""

    def __init__(self, owner: ChainText, loop: ir.Loop) -> None:
        self.owner, self.loop_ = owner, loop
        self.plan, self.text, self.values, self.scope = owner.plan, owner.text, owner.values, owner.scope
        self.body = owner.body
        self.axis = loop.axes[0]
        self.at, self.step = f"{self.axis.name}_at", owner.plan.extent(self.axis.name)
        self.low, self.high = owner.bounds(self.axis)
        self.end = self.high  # of the columns that the producer brings

    @property
    def streams(self) -> set[str]:
        """Buffers that rotate with the steps; others do with the items."""
        return {s.name for s in self.loop_.body if isinstance(s, ir.Alloc)}

    # -------------------------------------------------------------------------------------------- the loops
    def loop(self) -> None:
        """All steps: those with masks before, those without, those with masks after."""
        line, at, step = self.text.line, self.at, self.step
        low, high = f"{self.axis.name}_low", f"{self.axis.name}_high"
        if self.owner.trims:
            own_columns(self, low, high)
        else:
            line(f"const int {low} = {self.low}, {high} = {self.high};")
            line(f"int {at} = {low};")
            self.end = high
        self.low, self.high = low, high
        if not self.body.behind:
            self.loops()
            self.owner.free_still()
            skip(self, f"{at} < {self.end}")
            return
        for s in self.body.sums:
            line(f"{self.operand_type(s)} {cname(s.a)};")
        with self.text.block(f"if ({at} < {high})"):
            self.first()
            line(f"{at} += {step}, late = slot, slot.next();")
            self.loops()
        self.owner.free_still()
        with self.text.block(f"if ({low if not self.owner.trims else f'{self.axis.name}_first'} < {high})"):
            self.last()
        skip(self, f"{at} < {self.end}")

    def first(self) -> None:
        """The first step, with masks if it needs them."""
        free = ir.note(self.loop_.notes, "free")
        if not isinstance(free, tuple) and self.whole:
            with self.text.block(""):
                self.write(masked=False, first=True)
            return
        inside = f"{self.at} + {self.step} <= {self.past()}"
        if isinstance(free, tuple) and not self.begins_at_0(str(free[0])):
            inside = f"{self.at} >= (int){cname(str(free[0]))} && {inside}"
        with self.text.block(f"if ({inside})"):
            self.write(masked=False, first=True)
        with self.text.block("else"):
            self.write(masked=True, first=True)

    def past(self) -> str:
        """C++ of where steps without masks end."""
        free = ir.note(self.loop_.notes, "free")
        return f"min((int){cname(str(free[1]))}, {self.high})" if isinstance(free, tuple) else self.high

    def loops(self) -> None:
        """The three loops; those that never run are left out."""
        free = ir.note(self.loop_.notes, "free")
        at, step, high = self.at, self.step, self.high
        next_ = f"{at} += {step}, {'late = slot, ' if self.body.behind else ''}slot.next()"
        to = self.past()
        if isinstance(free, tuple):
            first = cname(str(free[0]))
            if not self.begins_at_0(str(free[0])):
                self.run(f"for (; {at} < min((int){first}, {high}); {next_})", True)
        self.run(f"for (; {at} + {step} <= {to}; {next_})", False)
        if isinstance(free, tuple) or not self.whole:
            self.run(f"for (; {at} < {high}; {next_})", True)

    def run(self, head: str, masked: bool) -> None:
        """A loop of steps."""
        self.text.line("#pragma unroll 1")
        with self.text.block(head):
            self.write(masked, first=False)

    def begins_at_0(self, name: str) -> bool:
        """Whether a bound is 0, so that nothing comes before it."""
        let = self.values.lets.get(name)
        return let is not None and let.expr == ir.Full(0)

    @property
    def whole(self) -> bool:
        """Whether every tile of columns exists whole."""
        if self.axis.start is not None or self.axis.stop is not None:
            return False
        size = self.plan.sizes.get(self.axis.over)
        return size is not None and size % self.step == 0

    # --------------------------------------------------------------------------------------------- a step
    def write(self, masked: bool, first: bool) -> None:
        """One step; `first`: no product of an earlier one is left to issue."""
        self.part(masked)
        self.values.aliases = {
            s.name: s.expr.args[1]
            for s in self.body.between
            if not masked and isinstance(s, ir.Let) and isinstance(s.expr, ir.Map) and ir.note(s.notes, "free")
        }
        self.now()
        self.fill(masked)
        self.issue_scores()
        lag = self.body.behind and not first
        if lag:
            for s in self.body.sums:
                self.wait(s.full, "late")
            self.issue_sums("late")
        if self.body.turn:
            self.text.line(f"pass({TURNS} + (group + 1) % {self.plan.groups}, {_PAIR});")
        self.text.line(f"wgmma_wait<{1 if lag else 0}>();")
        for d in self.body.scores:
            self.text.line(f"hold({cname(d.name)}.v);")
        for sync in self.body.frees:
            self.arrive(sync, "slot")
        self.compute()
        if lag:
            self.end_sums("late")
        self.prepare()
        if not self.body.behind:
            for s in self.body.sums:
                self.wait(s.full, "slot")
                if masked:
                    self.clear(s, "slot")
            self.issue_sums("slot")
            self.end_sums("slot")

    def last(self) -> None:
        """The products that are left when the loop ends."""
        with self.text.block(""):
            for s in self.body.sums:
                self.wait(s.full, "late")
                self.clear(s, "late", before=True)
            self.issue_sums("late")
            self.end_sums("late")

    def fill(self, masked: bool) -> None:
        """What is -inf past the end in a step whose tile may be short."""
        operands = [ir.operands(c.expr)[0] for c in self.casts]
        short = masked and not self.whole
        self.values.ends = frozenset({self.axis.name})
        self.values.filled = filled_past_end(self.body.between, self.axis.name, operands) if short else frozenset()

    def part(self, masked: bool) -> None:
        """The columns of this step."""
        stop = self.high if masked and not self.whole else f"{self.at} + {self.step}"
        size = None if masked and not self.whole else self.step
        self.scope.ranges[self.axis.name] = Range(
            self.at,
            stop,
            size,
            1,
            1 if self.axis.start is not None else self.step,
            False,
            self.step,
            self.low,
            self.high,
        )
        self.text.line(self.values.part(self.axis.name))

    def now(self) -> None:
        """Sums so far are called as their buffers."""
        held = {s.buffer for s in self.body.sums}
        for s in self.body.rows.body:
            if isinstance(s, ir.Let) and isinstance(s.expr, ir.Load) and s.expr.ref.buffer in held:
                self.values.aliases[s.name] = s.expr.ref.buffer
                self.values.types[s.name] = s.type

    # ------------------------------------------------------------------------------------------- products
    def issue_scores(self) -> None:
        """The first products of this step."""
        line = self.text.line
        if self.body.turn:
            line(f"meet({TURNS} + group, {_PAIR});")
        for sync in self.body.waits:
            self.wait(sync, "slot")
        for d in self.body.scores:
            self.values.types[d.name] = d.type
            line(f"{self.values.tile(d.type)} {cname(d.name)};")
        line("wgmma_fence();")
        for d in self.body.scores:
            assert isinstance(d.expr, ir.Dot)
            a, b = (self.body.loads[n] for n in (d.expr.a, d.expr.b))
            row = self.body.rows.axes[-1].name
            if row not in a.type.axes:
                a, b = b, a
            column = next(x for x in b.type.axes if x != d.expr.axis)
            steps = self.plan.extent(d.expr.axis) * a.type.dtype.bits // 8 // _STEP_BYTES
            call = f"multiply<{a.type.dtype.name}, {self.plan.extent(column)}, {steps}>"
            places = f"{self.place(a, d.expr.axis, 'slot')}, {self.place(b, d.expr.axis, 'slot')}"
            line(f"{call}({cname(d.name)}.v, {places}, false);")
        line("wgmma_commit();")

    def issue_sums(self, slot: str) -> None:
        """The second products of this step, or of the last one."""
        line = self.text.line
        line("wgmma_fence();")
        for s in self.body.sums:
            assert isinstance(s.dot.expr, ir.Dot)
            depth = s.dot.expr.axis
            column = next(x for x in s.b.type.axes if x != depth)
            steps = self.step * s.b.type.dtype.bits // 8 // _STEP_BYTES
            call = f"multiply<{s.b.type.dtype.name}, {self.plan.extent(column)}, {steps}>"
            line(f"{call}({cname(s.buffer)}.v, {cname(s.a)}, {self.place(s.b, depth, slot)}, true);")
        line("wgmma_commit();")

    def end_sums(self, slot: str) -> None:
        """The sums are there; the matrix unit is done with their operands."""
        self.text.line("wgmma_wait<0>();")
        for s in self.body.sums:
            self.text.line(f"hold({cname(s.buffer)}.v);")
            if s.empty is not None:
                self.arrive(s.empty, slot)

    def place(self, let: ir.Let, depth: str, slot: str) -> str:
        """C++ of where an operand lies; a warpgroup's rows begin further on in the block's part."""
        assert isinstance(let.expr, ir.Load)
        ref, row = let.expr.ref, self.body.rows.axes[-1].name
        ring = self.plan.rings[ref.buffer]
        turns = slot if ref.buffer in self.streams else "own"
        place = f"{cname(ref.buffer)}[{turns}]"
        along = ref.index[-1] == depth
        if row in ref.index and self.plan.groups > 1:
            size = ATOM_ROWS * PANEL if along else ring.rows * PANEL
            place += f" + group * {size}"
        return f"{'SumInRows' if along else 'SumDownRows'}<{ring.rows}>({place})"

    # ------------------------------------------------------------------------------- between the products
    def compute(self) -> None:
        """What is made of the scores until the sums so far can be scaled; masks that always hold here are left out."""
        early = self.factors
        self.statements(tuple(s for s in self.body.between if isinstance(s, ir.Let) and s.name in early))

    @property
    def factors(self) -> set[str]:
        """What the sums so far are scaled by, and what that is computed of."""
        lets = [s for s in self.body.between if isinstance(s, ir.Let)]
        return closure({n for let in self.body.rescale for n in ir.operands(let.expr)}, lets, self.values.aliases)

    def statements(self, body: tuple[ir.Stmt, ...]) -> None:
        """Those that something reads in the end."""
        live = live_lets((*self.body.between, *self.body.rescale, *self.casts, *self.dots), self.values.aliases)
        for s in body:
            if isinstance(s, ir.Let) and (s.name not in live or s.name in self.values.aliases):
                self.values.types[s.name] = s.type
                continue
            self.values.statement(s)

    @property
    def casts(self) -> tuple[ir.Let, ...]:
        return tuple(self.values.lets[s.a] for s in self.body.sums)

    @property
    def dots(self) -> tuple[ir.Stmt, ...]:
        return tuple(s.dot for s in self.body.sums)

    def prepare(self) -> None:
        """The sums so far scaled, under what is left to compute of the scores; and that as operands in registers."""
        targets = {s.addend: s.buffer for s in self.body.sums}
        for let in self.body.rescale:
            if let.name in targets:
                self.values.types[let.name] = let.type
                self.text.line(f"{cname(targets[let.name])} = {self.values._value(let)};")
            else:
                self.values.statement(let)
        early = self.factors
        self.statements(tuple(s for s in self.body.between if not (isinstance(s, ir.Let) and s.name in early)))
        for s in self.body.sums:
            cast = self.values.lets[s.a]
            word = "" if self.body.behind else "const auto "
            arg = ir.operands(cast.expr)[0]
            given = f"{self.values.name(arg)}, {self.values.columns(self.axis.name)}"
            self.text.line(f"{word}{cname(s.a)} = as_operand<{cast.type.dtype.name}>({given});")

    def operand_type(self, s: Sum) -> str:
        """C++ of an operand in registers."""
        return f"Fragments<{s.b.type.dtype.name}, {self.step // 4}>"

    def clear(self, s: Sum, slot: str, before: bool = False) -> None:
        """Of a short tile that does not end with its tensor, nothing past the end may meet a factor of 0."""
        if self.axis.stop is None:
            return
        assert isinstance(s.b.expr, ir.Load)
        ring = self.plan.rings[s.b.expr.ref.buffer]
        end = f"{self.at} - {self.step}" if before else self.at
        with self.text.block(f"if ({self.end} - ({end}) < {self.step})"):
            place = f"{cname(ring.alloc.name)}[{slot}]"
            self.text.line(f"clear_rows<{ring.rows}, {ring.panels}>({place}, {self.end} - ({end}), team);")
            self.text.line("fence_shared();")
            self.text.line("meet(2 + group, 128);")

    # ---------------------------------------------------------------------------------------------- syncs
    def wait(self, sync: ir.Sync, slot: str) -> None:
        """Until a slot is full."""
        wait(self.text, sync, free=False, slot=slot)

    def arrive(self, sync: ir.Sync, slot: str) -> None:
        """One arrival a warp: the slot may be filled again."""
        arrive(self.text, sync, slot)


__all__ = ["Step"]
