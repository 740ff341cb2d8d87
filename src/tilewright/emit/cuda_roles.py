"""One role's path through a scheduled program: every loop around it, its own statements, and nothing of other roles."""

from __future__ import annotations

from contextlib import nullcontext

from tilewright.emit.cuda_copies import copy_in, copy_out
from tilewright.emit.cuda_dots import is_rows, multiply
from tilewright.emit.cuda_grid import items
from tilewright.emit.cuda_plan import Plan, Team, number
from tilewright.emit.cuda_sync import arrive, expect, step_ahead, turn, wait
from tilewright.emit.cuda_text import Text, cname
from tilewright.emit.cuda_tiles import Tiles
from tilewright.language import ir


class RoleText:
    """Writes what the warps of one role execute."""

    def __init__(self, plan: Plan, team: Team, text: Text) -> None:
        self.plan, self.team, self.text = plan, team, text
        self.tiles = Tiles(plan, text)
        self.copies = team.name == "producer"
        self.full = ""  # the barrier that the next copies complete
        self.slot = "slot"  # C++ of the place in the ring
        self.pending: list[ir.Sync] = []  # releases that wait for the matrix unit
        self.in_flight = 0  # steps that it still works on when the next one begins
        self.first: dict[str, str] = {}  # axis -> where its loop begins

    def block(self, body: tuple[ir.Stmt, ...]) -> None:
        """Statements in order; what is done in the first step, and what in all others, are sides of one condition."""
        self.tiles.begin(body)
        before: ir.Stmt | None = None
        for stmt in body:
            if isinstance(stmt, ir.When) and _opposite(before, stmt):
                with self.text.block("else"):
                    self.block(stmt.body)
            else:
                self.stmt(stmt)
            before = stmt

    def stmt(self, stmt: ir.Stmt) -> None:
        """One statement."""
        match stmt:
            case ir.Role(name, body, _):
                if name == self.team.name:
                    self.block(body)
            case ir.Loop():
                self.loop(stmt)
            case ir.Sync():
                self.sync(stmt)
            case ir.Copy() if stmt.dst.buffer in self.plan.rings and self.copies:
                copy_in(self.plan, self.text, stmt, self.full, self.slot)
            case ir.Copy() if not self.copies:
                copy_out(self.plan, self.text, stmt, *self.tiles.leaving.pop(stmt.src.buffer))
            case ir.When(cond, axis, body):
                with self.text.block(f"if ({self.condition(cond, axis)})"):
                    self.block(body)
            case ir.Alloc() if not self.copies:
                self.tiles.alloc(stmt)
            case ir.Let() | ir.Store() if not self.copies:
                self.tiles.stmt(stmt)

    def condition(self, cond: str, axis: str) -> str:
        """C++ of `first(axis)` and its kin."""
        loop_axis, x = self.plan.axes[axis], cname(axis)
        first = f"{x} == {self.first[axis]}"
        last = f"{x} + {self.plan.extent(axis)} >= {self.stop(loop_axis)}"
        return {"first": first, "not_first": f"!({first})", "last": last, "not_last": f"!({last})"}[cond]

    # --------------------------------------------------------------------------------------------- loops
    def loop(self, loop: ir.Loop) -> None:
        """A loop by what its iterations are dealt to."""
        bind = ir.note(loop.notes, "bind")
        if bind == "grid" and loop.parallel:
            opening = items(self.plan, self.text, loop)
            with self.text.block(opening) if opening else nullcontext():
                self.grid_body(loop)
        elif bind == "cluster" and loop.parallel:
            self.cluster(loop)
            self.block(loop.body)
        elif ir.note(loop.notes, "how"):
            self.split(loop)
        elif bind == "warpgroup" and any(isinstance(s, ir.Role) for s in ir.walk(loop.body)):
            self.turns(loop)
        elif is_rows(loop):
            self.rows(loop)
        elif ir.note(loop.notes, "stages"):
            self.ring(loop)
        else:
            self.serial(loop)

    def grid_body(self, loop: ir.Loop) -> None:
        """The positions of one item, then the body."""
        from tilewright.emit.cuda_grid import positions

        positions(self.plan, self.text, loop)
        self.block(loop.body)

    def cluster(self, loop: ir.Loop) -> None:
        """Each block of the cluster has its own position."""
        inner = 1
        for axis in reversed(loop.axes):
            trips = self.plan.trips(axis)
            place = f"rank / {inner} % {trips}" if len(loop.axes) > 1 else "rank"
            self.text.line(
                f"const int {cname(axis.name)} = {cname(axis.over)} + int({place}) * {self.plan.extent(axis.name)};"
            )
            inner *= trips

    def stop(self, axis: ir.Axis) -> str:
        """C++ of the end of a loop over an axis."""
        size = self.plan.size(self.plan.root(axis.name))
        if axis.over not in self.plan.axes:
            return size
        return f"min({cname(axis.over)} + {self.plan.extent(axis.over)}, {size})"

    def serial(self, loop: ir.Loop) -> None:
        """Iterations in order, written out by the compiler: registers are told apart by the iteration."""
        axis = loop.axes[0]
        x, over, step = cname(axis.name), cname(axis.over), self.plan.extent(axis.name)
        trips = self.plan.trips(axis)
        self.first[axis.name] = over
        self.text.line("#pragma unroll")
        with self.text.block(f"for (int {x}_n = 0; {x}_n < {trips}; ++{x}_n)"):
            self.text.line(f"const int {x} = {over} + {x}_n * {step};")
            self.block(loop.body)

    def split(self, loop: ir.Loop) -> None:
        """This block's part of a sum; whoever joins the parts goes through them in order."""
        axis = loop.axes[0]
        s = cname(axis.name)
        self.first[axis.name] = "0"
        own = [
            x
            for stmt in loop.body
            for x in (stmt.body if isinstance(stmt, ir.Role) and stmt.name == self.team.name else (stmt,))
        ]
        at = next((n for n, x in enumerate(own) if isinstance(x, ir.Sync) and x.action == "barrier"), len(own))
        self.tiles.split = axis
        part = "int(rank)" if ir.note(loop.notes, "bind") == "cluster" else "part"
        self.text.line(f"const int {s} = {part} * {self.plan.extent(axis.name)};")
        for stmt in own[:at]:
            if ir.note(loop.notes, "bind") == "cluster" and _gives(stmt):
                self.text.line("cluster_wait();  // the others have begun")
            self.stmt(stmt)
        if at == len(own) or self.copies:
            return
        if self.plan.atomic:
            self.tiles.joining = True
            with self.text.block(f"if ({self.joins(own[at])})"):
                self.text.line(f"const int {s} = {(self.plan.splits - 1) * self.plan.extent(axis.name)};")
                self.block(tuple(own[at + 1 :]))
            self.tiles.joining = False
            return
        parts = f"for (int {s} = 0; {s} < {self.plan.size(axis.over)}; {s} += {self.plan.extent(axis.name)})"
        with self.text.block(f"if ({self.joins(own[at])})"):
            barrier = own[at]
            if isinstance(barrier, ir.Sync) and ir.note(barrier.notes, "scope") != "grid":
                self.text.line(f"{cname(barrier.name)}.wait();  // the parts of others are here")
            with self.text.block(parts):
                self.block(tuple(own[at + 1 :]))

    def joins(self, sync: ir.Stmt) -> str:
        """C++ of whether this block is the one that joins the parts of its tile."""
        assert isinstance(sync, ir.Sync)
        threads = 32 * self.team.warps
        if ir.note(sync.notes, "scope") == "grid":
            tickets = f"(unsigned*)args.words[{self.plan.words.scratch_word('tickets')}]"
            return f"last_to_come({tickets} + {self.tiles.block_number()}, {self.plan.splits}, flag, 1, {threads})"
        return f"rank < {self.plan.shares}"

    def turns(self, loop: ir.Loop) -> None:
        """Warpgroups take turns: each has a tile of its own, and passes over what the ring holds for others."""
        axis = loop.axes[0]
        x, over, step, trips = cname(axis.name), cname(axis.over), self.plan.extent(axis.name), self.plan.trips(axis)
        if self.copies:
            with self.text.block(f"for (int {x} = {over}; {x} < {over} + {trips * step}; {x} += {step})"):
                self.block(loop.body)
            return
        ring = next(s for s in ir.walk(loop.body) if isinstance(s, ir.Loop) and ir.note(s.notes, "stages"))
        depth = ring.axes[0]
        steps = f"ceil_div({self.plan.size(self.plan.root(depth.name))}, {self.plan.extent(depth.name)})"
        self.text.line(f"const int {x} = {over} + group * {step};")
        self.text.line(f"slot.skip(group * {steps});")
        self.tiles.groups = 1
        self.block(loop.body)
        self.text.line(f"slot.skip(({trips} - 1 - group) * {steps});")

    def ring(self, loop: ir.Loop) -> None:
        """A loop whose iterations use the slots of a ring one after the other."""
        axis, x = loop.axes[0], cname(loop.axes[0].name)
        begin = "0" if axis.over not in self.plan.axes else cname(axis.over)
        self.first[axis.name] = begin
        steps = f"{x} += {self.plan.extent(axis.name)}, slot.next()"
        early = self.copies and bool(self.plan.early)
        if early:
            self.early(loop, begin, steps)
        self.text.line("#pragma unroll 1")
        with self.text.block(f"for (int {x} = {begin}; {x} < {self.stop(axis)}; {steps})"):
            if early:
                self.late(loop)
            else:
                self.block(loop.body)
            if not self.copies:
                step_ahead(self.plan, self.text)
        self.tiles.hold(waits=bool(self.pending))
        for sync in self.pending:
            arrive(self.text, sync, "slot", before=True)
        self.pending.clear()

    def early(self, loop: ir.Loop, begin: str, steps: str) -> None:
        """Constant operands fill the ring at once; then this kernel waits for the one before it."""
        axis, x, slots = loop.axes[0], cname(loop.axes[0].name), ir.note(loop.notes, "stages")
        whole = f"{begin} + {number(loop, 'stages', 2) * self.plan.extent(axis.name)}"
        self.text.line(f"const int {x}_late = min({whole}, {self.stop(axis)});")
        self.text.line(f"Slot<{slots}> early;")
        self.slot = "early"
        with self.text.block(f"for (int {x} = {begin}; {x} < {x}_late; {steps.replace('slot', 'early')})"):
            self.block(tuple(s for s in self.own(loop) if _announces(s) or self.constant(s)))
        self.slot = "slot"
        self.text.line("wait_for_last();")

    def late(self, loop: ir.Loop) -> None:
        """A step of the ring: what came early is there already."""
        x, own = cname(loop.axes[0].name), self.own(loop)
        with self.text.block(f"if ({x} >= {x}_late)"):
            self.block(tuple(s for s in own if not isinstance(s, ir.Copy) or self.constant(s)))
        self.block(tuple(s for s in own if isinstance(s, ir.Copy) and not self.constant(s)))

    def own(self, loop: ir.Loop) -> list[ir.Stmt]:
        """The statements of this role in the body of a loop."""
        bodies = (s.body if isinstance(s, ir.Role) and s.name == self.team.name else (s,) for s in loop.body)
        return [s for body in bodies for s in body if isinstance(s, (ir.Sync, ir.Copy))]

    def constant(self, stmt: ir.Stmt) -> bool:
        """Whether it copies what no kernel before this one wrote."""
        return isinstance(stmt, ir.Copy) and stmt.src.buffer in self.plan.early

    def rows(self, loop: ir.Loop) -> None:
        """Row tiles of the atom, dealt to the warpgroups of the role."""
        if self.copies or (self.plan.atomic and _begins_sums(loop)):
            return  # sums in memory are 0 before and after a launch
        dots = [s for s in loop.body if isinstance(s, ir.Let) and isinstance(s.expr, ir.Dot)]
        if dots:
            self.products(loop, dots)
            return
        with self.tiles.each_row(loop):
            self.block(loop.body)

    def products(self, loop: ir.Loop, dots: list[ir.Let]) -> None:
        """Products of one step: issued together, and waited for but for those that may be in flight."""
        self.in_flight = number(dots[0], "inflight", 0)
        turns = self.tiles.turns(loop)
        if len(dots) == turns == 1:
            multiply(self.plan, self.text, self.tiles, loop, dots[0], self.first, self.in_flight)
            return
        self.text.line("wgmma_fence();")
        with self.tiles.each_row(loop) if turns > 1 else nullcontext():
            for dot in dots:
                multiply(self.plan, self.text, self.tiles, loop, dot, self.first)
        self.text.line(f"end_step<{self.in_flight}>();")

    # --------------------------------------------------------------------------------------------- syncs
    def sync(self, sync: ir.Sync) -> None:
        """A wait, an arrival, or the announcement of copies."""
        if ir.note(sync.notes, "stage") is None and sync.action in ("wait", "arrive"):
            turn(self.text, sync)
            return
        match sync.action:
            case "wait":
                wait(self.text, sync, free=self.copies, slot=self.slot)
            case "expect":
                self.full = cname(sync.name)
                expect(self.plan, self.text, sync, self.slot)
            case "arrive" if self.in_flight:
                self.pending.append(sync)
                axis = str(ir.note(sync.notes, "stage"))
                with self.text.block(f"if ({cname(axis)} > {self.first[axis]})"):
                    arrive(self.text, sync, "slot", before=True)
            case "arrive":
                arrive(self.text, sync, "slot")
            case "fence":
                assert self.tiles.leaving, "a fence stands between a store and the copy that leads out"


def _opposite(before: ir.Stmt | None, stmt: ir.When) -> bool:
    """Whether the statement before it is done just where this one is not."""
    return isinstance(before, ir.When) and before.axis == stmt.axis and f"not_{before.cond}" == stmt.cond


def _announces(stmt: ir.Stmt) -> bool:
    return isinstance(stmt, ir.Sync) and stmt.action == "expect"


def _begins_sums(loop: ir.Loop) -> bool:
    """Whether all that a loop does is to store a constant."""
    return all(isinstance(s, ir.Store) or (isinstance(s, ir.Let) and isinstance(s.expr, ir.Full)) for s in loop.body)


def _gives(stmt: ir.Stmt) -> bool:
    """Whether a statement hands parts of a sum to others: rows outside the ring."""
    return isinstance(stmt, ir.Loop) and is_rows(stmt)
