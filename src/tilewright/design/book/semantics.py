"""What an operator means, as a hash: of its traced program's text, with the names of values made canonical."""

from __future__ import annotations

import hashlib
from dataclasses import replace

from tilewright.language import ir
from tilewright.language.printer import show

MEANING = 1
"""Raised when the same text comes to mean something else: what was designed for the old meaning is not found then."""


def semantics(kernel: ir.Kernel) -> str:
    """16 hex digits, equal for programs that compute the same thing on operands of the same names.

    Static options are in the program that they were traced to. Parameters and dims keep their names, since callers
    and designs use them; values, axes and buffers are numbered, and the name of the operator does not count.
    """
    text = f"tilewright meaning {MEANING}\n{show(canonical(kernel))}"
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def canonical(kernel: ir.Kernel) -> ir.Kernel:
    """The program with its values, axes and buffers called %0, %1 ... in the order in which they are defined."""
    return replace(kernel, name="_", body=_Names().block(kernel.body), lines=())


class _Names:
    """New names for what a program defines; all other names stay."""

    def __init__(self) -> None:
        self.new: dict[str, str] = {}
        self.count = 0

    def define(self, name: str) -> str:
        self.new[name] = f"%{self.count}"
        self.count += 1
        return self.new[name]

    def of(self, name: str) -> str:
        return self.new.get(name, name)

    def all(self, names: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(map(self.of, names))

    def index(self, index: ir.Index) -> ir.Index:
        return self.of(index) if isinstance(index, str) else index

    def ref(self, ref: ir.Ref) -> ir.Ref:
        return ir.Ref(self.of(ref.buffer), tuple(map(self.index, ref.index)))

    def block(self, body: tuple[ir.Stmt, ...]) -> tuple[ir.Stmt, ...]:
        return tuple(map(self.stmt, body))

    def stmt(self, stmt: ir.Stmt) -> ir.Stmt:
        match stmt:
            case ir.Let(name, type_, expr):
                expr, type_ = self.expr(expr), replace(type_, axes=self.all(type_.axes))
                return replace(stmt, name=self.define(name), type=type_, expr=expr)
            case ir.Assign(name, value):
                return ir.Assign(self.of(name), self.of(value))
            case ir.Store(ref, value):
                return replace(stmt, ref=self.ref(ref), value=self.of(value))
            case ir.Loop(axes, body):
                return replace(stmt, axes=tuple(map(self.axis, axes)), body=self.block(body))
            case ir.When(_, axis, body):
                return replace(stmt, axis=self.of(axis), body=self.block(body))
            case ir.Alloc(name):
                return replace(stmt, name=self.define(name))
            case ir.Copy(dst, src):
                return replace(stmt, dst=self.ref(dst), src=self.ref(src))
            case ir.Role(_, body):
                return replace(stmt, body=self.block(body))
            case ir.Sync():
                return stmt

    def axis(self, axis: ir.Axis) -> ir.Axis:
        over = self.of(axis.over)
        start, stop = (b if b is None else self.index(b) for b in (axis.start, axis.stop))
        return replace(axis, name=self.define(axis.name), over=over, start=start, stop=stop)

    def expr(self, expr: ir.Expr) -> ir.Expr:
        match expr:
            case ir.Full(str(value)):
                return ir.Full(self.of(value))
            case ir.Full():
                return expr
            case ir.Coord(axis):
                return ir.Coord(self.of(axis))
            case ir.Load(ref):
                return ir.Load(self.ref(ref))
            case ir.Map(op, args):
                return ir.Map(op, self.all(args))
            case ir.Reduce(op, arg, axis):
                return ir.Reduce(op, self.of(arg), self.of(axis))
            case ir.Dot(a, b, axis):
                return replace(expr, a=self.of(a), b=self.of(b), axis=self.of(axis))
            case ir.Permute(arg):
                return ir.Permute(self.of(arg))
