"""Stage `pipeline` of chained products: copies go to a producer, all else to consumers; each ring has barriers."""

from __future__ import annotations

from dataclasses import replace

from tilewright.design.default import Facts
from tilewright.design.design import Design
from tilewright.design.gpu.chain_resources import producer_warps, registers_of
from tilewright.language import ir
from tilewright.language.structure import fresh, names


def roles_of_chain(kernel: ir.Kernel, design: Design, facts: Facts) -> ir.Kernel:
    """
    before:  copy s_q <- q;  for i { .. }
             for t in T { alloc s_k;  copy s_k <- k;  for i { .. dot q0 k0 .. } };  for i { .. }
    after:   role producer { sync q_empty wait;  sync q_full expect;  copy s_q <- q }
             role consumer { sync q_full wait;  for i { .. } }
             for t in T @stages=2 {
               alloc s_k @stages=2
               role producer { sync k_empty wait;  sync k_full expect;  copy s_k <- k }
               role consumer { for i { sync k_full wait;  .. dot q0 k0 ..;  sync k_empty arrive .. } } }
             role consumer { sync q_empty arrive;  for i { .. } }
    """
    grid = kernel.body[0]
    assert isinstance(grid, ir.Loop)
    stage = _Roles(design, names(kernel), grid.axes[-1].name)
    notes = ir.with_notes(grid.notes, stages=stage.items) if stage.items > 1 else grid.notes
    return replace(kernel, body=(replace(grid, body=stage.block(grid.body), notes=notes),))


