"""Chained products as CUDA C++: one role's path through a scheduled program whose second product is of computed rows.

The statements of a step are written in the order in which they are issued: products of this step, products of the last
one where those lag (`behind`), what is computed of the scores, and the sums. Steps between the bounds of `free` are
written without their masks, in a loop of their own.
"""

from __future__ import annotations

from functools import cached_property

from tilewright.emit.cuda_chain_body import Body
from tilewright.emit.cuda_chain_step import Step
from tilewright.emit.cuda_chain_values import ChainValues, chain_layouts, joint
from tilewright.emit.cuda_copies import copy_in, tensor_map
from tilewright.emit.cuda_grid import chain_positions, item_count, items
from tilewright.emit.cuda_places import Place
from tilewright.emit.cuda_plan import Plan, Team, number
from tilewright.emit.cuda_scope import Scope
from tilewright.emit.cuda_sync import TURNS, arrive, expect, wait
from tilewright.emit.cuda_text import Text, cname
from tilewright.language import ir

PAIR = 256
"""Threads that meet at a turn: the warpgroup that waits, and the one that lets it pass."""


def is_chain(kernel: ir.Kernel) -> bool:
    """Whether a scheduled program multiplies, on the matrix unit, what it computed of a product."""
    lets = {s.name: s for s in ir.walk(kernel.body) if isinstance(s, ir.Let)}
    dots = [s for s in lets.values() if isinstance(s.expr, ir.Dot) and ir.note(s.notes, "atom") == "wgmma"]
    return any(not isinstance(lets[n].expr, ir.Load) for d in dots for n in ir.operands(d.expr))


