"""Stage `place` of chained products: operands in shared memory, what the loop carries in registers.

The loop over rows of the atom moves inside the loop over columns, so that all warpgroups share what a step copies.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from tilewright.design.default import Facts
from tilewright.design.design import Design
from tilewright.design.gpu.resources import ATOM_ROWS, ROW_BYTES
from tilewright.language import ir
from tilewright.language.structure import fresh, names
from tilewright.lower.gpu.chain_tile import closure, live
from tilewright.lower.gpu.nest import dots, replaced
from tilewright.lower.gpu.rename import renamed
from tilewright.lower.gpu.staged import staged


def place_chain(kernel: ir.Kernel, design: Design, facts: Facts) -> ir.Kernel:
    """
    before:  for i in i0 step 64 parallel @bind=warpgroup {
               qt = load q[h, i, D];  m = ..;  for t in T step 128 { kt = load k[h, t, D] ... m := m1 }  store o = .. }
    after:   alloc s_q: bf16[i0, D] @place=shared;  copy s_q[i0, D] <- q[h, i0, D] @engine=tma
             alloc m: f32[i0] @place=register
             for i in i0 step 64 parallel @bind=warpgroup { store m[i] = .. }
             for t in T step 128 {
               alloc s_k: bf16[t, D] @place=shared;  copy s_k[t, D] <- k[h, t, D] @engine=tma
               for i in i0 step 64 parallel @bind=warpgroup { m_now = load m[i] ... store m[i] = m1 } }
             for i in i0 step 64 parallel @bind=warpgroup { m_end = load m[i] ... store o = .. }
    """
    taken = names(kernel)

    def change(stmt: ir.Stmt) -> tuple[ir.Stmt, ...]:
        assert isinstance(stmt, ir.Loop)
        return _Rows(kernel, stmt, design, facts, taken).placed()

    return replace(kernel, body=replaced(kernel.body, _is_rows, change))


def _is_rows(stmt: ir.Stmt) -> bool:
    """Whether a statement is the loop over tiles of rows."""
    return isinstance(stmt, ir.Loop) and ir.note(stmt.notes, "bind") == "warpgroup"


@dataclass(frozen=True)
class _Rows:
    """The loop over rows of the atom, with the loop over columns inside."""

    kernel: ir.Kernel
    loop: ir.Loop
    design: Design
    facts: Facts
    taken: set[str]

    @property
    def axis(self) -> ir.Axis:
        return self.loop.axes[-1]

    @property
    def packed(self) -> dict[str, str]:
        """Axes whose positions lie side by side in a tile of rows, and what they are ranges of."""
        return {a.name: a.over for a in self.loop.axes[:-1]}

    def _ref(self, buffer: str, axes: tuple[str, ...]) -> ir.Ref:
        """A row tile's part of a buffer in registers."""
        return ir.Ref(buffer, (*self.packed, *axes))

    def placed(self) -> tuple[ir.Stmt, ...]:
        at = next(n for n, s in enumerate(self.loop.body) if isinstance(s, ir.Loop))
        before, main, after = self.loop.body[:at], self.loop.body[at], self.loop.body[at + 1 :]
        assert isinstance(main, ir.Loop)
        lets = [s for s in before if isinstance(s, ir.Let)]
        carried = list(dict.fromkeys(s.name for s in main.body if isinstance(s, ir.Assign)))
        operands = {n for d in dots(main.body) if isinstance(d.expr, ir.Dot) for n in (d.expr.a, d.expr.b)}
        inits = [s for s in lets if s.name in carried]
        loads = [s for s in lets if isinstance(s.expr, ir.Load) and s.name not in operands]
        still, ring, inner = self._main(main, lets, operands)
        held = [*inits, *loads]
        allocs: list[ir.Stmt] = [self._register(s) for s in held]
        first = [x for s in held for x in self._begun(s)]
        known = [s for s in lets if s.name not in operands and s.name not in carried]
        body = self._with(known, loads, inner)
        ends = {n: fresh(f"{n}_end", self.taken) for n in carried}
        reads = [replace(s, name=ends[s.name], expr=ir.Load(self._ref(s.name, s.type.axes))) for s in inits]
        last = self._with(known, loads, (*reads, *renamed(after, ends)))
        last = tuple(x for s in last for x in self._leaving(s))
        whole = replace(main, body=(*ring, self._each(*body)))
        return (*still, *allocs, self._each(*first), whole, self._each(*live(last)))

    def _each(self, *body: ir.Stmt) -> ir.Loop:
        """`body` for every row tile; loops over the same axis may stand side by side."""
        return replace(self.loop, body=tuple(body))

    def _register(self, let: ir.Let) -> ir.Alloc:
        dims = tuple(self.axis.over if a == self.axis.name else a for a in let.type.axes)
        return ir.Alloc(let.name, let.type.dtype, (*self.packed.values(), *dims), (("place", "register"),))

    def _begun(self, let: ir.Let) -> tuple[ir.Stmt, ...]:
        """A buffer takes the value that it begins with, which is called otherwise than the buffer."""
        name = fresh(f"{let.name}_begin", self.taken)
        return replace(let, name=name), ir.Store(self._ref(let.name, let.type.axes), name)

    def _with(self, known: list[ir.Let], loads: list[ir.Let], body: tuple[ir.Stmt, ...]) -> tuple[ir.Stmt, ...]:
        """`body`, after what it reads of the values from before the loop: loaded from registers or computed again."""
        read = {n for s in ir.walk(body) if isinstance(s, ir.Let) for n in ir.operands(s.expr)}
        read |= {s.value for s in ir.walk(body) if isinstance(s, ir.Store)}
        wanted = closure(read, known)
        new = {n: fresh(f"{n}_row", self.taken) for n in sorted(wanted & {s.name for s in loads})}
        kept = [
            replace(s, name=new[s.name], expr=ir.Load(self._ref(s.name, s.type.axes))) for s in loads if s.name in new
        ]
        again = [s for s in known if s.name in wanted and s.name not in new]
        return (*kept, *renamed((*again, *body), new))

    # ------------------------------------------------------------------------------------ the loop over columns
    def _main(
        self, main: ir.Loop, lets: list[ir.Let], operands: set[str]
    ) -> tuple[list[ir.Stmt], list[ir.Stmt], tuple[ir.Stmt, ...]]:
        """Buffers and copies of operands that stay, of those that stream, and the body for one row tile."""
        column = main.axes[0].name
        inside = [s for s in main.body if isinstance(s, ir.Let)]
        still: list[ir.Stmt] = []
        ring: list[ir.Stmt] = []
        load: dict[str, ir.Let] = {}
        for s in (*lets, *inside):
            if s.name in operands and isinstance(s.expr, ir.Load):
                alloc, copy, load[s.name] = staged(s, self.facts, self.axis, self.taken, self.packed)
                (ring if column in s.type.axes else still).extend((alloc, copy))
        body: list[ir.Stmt] = []
        for stmt in self._single(main, lets):
            if isinstance(stmt, ir.Let) and stmt.name in load:
                continue
            if isinstance(stmt, ir.Let) and isinstance(stmt.expr, ir.Dot):
                body += [load.pop(n) for n in (stmt.expr.a, stmt.expr.b) if n in load]
            body.append(stmt)
        return still, ring, tuple(body)

    def _single(self, main: ir.Loop, lets: list[ir.Let]) -> list[ir.Stmt]:
        """The body with each name given one value: carried ones are loaded first and stored where they are final."""
        inits = {s.name: s for s in lets}
        finals = {s.name: n for n, s in enumerate(main.body) if isinstance(s, ir.Assign)}
        now = {n: fresh(f"{n}_now", self.taken) for n in finals}
        body: list[ir.Stmt] = [
            replace(inits[n], name=now[n], expr=ir.Load(self._ref(n, inits[n].type.axes))) for n in finals
        ]
        for n, s in enumerate(main.body):
            if isinstance(s, ir.Assign):
                now[s.name] = now.get(s.value, s.value)
                if finals[s.name] == n:
                    body.append(ir.Store(self._ref(s.name, inits[s.name].type.axes), now[s.name]))
            else:
                body += renamed((s,), now)
        return body

    def _leaving(self, stmt: ir.Stmt) -> tuple[ir.Stmt, ...]:
        """A store, or the same by way of shared memory, from where the copy engine takes it."""
        if not isinstance(stmt, ir.Store) or self.design.get(f"store.{stmt.ref.buffer}") != "tma":
            return (stmt,)
        buffer, ready = fresh(f"s_{stmt.ref.buffer}", self.taken), fresh("ready", self.taken)
        axes = tuple(str(i) for i in stmt.ref.index if i == self.axis.name or i in self.kernel.dims)
        dtype = self.kernel.param(stmt.ref.buffer).dtype
        pitch = math.gcd(self.facts.sizes[axes[-1]], ATOM_ROWS) * ROW_BYTES // ATOM_ROWS
        notes = (("layout", f"swizzle{pitch}"), ("place", "shared"))
        here = ir.Ref(buffer, axes)
        return (
            ir.Alloc(buffer, dtype, axes, notes),
            ir.Store(here, stmt.value),
            ir.Sync(ready, "fence", (("guards", buffer), ("scope", "warpgroup"))),
            ir.Copy(stmt.ref, here, (("engine", "tma"),)),
        )


__all__ = ["place_chain"]