class _Roles:
    def __init__(self, design: Design, taken: set[str], item: str) -> None:
        self.design, self.taken, self.item = design, taken, item
        groups = design.number("warpgroups", 1)
        registers = registers_of(design)
        self.producer: ir.Notes = (("warps", producer_warps(design)),)
        self.consumer: ir.Notes = (("warps", 4 * groups),)
        if registers:
            self.producer = ir.with_notes(self.producer, registers=registers[0])
            self.consumer = ir.with_notes(self.consumer, registers=registers[1])
        self.arrivals = 4 * groups
        self.items = design.number("stages.item", 1)
        self.still: list[tuple[str, str, str]] = []  # buffer, its empty barrier, its full one

    def block(self, body: tuple[ir.Stmt, ...]) -> tuple[ir.Stmt, ...]:
        """The body of one item of the grid."""
        result: list[ir.Stmt] = []
        ended = False
        for stmt in body:
            match stmt:
                case ir.Alloc() if ir.note(stmt.notes, "place") == "shared" and self.items > 1:
                    result.append(replace(stmt, notes=ir.with_notes(stmt.notes, stages=self.items)))
                case ir.Copy():
                    result.append(ir.Role("producer", self.fill(stmt, self.item, self.still), self.producer))
                case ir.Loop(parallel=True):
                    waits = [self.sync(full, "wait", b, self.item, 1) for b, _, full in self.still]
                    frees = [self.sync(empty, "arrive", b, self.item, self.arrivals) for b, empty, _ in self.still]
                    result.append(ir.Role("consumer", (*(frees if ended else waits), stmt), self.consumer))
                case ir.Loop():
                    ended = True
                    result.append(self.ring(stmt))
                case _:
                    result.append(stmt)
        return (*result, *self.draws()) if self.design.get("drawn") else tuple(result)

    def draws(self) -> tuple[ir.Stmt, ...]:
        """The producer draws the next item and tells the consumers, who then know it."""
        told, known = fresh("drawn", self.taken), fresh("known", self.taken)
        free: ir.Notes = (("count", self.arrivals), ("scope", "block"), ("stage", self.item))
        full = ir.with_notes(free, count=1)
        return (
            ir.Role("producer", (ir.Sync(known, "wait", free), ir.Sync(told, "arrive", full)), self.producer),
            ir.Role("consumer", (ir.Sync(told, "wait", full), ir.Sync(known, "arrive", free)), self.consumer),
        )

    def fill(self, copy: ir.Copy, stage: str, into: list[tuple[str, str, str]]) -> tuple[ir.Stmt, ...]:
        """A copy, when its place is free, counted by a barrier."""
        buffer = copy.dst.buffer
        name = copy.src.buffer
        empty, full = fresh(f"{name}_empty", self.taken), fresh(f"{name}_full", self.taken)
        into.append((buffer, empty, full))
        return (
            self.sync(empty, "wait", buffer, stage, self.arrivals),
            self.sync(full, "expect", buffer, stage, 1),
            copy,
        )

    def sync(self, name: str, action: str, buffer: str, stage: str, count: int) -> ir.Sync:
        """What is done to the barrier of a buffer."""
        notes: ir.Notes = (("count", count), ("guards", buffer), ("scope", "block"), ("stage", stage))
        return ir.Sync(name, action, notes)

    def ring(self, loop: ir.Loop) -> ir.Loop:
        """The loop over columns: its buffers rotate; a consumer waits for each just before it multiplies."""
        stages, column = self.design.number("stages", 2), loop.axes[0].name
        rings: list[tuple[str, str, str]] = []
        fills = [x for s in loop.body if isinstance(s, ir.Copy) for x in self.fill(s, column, rings)]
        allocs = [replace(s, notes=ir.with_notes(s.notes, stages=stages)) for s in loop.body if isinstance(s, ir.Alloc)]
        rows = next(s for s in loop.body if isinstance(s, ir.Loop))
        body = self.turns(self.guarded(rows.body, rings, column))
        roles = (
            ir.Role("producer", tuple(fills), self.producer),
            ir.Role("consumer", (replace(rows, body=body),), self.consumer),
        )
        return replace(loop, body=(*allocs, *roles), notes=ir.with_notes(loop.notes, stages=stages))

    def guarded(self, body: tuple[ir.Stmt, ...], rings: list[tuple[str, str, str]], column: str) -> tuple[ir.Stmt, ...]:
        """Waits before a ring is read, arrivals after the last product that reads it."""
        by_buffer = {b: (empty, full) for b, empty, full in rings}
        value = {
            s.name: s.expr.ref.buffer
            for s in body
            if isinstance(s, ir.Let) and isinstance(s.expr, ir.Load) and s.expr.ref.buffer in by_buffer
        }
        last: dict[str, int] = {}
        for n, s in enumerate(body):
            if isinstance(s, ir.Let) and isinstance(s.expr, ir.Dot):
                last.update({value[x]: n for x in (s.expr.a, s.expr.b) if x in value})
        result: list[ir.Stmt] = []
        for n, s in enumerate(body):
            if isinstance(s, ir.Let) and s.name in value:
                buffer = value[s.name]
                result.append(self.sync(by_buffer[buffer][1], "wait", buffer, column, 1))
            result.append(s)
            for buffer in (b for b, at in last.items() if at == n):
                result.append(self.sync(by_buffer[buffer][0], "arrive", buffer, column, self.arrivals))
        return tuple(result)

    def turns(self, body: tuple[ir.Stmt, ...]) -> tuple[ir.Stmt, ...]:
        """With turns: a warpgroup multiplies while the others compute, and then lets the next one multiply."""
        if self.design.get("schedule") != "pingpong":
            return body
        turn = fresh("turn", self.taken)
        notes: ir.Notes = (("count", 8), ("scope", "block"))
        at = next(n for n, s in enumerate(body) if isinstance(s, ir.Sync))
        scores = [n for n, s in enumerate(body) if _is_dot(s) and not _adds(s, body)]
        after = scores[-1] + 1
        wait, arrive = ir.Sync(turn, "wait", notes), ir.Sync(turn, "arrive", notes)
        return (*body[:at], wait, *body[at:after], arrive, *body[after:])


def _is_dot(stmt: ir.Stmt) -> bool:
    return isinstance(stmt, ir.Let) and isinstance(stmt.expr, ir.Dot)


def _adds(stmt: ir.Stmt, body: tuple[ir.Stmt, ...]) -> bool:
    """Whether a product is of what was computed in this step."""
    assert isinstance(stmt, ir.Let) and isinstance(stmt.expr, ir.Dot)
    loaded = {s.name for s in body if isinstance(s, ir.Let) and isinstance(s.expr, ir.Load)}
    return not {stmt.expr.a, stmt.expr.b} <= loaded


__all__ = ["roles_of_chain"]
