"""Stage `stage`: loops become metapipelines: roles for stages, and buffers for what crosses them.

before:  for r in M step 16 { x0 = load x[r, N]; top = reduce max x0 over N; low = sub x0 top; ... }
after:   for r in M step 16 @stages=4 { alloc x0_buf @stages=3 ...; role x { copy x0_buf[r, N] <- x[r, N] }
         role top @stage=1 { x0_1 = load x0_buf[r, N]; ...; store top_buf[r] = top } ... }
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from tilewright.design.design import Design
from tilewright.language import ir, structure
from tilewright.lower.dataflow.items import Item, item
from tilewright.lower.dataflow.partition import Block, Group, partition
from tilewright.lower.gpu.rename import renamed


def stage(kernel: ir.Kernel, design: Design) -> ir.Kernel:
    """Every loop that does more than loop becomes a pipeline of roles; see the module for the change."""
    body = _Stager(kernel, design).top(kernel.body)
    memory = {p.name for p in kernel.params}

    def moved(stmt: ir.Stmt) -> ir.Stmt:
        if isinstance(stmt, ir.Store) and stmt.ref.buffer in memory:
            return replace(stmt, notes=ir.with_notes(stmt.notes, engine="dma"))
        return stmt

    return replace(kernel, body=structure.rewrite(body, moved))


class _Stager:
    """What holds for the whole kernel: its types, the names in use, the decisions."""

    def __init__(self, kernel: ir.Kernel, design: Design) -> None:
        self.design = design
        self.memory = frozenset(p.name for p in kernel.params if p.dims is not None)
        self.types = {name: let.type for name, let in structure.lets(kernel).items()}
        self.taken = structure.names(kernel)
        self.roles: set[str] = set()

    def top(self, body: tuple[ir.Stmt, ...]) -> tuple[ir.Stmt, ...]:
        """The body of the kernel: loops in sequence, or roles that run once."""
        if all(isinstance(s, ir.Loop) for s in body):
            return tuple(new for s in body for new in self.loop(s))
        return self.staged(Block([self.item(s) for s in body]), in_loop=False)[0]

    def item(self, stmt: ir.Stmt) -> Item:
        """A statement as an item; a loop with its own stages, and what must stand around it."""
        return item(self.loop(stmt) if isinstance(stmt, ir.Loop) else (stmt,), self.memory)

    def loop(self, stmt: ir.Stmt) -> tuple[ir.Stmt, ...]:
        """A loop as a pipeline; around it, the buffers of what it carries for many stages."""
        assert isinstance(stmt, ir.Loop)
        if len(stmt.body) == 1 and isinstance(stmt.body[0], ir.Loop):
            return (replace(stmt, body=self.loop(stmt.body[0])),)
        items = [self.item(s) for s in stmt.body]
        block = Block(items, explicit=frozenset(n for n, _ in self.design.prefixed("buffer")))
        block.buffered = frozenset(n for n in block.carried if self.is_buffered(n, block))
        shared = {name: structure.fresh(f"{name}_buf", self.taken) for name in sorted(block.buffered)}
        body, levels = self.staged(block, shared)
        pipeline = replace(stmt, body=body, parallel=False, notes=ir.with_notes(stmt.notes, stages=levels))
        before = [s for name, buffer in shared.items() for s in self.fill(name, buffer)]
        after = [s for name, buffer in shared.items() for s in self.read_back(name, buffer)]
        return (*before, pipeline, *after)

    def is_buffered(self, name: str, block: Block) -> bool:
        """Whether a carried value lies in a buffer: by the design, or where its owner would do two products."""
        if (choice := self.design.get(f"carry.{name}")) is not None:
            return choice == "buffer"
        owner = next(g for g in partition(block) if any(name in i.assigned for i in g.items))
        return sum(isinstance(i.let.expr, ir.Dot) for i in owner.items if i.let is not None) > 1

    def fill(self, name: str, buffer: str) -> tuple[ir.Stmt, ...]:
        """What stands before a loop: the buffer of a carried value, and its first value."""
        axes = self.types[name].axes
        alloc = ir.Alloc(buffer, self.types[name].dtype, axes, ir.with_notes((), place="pmu"))
        return alloc, ir.Store(ir.Ref(buffer, axes), name)

    def read_back(self, name: str, buffer: str) -> tuple[ir.Stmt, ...]:
        """What stands after a loop: the last value of what it carried."""
        last = structure.fresh(f"{name}_last", self.taken)
        self.types[last] = self.types[name]
        return ir.Let(last, self.types[name], ir.Load(ir.Ref(buffer, self.types[name].axes))), ir.Assign(name, last)

    # ----------------------------------------------------------------------------------- one block
    def staged(
        self, block: Block, shared: dict[str, str] | None = None, *, in_loop: bool = True
    ) -> tuple[tuple[ir.Stmt, ...], int]:
        """Buffers and roles of a block, and how many stages it has."""
        groups = partition(block)
        buffers = self.buffers(block, groups, in_loop)
        roles = [_RoleWriter(self, block, group, buffers, shared or {}).role() for group in groups]
        return (*(b.alloc for b in buffers.values()), *roles), 1 + max(g.level for g in groups)

    def buffers(self, block: Block, groups: list[Group], in_loop: bool) -> dict[str, _Buffer]:
        """A buffer for every value that one group makes and others need, as deep as they are apart plus one."""
        level = {name: g.level for g in groups for i in g.items for name in i.made}
        needed: dict[str, int] = {}
        for group in groups:
            inside = {name for i in group.items for name in i.made}
            for name in (n for i in group.items for n in block.needs(i) if n not in inside):
                needed[name] = max(needed.get(name, 0), group.level)
        found = {}
        for name, last in sorted(needed.items(), key=lambda n: (level[n[0]], block.home[n[0]])):
            depth = self.design.number(f"stages.{name}", last - level[name] + 1) if in_loop else 1
            buffer = structure.fresh(f"{name}_buf", self.taken)
            notes = ir.with_notes((), place="pmu", stages=depth)
            found[name] = _Buffer(ir.Alloc(buffer, self.types[name].dtype, self.types[name].axes, notes))
        return found


@dataclass(frozen=True)
class _Buffer:
    """A buffer between stages, and the place of a whole tile in it."""

    alloc: ir.Alloc

    @property
    def ref(self) -> ir.Ref:
        return ir.Ref(self.alloc.name, tuple(self.alloc.dims))


class _RoleWriter:
    """Writes one stage: it loads what others made, computes cheap values again, and stores what others need."""

    def __init__(
        self, stager: _Stager, block: Block, group: Group, buffers: dict[str, _Buffer], shared: dict[str, str]
    ) -> None:
        self.stager, self.block, self.group, self.buffers, self.shared = stager, block, group, buffers, shared
        self.new: dict[str, str] = {}
        self.body: list[ir.Stmt] = []
        self.inside = {name for each in group.items for name in each.made}

    def role(self) -> ir.Role:
        for each in self.group.items:
            self.item(each)
        name = self.name()
        units = self.stager.design.number(f"units.{name}", 1)
        return ir.Role(name, tuple(self.body), ir.with_notes((), stage=self.group.level, units=units))

    def name(self) -> str:
        """A stage is called as the last value it makes, as what it loads, or as what it stores."""
        last = self.group.items[-1]
        stored = [s.ref.buffer for s in last.stmts if isinstance(s, ir.Store) and s.ref.buffer in self.stager.memory]
        loaded = [s.expr.ref.buffer for s in last.stmts if isinstance(s, ir.Let) and isinstance(s.expr, ir.Load)]
        looped = [s.axes[-1].name for s in last.stmts if isinstance(s, ir.Loop)]
        assigned = [s.name for s in last.stmts if isinstance(s, ir.Assign)]
        made = sorted(last.made)
        name = (stored or looped or (loaded if last.loads else made) or assigned or made or ["stage"])[0]
        return structure.fresh(name, self.stager.roles)

    def item(self, each: Item) -> None:
        for name in sorted(each.read):
            self.provide(name)
        if (assign := each.assigns) is not None and assign.name in self.shared:
            axes = self.stager.types[assign.name].axes
            value = self.new.get(assign.value, assign.value)
            self.body.append(ir.Store(ir.Ref(self.shared[assign.name], axes), value))
        elif each.loads and each.let is not None and each.let.name in self.buffers and len(self.group.items) == 1:
            self.load(each.let)
        else:
            self.body.extend(renamed(each.stmts, self.new))
            self.body.extend(ir.Store(self.buffers[n].ref, n) for n in sorted(each.made) if n in self.buffers)
        for name in sorted(each.assigned & set(self.buffers)):
            self.keep_last(name)

    def keep_last(self, name: str) -> None:
        """A value that a loop updates is handed on after its last update."""
        first = [s for s in self.body if not (isinstance(s, ir.Store) and s.ref == self.buffers[name].ref)]
        self.body[:] = [*first, ir.Store(self.buffers[name].ref, name)]

    def load(self, let: ir.Let) -> None:
        """A tile from memory into its buffer: a copy, or a gather where an index is a value."""
        assert isinstance(let.expr, ir.Load)
        ref = let.expr.ref
        if any(i in self.stager.types for i in ref.index if isinstance(i, str)):
            (new,) = renamed((let,), self.new)
            self.body += [new, ir.Store(self.buffers[let.name].ref, let.name)]
        else:
            self.body.append(ir.Copy(self.buffers[let.name].ref, ref, ir.with_notes(let.notes, engine="dma")))

    def provide(self, name: str) -> None:
        """Make a value that the stage reads known in it."""
        if name in self.new or name in self.inside:
            return
        if name in self.block.cheap:
            let = self.block.cheap[name]
            for operand in ir.operands(let.expr):
                self.provide(operand)
            copied = self.fresh(name)
            self.body.extend(renamed((let,), {**self.new, name: copied}))
            self.new[name] = copied
        elif name in self.shared or name in self.buffers:
            buffer = self.shared.get(name) or self.buffers[name].alloc.name
            ref = ir.Ref(buffer, self.stager.types[name].axes)
            self.new[name] = self.fresh(name)
            self.body.append(ir.Let(self.new[name], self.stager.types[name], ir.Load(ref)))

    def fresh(self, name: str) -> str:
        new = structure.fresh(name, self.stager.taken)
        self.stager.types[new] = self.stager.types[name]
        return new
