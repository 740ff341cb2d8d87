"""Stage `pipeline`: copies go to a producer, all else to consumers, and barriers hand the slots of rings over."""

from __future__ import annotations

from dataclasses import replace

from tilewright.design.default import Facts
from tilewright.design.design import Design
from tilewright.language import ir
from tilewright.language.structure import fresh, names
from tilewright.lower.gpu.nest import replaced


def pipeline(kernel: ir.Kernel, design: Design, facts: Facts) -> ir.Kernel:
    """
    before:  for k in K step 64 { alloc s_a; copy s_a <- a; for m in m0 parallel @bind=warpgroup { ... } }
             for m in m0 parallel @bind=warpgroup { ... }
    after:   for k in K step 64 @stages=4 {
               alloc s_a @stages=4
               role producer { sync empty wait; sync full expect; copy s_a <- a }
               role consumer { sync full wait; for m in m0 parallel @bind=warpgroup { ... }; sync empty arrive } }
             role consumer { for m ... { ... } }
    """
    stage = _Pipeline(design, names(kernel))
    return replace(kernel, body=replaced(kernel.body, _has_ring, lambda s: (stage.around(s),)))


def _has_ring(stmt: ir.Stmt) -> bool:
    """The innermost loop that holds a main loop among its statements, or parts of sums that do."""
    return (
        isinstance(stmt, ir.Loop)
        and any(_is_ring(s) for s in ir.walk(stmt.body))
        and not any(isinstance(s, ir.Loop) and s.parallel and _has_ring(s) for s in stmt.body)
    )


def _is_ring(stmt: ir.Stmt) -> bool:
    """Whether a loop's copies fill buffers of its own; others lead out of them."""
    if not isinstance(stmt, ir.Loop):
        return False
    own = {s.name for s in stmt.body if isinstance(s, ir.Alloc)}
    return any(isinstance(s, ir.Copy) and s.dst.buffer in own for s in stmt.body)


class _Pipeline:
    def __init__(self, design: Design, taken: set[str]) -> None:
        self.taken = taken
        self.stages = design.number("stages")
        groups = design.number("warpgroups", 1)
        many = design.get("producer") != "warp"
        registers = _registers(groups) if many else None
        self.producer: ir.Notes = (("warps", 4 if many else 1),)
        self.consumer: ir.Notes = (("warps", 4 * groups),)
        if registers:
            self.producer = ir.with_notes(self.producer, registers=registers[0])
            self.consumer = ir.with_notes(self.consumer, registers=registers[1])
        if stagger := design.number("stagger", 0):
            self.consumer = ir.with_notes(self.consumer, stagger=stagger)
        self.turns = groups if design.get("schedule") == "pingpong" else 1
        own = groups // self.turns
        blocks = 1
        for _, count in design.prefixed("cluster"):
            assert isinstance(count, int)
            blocks *= count
        self.arrivals = 4 * own * blocks
        self.scope = "cluster" if blocks > 1 else "block"

    def around(self, stmt: ir.Stmt) -> ir.Stmt:
        assert isinstance(stmt, ir.Loop)
        return replace(stmt, body=self.body(stmt.body))

    def body(self, body: tuple[ir.Stmt, ...]) -> tuple[ir.Stmt, ...]:
        """Runs of work become one consumer; loops with copies become rings."""
        result: list[ir.Stmt] = []
        work: list[ir.Stmt] = []
        for stmt in body:
            inner = isinstance(stmt, ir.Loop) and any(_is_ring(s) for s in (stmt, *ir.walk(stmt.body)))
            if work and (inner or isinstance(stmt, ir.Alloc)):
                result.append(ir.Role("consumer", tuple(work), self.consumer))
                work = []
            if isinstance(stmt, ir.Alloc):
                result.append(stmt)
            elif inner:
                assert isinstance(stmt, ir.Loop)
                if _is_ring(stmt) and self.turns > 1:
                    # A slot's phase says nothing of two turns of the ring: nobody waits for it ahead of the other.
                    turn = fresh("turn", self.taken)
                    notes: ir.Notes = (("count", 4 * self.turns), ("scope", "block"))
                    result.append(ir.Role("consumer", (ir.Sync(turn, "wait", notes),), self.consumer))
                    work.append(ir.Sync(turn, "arrive", notes))
                result.append(self.ring(stmt) if _is_ring(stmt) else self.around(stmt))
            else:
                work.append(stmt)
        if work:
            result.append(ir.Role("consumer", tuple(work), self.consumer))
        return tuple(result)

    def ring(self, loop: ir.Loop) -> ir.Loop:
        """One barrier says that a slot of every buffer is full, another that it is empty."""
        allocs = [s for s in loop.body if isinstance(s, ir.Alloc)]
        copies = [s for s in loop.body if isinstance(s, ir.Copy)]
        rest: list[ir.Stmt] = [s for s in loop.body if not isinstance(s, (ir.Alloc, ir.Copy))]
        at: ir.Notes = (("guards", tuple(a.name for a in allocs)), ("stage", loop.axes[0].name))
        empty, full = fresh("empty", self.taken), fresh("full", self.taken)
        freed = ir.with_notes(at, scope=self.scope, count=self.arrivals)
        filled = ir.with_notes(at, scope="block", count=1)
        fill: tuple[ir.Stmt, ...] = (ir.Sync(empty, "wait", freed), ir.Sync(full, "expect", filled), *copies)
        use: tuple[ir.Stmt, ...] = (ir.Sync(full, "wait", filled), *rest, ir.Sync(empty, "arrive", freed))
        rings = tuple(replace(a, notes=ir.with_notes(a.notes, stages=self.stages)) for a in allocs)
        roles = (ir.Role("producer", fill, self.producer), ir.Role("consumer", use, self.consumer))
        return replace(loop, body=(*rings, *roles), notes=ir.with_notes(loop.notes, stages=self.stages))


def _registers(groups: int) -> tuple[int, int]:
    """Registers of a producer's and of a consumer's thread: what the 64 K of an SM give to so many warpgroups."""
    return {1: (40, 232), 2: (40, 232), 3: (32, 160)}[groups]