class ChainText:
    """Writes what the warps of one role execute."""

    def __init__(self, plan: Plan, team: Team, text: Text) -> None:
        self.plan, self.team, self.text = plan, team, text
        self.copies = team.name == "producer"
        self.kernel = plan.kernel
        self.scope = Scope(self.kernel, plan.sizes)
        self.values = ChainValues(
            text,
            self.scope,
            chain_layouts(plan),
            self._places(),
            rings_of=frozenset(plan.rings),
            short=self._short(),
        )
        self.values.begin(self.kernel, plan)
        self.freed: list[ir.Sync] = []  # arrivals that were written before their place: nothing is read any more

    def _places(self) -> dict[str, Place]:
        places = {}
        for p in self.kernel.params:
            if p.dims is not None:
                layout = self.plan.layouts[p.name]
                strides = tuple(
                    "1" if s == 1 else str(s) if s is not None else f"args.words[{self.plan.words.stride(p.name, d)}]"
                    for d, s in enumerate(layout.strides)
                )
                places[p.name] = Place(cname(p.name), p.dtype, strides, max(layout.align, p.dtype.bytes))
        return places

    def _short(self) -> bool:
        """Whether all floats that the program stores have 16 bits, or are read as such."""
        stored = {s.ref.buffer for s in self.plan.statements if isinstance(s, ir.Store)} & self.plan.tensors
        stored |= {s.dst.buffer for s in self.plan.statements if isinstance(s, ir.Copy)} & self.plan.tensors
        return any(self.kernel.param(t).dtype.bits == 16 for t in stored)

    # ------------------------------------------------------------------------------------------- the items
    def write(self) -> None:
        """Slots, then every item of the grid that is this block's."""
        grid = next(s for s in self.kernel.body if isinstance(s, ir.Loop))
        stages = number(self.ring, "stages", 1)
        self.text.line(f"Slot<{stages}> slot;")
        self.text.line(f"Slot<{number(grid, 'stages', 1)}> own;")
        if not self.copies:
            if self.body.behind:
                self.text.line(f"Slot<{stages}> late;")
            if self.body.turn:
                self.text.line(f"if (group == {self.plan.groups - 1}) pass({TURNS}, {PAIR});")
        with self.text.block(items(self.plan, self.text, grid)):
            chain_positions(self.plan, self.text, grid)
            for a in grid.axes:
                low, high = self.scope.bounds(a)
                self.scope.enter(a, cname(a.name), low, high)
            self.item(grid)
        if not self.copies:
            for name in sorted(self.plan.leaving):
                self.text.line(f"{cname(name)}.end();")

    @cached_property
    def ring(self) -> ir.Loop:
        """The loop over columns."""
        loops = [s for s in self.plan.statements if isinstance(s, ir.Loop) and not s.parallel]
        return next(s for s in loops if ir.note(s.notes, "stages"))

    @cached_property
    def body(self) -> Body:
        """What a consumer does in a step."""
        return Body.of(self.ring, self.plan)

    def item(self, grid: ir.Loop) -> None:
        """One item: what is known of it, its roles, its loop."""
        wanted = self.values.needed(grid.body, self.copies, self.ring)
        if not self.copies:
            self.rows_begin(grid)
            if self.trims:
                self.block_bounds(grid)
        for stmt in grid.body:
            if isinstance(stmt, ir.Let) and stmt.name in wanted:
                self.values.shared(stmt)
        if self.copies and joint(self.plan):
            with self.text.block("if (lane == 0)"):
                self.path(grid)
            if ir.note(grid.notes, "drawn"):
                self.text.line("item = __shfl_sync(0xFFFFFFFF, item, 0);")
        else:
            self.path(grid)
        self.text.line("own.next();")

    def path(self, grid: ir.Loop) -> None:
        """What the role does for an item, in order."""
        for stmt in grid.body:
            match stmt:
                case ir.Alloc(name, dtype) if not self.copies and ir.note(stmt.notes, "place") == "register":
                    type_ = ir.TileType(dtype, self.values.registers[name])
                    self.text.line(f"{self.values.tile(type_)} {cname(name)};")
                case ir.Role(name, body) if name == self.team.name:
                    for s in body:
                        self.once(s)
                case ir.Loop() if stmt is self.ring:
                    if self.copies:
                        self.fill(stmt)
                    else:
                        Step(self, stmt).loop()

    @property
    def trims(self) -> bool:
        """Whether warpgroups take the columns of their own rows only."""
        return bool(ir.note(self.ring.notes, "own"))

    def block_bounds(self, grid: ir.Loop) -> None:
        """The columns that the producer brings, for all rows of the block; all else is of the warpgroup's rows."""
        axis, row = self.ring.axes[0], self.body.rows.axes[-1]
        low, end, height = f"{axis.name}_low", f"{axis.name}_end", self.plan.extent(row.over)
        wanted = self.values.closed({str(x) for x in (axis.start, axis.stop)}, grid.body)
        self.text.line(f"int {low}, {end};")
        with self.text.block(""):
            for stmt in grid.body:
                if isinstance(stmt, ir.Let) and stmt.name in wanted:
                    self.values.shared(stmt)
            first, last = self.bounds(axis)
            self.text.line(f"{low} = {first}, {end} = {last};")
        mine = "64 * group" if self.packed is None else f"64 * group % {height}"
        self.text.line(f"const int {row.name}_mine = {cname(row.over)} + {mine};")
        self.values.rows = (f"{row.name}_mine", min(64, height))

    def free_still(self) -> None:
        """Operands that stay are read no more once the last first product is there."""
        grid = next(s for s in self.kernel.body if isinstance(s, ir.Loop))
        for s in ir.walk(grid.body[grid.body.index(self.ring) + 1 :]):
            if isinstance(s, ir.Sync) and s.action == "arrive" and ir.note(s.notes, "guards") is not None:
                arrive(self.text, s, "own")
                self.freed.append(s)

    def rows_begin(self, grid: ir.Loop) -> None:
        """This warpgroup's rows, and all columns of the sums."""
        row = self.body.rows.axes[-1]
        at = f"{row.name}_at"
        mine = " + 64 * group" if self.plan.groups > 1 else ""
        if self.packed is not None:
            mine = self.rows_packed(self.packed, self.plan.extent(row.over))
        self.text.line(f"const int {at} = {cname(row.over)}{mine};")
        low, high = self.scope.bounds(row)
        self.scope.enter(row, at, low, high)
        for axis in (row.name, *(a for a in self.values.layouts.of if a in self.kernel.dims)):
            self.text.line(self.values.part(axis))

    @property
    def packed(self) -> ir.Axis | None:
        """The axis whose positions lie side by side in a tile of rows."""
        axes = self.body.rows.axes
        return axes[0] if len(axes) > 1 else None

    def rows_packed(self, axis: ir.Axis, height: int) -> str:
        """This warp's position of a packed axis, of which a tile has `height` rows each; where its rows begin, as C++.

        Rows are counted from the warpgroup's first warp. Warps past the last position compute its rows and store none.
        """
        line, name, size = self.text.line, cname(axis.name), self.plan.size(self.plan.root(axis.name))
        line("const int place = 64 * group + 16 * (warp % 4);")
        line(f"const int {name}_mine = {cname(axis.over)} + place / {height};")
        line(f"const bool stores = {name}_mine < {size};")
        line(f"const int {name} = min({name}_mine, {size} - 1);")
        self.scope.enter(axis, name, "0", size)
        return f" + place % {height} - 16 * (warp % 4)"

    def once(self, stmt: ir.Stmt) -> None:
        """A statement outside the loop over columns."""
        match stmt:
            case ir.Sync(_, action):
                if ir.note(stmt.notes, "guards") is None:
                    self.draw(stmt)
                elif action == "wait":
                    wait(self.text, stmt, free=self.copies, slot="own")
                elif action == "expect":
                    self.expect(stmt, "own")
                elif action == "arrive" and stmt not in self.freed:
                    arrive(self.text, stmt, "own")
            case ir.Copy():
                copy_in(self.plan, self.text, stmt, self.full, "own")
            case ir.Loop():
                self.rows(stmt)

    def draw(self, sync: ir.Sync) -> None:
        """The number of the next item: drawn by the producer, told to the consumers by a word of shared memory."""
        line, barrier = self.text.line, cname(sync.name)
        if self.copies and sync.action == "wait":
            wait(self.text, sync, free=True, slot="own")
        elif self.copies:
            grid = next(s for s in self.kernel.body if isinstance(s, ir.Loop))
            tickets = f"(unsigned*)args.words[{self.plan.words.scratch_word('tickets')}]"
            line(f"flag[own.index] = item = draw({tickets}, {item_count(grid)});")
            line(f"{barrier}[own].arrive();")
        elif sync.action == "wait":
            wait(self.text, sync, free=False, slot="own")
            line("item = flag[own.index];")
        else:
            line("__syncwarp();")
            arrive(self.text, sync, "own")

    def rows(self, loop: ir.Loop) -> None:
        """What is done for the rows before the loop over columns, or after it."""
        left = ""  # what the next copy leads out
        with self.text.block(""):
            for stmt in loop.body:
                match stmt:
                    case ir.Alloc() | ir.Sync(action="fence"):
                        pass  # parts of what leaves
                    case ir.Store(ref, value) if ref.buffer in self.plan.leaving:
                        left = value
                    case ir.Copy():
                        self.leave(stmt, left)
                    case ir.Store(ref) if ref.buffer in self.plan.tensors and self.packed is not None:
                        with self.text.block("if (stores)"):
                            self.values.statement(stmt)
                    case ir.Let(expr=ir.Load(ref)) if ref.buffer in self.body.split:
                        self.values.joined(stmt, self.ring.axes[0].name)
                    case _:
                        self.values.statement(stmt)

    # ------------------------------------------------------------------------------------------ the copies
    def expect(self, sync: ir.Sync, slot: str) -> None:
        """One arrival, and the bytes of the buffer that the barrier guards."""
        self.full = cname(sync.name)
        expect(self.plan, self.text, sync, slot)

    def fill(self, loop: ir.Loop) -> None:
        """The producer's loop over columns."""
        axis = loop.axes[0]
        low, high = self.bounds(axis)
        x, step = cname(axis.name), self.plan.extent(axis.name)
        role = next(s for s in loop.body if isinstance(s, ir.Role) and s.name == "producer")
        self.text.line("#pragma unroll 1")
        with self.text.block(f"for (int {x} = {low}; {x} < {high}; {x} += {step}, slot.next())"):
            for stmt in role.body:
                match stmt:
                    case ir.Sync(_, "wait"):
                        wait(self.text, stmt, free=True)
                    case ir.Sync(_, "expect"):
                        self.expect(stmt, "slot")
                    case ir.Copy():
                        copy_in(self.plan, self.text, stmt, self.full)

    def bounds(self, axis: ir.Axis) -> tuple[str, str]:
        """First position of the loop over columns and the one after its last, as C++."""
        return self.scope.bounds(axis, {n: cname(n) for n in self.values.types})

    # --------------------------------------------------------------------------------------- what leaves
    def leave(self, copy: ir.Copy, value: str) -> None:
        """Accumulators leave by the engine, panel by panel; those of a warp past the last position stay."""
        ring, near, far = self.plan.ring_of(copy)
        name, element = cname(ring.alloc.name), ring.alloc.dtype.name
        starts = {i: self.place(i) for i in (far.index[d] for d in self.plan.dims_of(far, near))}
        if self.packed is not None and self.plan.pieces > 1:
            self.leave_apart(copy, value, starts)
            return
        stores = "true" if self.packed is None else "stores"
        given = tensor_map(self.plan, copy), self.values.name(value), stores, *starts.values()
        call = f"{name}.panels<{element}, {ring.wide}, {ring.panels}>"
        self.text.line(f"{call}(group, {name}.slot(group), {', '.join(given)});")

    def leave_apart(self, copy: ir.Copy, value: str, starts: dict[ir.Index, str]) -> None:
        """Each position of a packed axis by itself: one thread of the warpgroup hands its panels to the engine."""
        ring, line = self.plan.ring_of(copy)[0], self.text.line
        assert self.packed is not None
        axis, row, many = self.packed, self.body.rows.axes[-1], self.plan.pieces
        first, size = f"{cname(axis.over)} + {many} * group", self.plan.size(self.plan.root(axis.name))
        at = list({**starts, axis.name: f"{first} + piece", row.name: cname(row.over)}.values())
        name, piece = cname(ring.alloc.name), ring.rows * ring.pitch
        line(f"unsigned char* const {name}_now = {name}.slot(group);")
        call = f"store_panels<{ring.alloc.dtype.name}, {ring.wide}, {ring.panels}>"
        line(f"{call}({name}_now, {self.values.name(value)}.v, threadIdx.x % 128);")
        line("fence_shared();")
        line("meet(2 + group, 128);")
        with self.text.block("if (threadIdx.x % 128 == 0)"):
            with self.text.block(f"for (int piece = 0; piece < min({many}, {size} - ({first})); ++piece)"):
                boxes = f"store_boxes<{ring.panels}, {ring.wide}, {many * piece}>"
                line(f"{boxes}({tensor_map(self.plan, copy)}, {name}_now + piece * {piece}, {', '.join(at)});")
            line("commit_stores();")

    def place(self, index: ir.Index) -> str:
        """C++ of where an index begins."""
        return str(index) if isinstance(index, int) else self.scope[index].start


__all__ = ["ChainText", "is_chain"]
