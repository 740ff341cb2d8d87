"""Stage `place`: accumulators in registers, operands of dots in shared memory, and copies that fill it.

The loop over rows of the atom moves inside the main loop, so that all warpgroups of a block share what a step copies.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from functools import cached_property

from tilewright.design.default import Facts
from tilewright.design.design import Design
from tilewright.design.gpu.resources import STORE_SLOTS, shares_of
from tilewright.language import ir
from tilewright.language.structure import axes, fresh, names
from tilewright.lower.gpu.nest import dots, is_main, is_rows, is_split, replaced
from tilewright.lower.gpu.rename import renamed
from tilewright.lower.gpu.staged import staged

_ROW_BITS = 1024
"""An epilogue works on so many bits of a row of results at a time: a swizzled row."""


def place(kernel: ir.Kernel, design: Design, facts: Facts) -> ir.Kernel:
    """
    before:  for m in m0 step 64 parallel @bind=warpgroup {
               acc = full 0.0;  for k in K step 64 { x = load a[m, k] ... acc := acc + d };  store c[m, n0] = acc }
    after:   alloc acc: f32[m0, n0] @place=register
             for k in K step 64 {
               alloc s_a: bf16[m0, k] @layout=swizzle128 @place=shared;  copy s_a[m0, k] <- a[m0, k]
               for m in m0 step 64 parallel @bind=warpgroup {
                 x = load s_a[m, k] ... when first(k) { store acc[m, n0] = d } ... } }
             for m in m0 step 64 parallel @bind=warpgroup { r = load acc[m, n0];  store c[m, n0] = r }
    """
    taken = names(kernel)

    def change(stmt: ir.Stmt) -> tuple[ir.Stmt, ...]:
        assert isinstance(stmt, ir.Loop)
        return _Rows(kernel, stmt, design, facts, taken).placed()

    return replace(kernel, body=replaced(kernel.body, is_rows, change))


@dataclass
class _Parts:
    """Statements about parts of sums: where they lie, what begins sums in memory, what keeps and what adds a part."""

    allocs: list[ir.Stmt] = field(default_factory=list)
    begun: list[ir.Stmt] = field(default_factory=list)
    zeros: list[ir.Stmt] = field(default_factory=list)
    saves: list[ir.Stmt] = field(default_factory=list)
    adds: list[ir.Stmt] = field(default_factory=list)


@dataclass(frozen=True)
class _Rows:
    """The loop over rows of the atom, and what surrounds the main loop in its body."""

    kernel: ir.Kernel
    loop: ir.Loop
    design: Design
    facts: Facts
    taken: set[str]

    @property
    def axis(self) -> ir.Axis:
        return self.loop.axes[0]

    def placed(self) -> tuple[ir.Stmt, ...]:
        at = next(n for n, s in enumerate(self.loop.body) if is_main(s) or is_split(s))
        main, after = self.loop.body[at], self.loop.body[at + 1 :]
        assert isinstance(main, ir.Loop)
        sums = list(dict.fromkeys(s.name for s in ir.walk(main.body) if isinstance(s, ir.Assign)))
        before = tuple(s for s in self.loop.body[:at] if not (isinstance(s, ir.Let) and s.name in sums))
        inits = {s.name: s for s in self.loop.body[:at] if isinstance(s, ir.Let)}
        if is_split(main):
            return self._split(main, [inits[n] for n in sums if n in inits], before, after)
        allocs, steps = self._main(main, [inits[n] for n in sums])
        early, after = self._early(after)
        reads = self._reads({n: n for n in sums}, inits)
        return (*allocs, *early, steps, self._each(*self._chunks((*before, *reads[0], *renamed(after, reads[1])))))

    def _early(self, after: tuple[ir.Stmt, ...]) -> tuple[list[ir.Stmt], tuple[ir.Stmt, ...]]:
        """Loads that are asked for before the main loop, into registers, and what follows the sums without them."""
        allocs: list[ir.Stmt] = []
        whole: list[ir.Stmt] = []  # what all rows share
        loads: list[ir.Stmt] = []
        rest: list[ir.Stmt] = []
        for stmt in after:
            match stmt:
                case ir.Let(name, type_, ir.Load(ref)) if self.design.get(f"early.{ref.buffer}"):
                    held, first = (fresh(f"{name}_{w}", self.taken) for w in ("held", "early"))
                    place_ = ir.Ref(held, type_.axes)
                    allocs.append(self._alloc(held, stmt, "register"))
                    found = loads if self.axis.name in type_.axes else whole
                    found += [replace(stmt, name=first), ir.Store(place_, first)]
                    rest.append(replace(stmt, expr=ir.Load(place_)))
                case _:
                    rest.append(stmt)
        return [*allocs, *whole, *([self._each(*loads)] if loads else [])], tuple(rest)

    def _each(self, *body: ir.Stmt) -> ir.Loop:
        """`body` for every row tile; loops over the same axis may stand side by side."""
        return replace(self.loop, body=tuple(body))

    def _chunks(self, body: tuple[ir.Stmt, ...]) -> tuple[ir.Stmt, ...]:
        """What follows the sums, a few columns after the other, so that few values are held beside them."""
        column = next((d for s in body if isinstance(s, ir.Let) for d in s.type.axes if d != self.axis.name), None)
        width = self.columns.get(column or "", 0)
        written = [self.kernel.param(s.ref.buffer).dtype.bits for s in body if isinstance(s, ir.Store)]
        chunk = _ROW_BITS // max(written, default=16)
        if column is None or width <= chunk:
            return tuple(t for s in body for t in self._leaving(s))
        name = fresh(column.rstrip("0123456789"), self.taken)
        step = self.shares[name] = math.gcd(width, chunk)
        inside = [t for s in renamed(body, {column: name}) for t in self._leaving(s)]
        return (ir.Loop((ir.Axis(name, column, step),), tuple(inside)),)

    def _leaving(self, stmt: ir.Stmt) -> tuple[ir.Stmt, ...]:
        """A store, or the same by way of shared memory, from where the copy engine takes it."""
        if not isinstance(stmt, ir.Store) or self.design.get(f"store.{stmt.ref.buffer}") != "tma":
            return (stmt,)
        name, ready = fresh(f"s_{stmt.ref.buffer}", self.taken), fresh("ready", self.taken)
        axes = tuple(str(i) for i in stmt.ref.index if str(i) in self._tiled)
        last = self.columns.get(axes[-1]) or self.axis.step or 0
        dtype = self.kernel.param(stmt.ref.buffer).dtype
        notes = (("layout", f"swizzle{last * dtype.bits // 8}"), ("place", "shared"), ("stages", STORE_SLOTS))
        place_ = ir.Ref(name, axes)
        return (
            ir.Alloc(name, dtype, axes, notes),
            ir.Store(place_, stmt.value),
            ir.Sync(ready, "fence", (("guards", name), ("scope", "warpgroup"))),
            ir.Copy(stmt.ref, place_, (("engine", "tma"),)),
        )

    @property
    def _tiled(self) -> set[str]:
        """Axes that are not single positions; new ones split others."""
        return self.taken - {n for n, a in axes(self.kernel).items() if a.each}

    @property
    def columns(self) -> dict[str, int]:
        """Points of the axes of the program, and of a block's share of columns."""
        return {n: a.step or 0 for n, a in axes(self.kernel).items()} | self.shares

    @cached_property
    def shares(self) -> dict[str, int]:
        """Points of axes that this stage adds: shares of the blocks of a cluster, chunks of columns."""
        return {}

    def _alloc(self, name: str, init: ir.Let, place_: str) -> ir.Alloc:
        dims = tuple(self.axis.over if a == self.axis.name else a for a in init.type.axes)
        return ir.Alloc(name, init.type.dtype, dims, (("place", place_),))

    def _reads(self, buffers: dict[str, str], inits: dict[str, ir.Let]) -> tuple[list[ir.Stmt], dict[str, str]]:
        """Loads of register buffers, and how the values that lay there are called now."""
        new = {name: fresh(f"{name}_end", self.taken) for name in buffers}
        loads: list[ir.Stmt] = [
            replace(inits[name], name=new[name], expr=ir.Load(ir.Ref(buffer, inits[name].type.axes)))
            for name, buffer in buffers.items()
        ]
        return loads, new

    # ------------------------------------------------------------------------------------ the main loop
    def _main(self, main: ir.Loop, inits: list[ir.Let]) -> tuple[list[ir.Stmt], ir.Loop]:
        """Accumulators, and the main loop with its copies; the buffer of a sum has the sum's name."""
        allocs: list[ir.Stmt] = [self._alloc(i.name, i, "register") for i in inits]
        operands = {n for d in dots(main.body) if isinstance(d.expr, ir.Dot) for n in (d.expr.a, d.expr.b)}
        copies: list[ir.Stmt] = []
        rows: list[ir.Stmt] = []
        sums = {s.value: s.name for s in main.body if isinstance(s, ir.Assign)}
        for stmt in main.body:
            match stmt:
                case ir.Let(name, _, ir.Load()) if name in operands:
                    alloc, copy, load = staged(stmt, self.facts, self.axis, self.taken)
                    copies += [alloc, copy]
                    rows.append(load)
                case ir.Let(name, type_, ir.Map("add", args)) if name in sums:
                    product = next(a for a in args if a != sums[name])
                    rows += self._accumulated(sums[name], product, type_, main.axes[0].name)
                case ir.Assign():
                    pass
                case _:
                    rows.append(stmt)
        return allocs, replace(main, body=(*copies, self._each(*rows)))

    def _accumulated(self, buffer: str, product: str, type_: ir.TileType, depth: str) -> list[ir.Stmt]:
        """The buffer holds the product, or its sum with what it held."""
        place_ = ir.Ref(buffer, type_.axes)
        before, after = fresh(f"{buffer}_before", self.taken), fresh(f"{buffer}_after", self.taken)
        more = (
            ir.Let(before, type_, ir.Load(place_)),
            ir.Let(after, type_, ir.Map("add", (before, product))),
            ir.Store(place_, after),
        )
        return [ir.When("first", depth, (ir.Store(place_, product),)), ir.When("not_first", depth, more)]

    # ------------------------------------------------------------------------------------- parts of sums
    def _split(
        self, loop: ir.Loop, totals: list[ir.Let], before: tuple[ir.Stmt, ...], after: tuple[ir.Stmt, ...]
    ) -> tuple[ir.Stmt, ...]:
        """Parts pass through memory that all blocks see; whoever joins them adds in order, and goes on."""
        part = loop.axes[0].name
        at = next(n for n, s in enumerate(loop.body) if is_main(s))
        main, joins = loop.body[at], loop.body[at + 1 :]
        assert isinstance(main, ir.Loop)
        inits = [s for s in loop.body[:at] if isinstance(s, ir.Let)]
        allocs, steps = self._main(main, inits)
        how = str(ir.note(loop.notes, "how"))
        parts = self._parts(inits, totals, how, part)
        reads = self._reads({t.name: t.name for t in totals}, {t.name: t for t in totals})
        column = next(a for a in inits[0].type.axes if a != self.axis.name)
        join = self._joined(parts.adds, (*before, *reads[0], *renamed(after, reads[1])), part, column, how == "cluster")
        assert all(isinstance(s, (ir.Let, ir.Assign)) for s in joins)
        guards = tuple(f"{t.name}_parts" for t in totals)
        notes: ir.Notes = (("guards", guards), ("scope", "cluster" if how == "cluster" else "grid"), ("stage", part))
        sync = ir.Sync(fresh("parts", self.taken), "barrier", notes)
        held: list[ir.Stmt] = [self._alloc(t.name, t, "register") for t in totals]
        held += [*parts.begun, *([self._each(*parts.zeros)] if parts.zeros else [])]
        body = (*allocs, *parts.allocs, steps, self._each(*parts.saves), sync, self._each(*join))
        return (*held, replace(loop, body=body))

    def _parts(self, inits: list[ir.Let], totals: list[ir.Let], how: str, part: str) -> _Parts:
        """What becomes of the sums of one part, and of all of them."""
        found = _Parts()
        for init, total in zip(inits, totals, strict=True):
            parts, mine, own = (fresh(f"{total.name}_{w}", self.taken) for w in ("parts", "mine", "one"))
            place_ = ir.Ref(parts, init.type.axes)
            found.saves.append(replace(init, name=mine, expr=ir.Load(ir.Ref(init.name, init.type.axes))))
            found.adds.append(replace(init, name=own, expr=ir.Load(place_)))
            if how == "atomic":
                zero = fresh(f"{total.name}_zero", self.taken)
                found.begun.append(self._alloc(parts, init, "memory"))
                found.zeros += [replace(init, name=zero), ir.Store(place_, zero)]
                found.saves += self._added(place_, mine, init.type)
                found.adds.append(ir.Store(ir.Ref(total.name, init.type.axes), own))
                continue
            found.allocs.append(self._alloc(parts, init, "shared" if how == "cluster" else "memory"))
            found.saves.append(ir.Store(place_, mine))
            found.adds += self._accumulated(total.name, own, init.type, part)
        return found

    def _joined(
        self, adds: list[ir.Stmt], rest: tuple[ir.Stmt, ...], part: str, column: str, shared: bool
    ) -> tuple[ir.Stmt, ...]:
        """The parts joined, and with the last one what follows the sums; blocks of a cluster share the columns."""
        share = self._share(column) if shared else None
        if share is None:
            return (*adds, ir.When("last", part, self._chunks(rest)))
        own = {column: share.name}
        join = (*renamed(tuple(adds), own), ir.When("last", part, self._chunks(renamed(rest, own))))
        return (ir.Loop((share,), join, True, (("bind", "cluster"),)),)

    def _added(self, place_: ir.Ref, mine: str, type_: ir.TileType) -> list[ir.Stmt]:
        """What lies at a place, and `mine` with it."""
        before, after = fresh(f"{mine}_before", self.taken), fresh(f"{mine}_after", self.taken)
        return [
            ir.Let(before, type_, ir.Load(place_)),
            ir.Let(after, type_, ir.Map("add", (before, mine))),
            ir.Store(place_, after),
        ]

    def _share(self, column: str) -> ir.Axis | None:
        """The columns that one block of a cluster joins and ends: whole fragments of the atom."""
        width = self.columns[column]
        parts = next(n for _, n in self.design.prefixed("split"))
        assert isinstance(parts, int)
        count = shares_of(width, parts)
        if count == 1:
            return None
        name = fresh(column.rstrip("0123456789"), self.taken)
        self.shares[name] = width // count
        return ir.Axis(name, column, width // count)
