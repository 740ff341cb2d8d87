"""The items of a block: statements with what they make, read and assign; the grains that stages are made of."""

from __future__ import annotations

from dataclasses import dataclass

from tilewright.language import ir


@dataclass(frozen=True)
class Item:
    """One statement of a block, or a loop with what must stand before and after it.

    `made` are values that it defines in the block, `assigned` those that it updates, `read` all names that it uses;
    `tensors` are the memory it loads and stores, each with whether it is written.
    """

    stmts: tuple[ir.Stmt, ...]
    made: frozenset[str]
    assigned: frozenset[str]
    read: frozenset[str]
    tensors: frozenset[tuple[str, bool]]

    @property
    def let(self) -> ir.Let | None:
        """The item as a Let, where it is one."""
        return self.stmts[0] if len(self.stmts) == 1 and isinstance(self.stmts[0], ir.Let) else None

    @property
    def loads(self) -> bool:
        """Whether it only loads a tile from memory."""
        return self.let is not None and isinstance(self.let.expr, ir.Load)

    @property
    def sums(self) -> bool:
        """Whether its result is there only when all of a tile was seen."""
        whole = self.let is not None and isinstance(self.let.expr, (ir.Reduce, ir.Dot))
        return whole or any(isinstance(s, ir.Loop) for s in self.stmts)

    @property
    def assigns(self) -> ir.Assign | None:
        """The item as an Assign, where it is one."""
        return self.stmts[0] if len(self.stmts) == 1 and isinstance(self.stmts[0], ir.Assign) else None


def item(stmts: tuple[ir.Stmt, ...], memory: frozenset[str]) -> Item:
    """An item of `stmts`; `memory` names the tensors of the kernel."""
    inside = list(ir.walk(stmts))
    made = frozenset(s.name for s in stmts if isinstance(s, ir.Let))
    assigned = frozenset(s.name for s in inside if isinstance(s, ir.Assign))
    read = frozenset(n for s in inside for n in names_read(s))
    touched = frozenset((t, w) for s in inside for t, w in _touches(s) if t in memory)
    return Item(stmts, made, assigned, read, touched)


def names_read(stmt: ir.Stmt) -> tuple[str, ...]:
    """Names that a statement itself uses, not those of the statements inside it."""
    match stmt:
        case ir.Let(_, _, expr):
            return ir.operands(expr)
        case ir.Assign(name, value):
            return (name, value)
        case ir.Store(ref, value):
            return (value, *_names(ref))
        case ir.Copy(dst, src):
            return (*_names(dst), *_names(src))
        case ir.Loop(axes):
            return tuple(b for a in axes for b in (a.start, a.stop) if isinstance(b, str))
        case _:
            return ()


def _names(ref: ir.Ref) -> tuple[str, ...]:
    return tuple(i for i in ref.index if isinstance(i, str))


def _touches(stmt: ir.Stmt) -> tuple[tuple[str, bool], ...]:
    match stmt:
        case ir.Let(_, _, ir.Load(ref)):
            return ((ref.buffer, False),)
        case ir.Store(ref):
            return ((ref.buffer, True),)
        case ir.Copy(dst, src):
            return ((dst.buffer, True), (src.buffer, False))
        case _:
            return ()
