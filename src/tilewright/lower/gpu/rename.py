"""Names of axes and values replaced throughout statements."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from tilewright.language import ir


def renamed(body: tuple[ir.Stmt, ...], new: Mapping[str, str]) -> tuple[ir.Stmt, ...]:
    """`body` with every axis, value and buffer in `new` called as that says, where it is made and where it is read."""
    return tuple(_stmt(s, new) for s in body)


def _stmt(stmt: ir.Stmt, new: Mapping[str, str]) -> ir.Stmt:
    match stmt:
        case ir.Let(name, type_, expr, notes):
            axes = tuple(new.get(a, a) for a in type_.axes)
            return ir.Let(new.get(name, name), replace(type_, axes=axes), _expr(expr, new), notes)
        case ir.Assign(name, value):
            return ir.Assign(new.get(name, name), new.get(value, value))
        case ir.Store(ref, value, notes):
            return ir.Store(_ref(ref, new), new.get(value, value), notes)
        case ir.Copy(dst, src, notes):
            return ir.Copy(_ref(dst, new), _ref(src, new), notes)
        case ir.Alloc(name, dtype, dims, notes):
            return ir.Alloc(
                new.get(name, name), dtype, tuple(new.get(d, d) if isinstance(d, str) else d for d in dims), notes
            )
        case ir.Loop(axes, inner, parallel, notes):
            return ir.Loop(tuple(_axis(a, new) for a in axes), renamed(inner, new), parallel, notes)
        case ir.When(cond, axis, inner):
            return ir.When(cond, new.get(axis, axis), renamed(inner, new))
        case ir.Role():
            return replace(stmt, body=renamed(stmt.body, new))
        case ir.Sync():
            return stmt


def _expr(expr: ir.Expr, new: Mapping[str, str]) -> ir.Expr:
    match expr:
        case ir.Load(ref):
            return ir.Load(_ref(ref, new))
        case ir.Coord(axis):
            return ir.Coord(new.get(axis, axis))
        case ir.Map(op, args):
            return ir.Map(op, tuple(new.get(a, a) for a in args))
        case ir.Reduce(op, arg, axis):
            return ir.Reduce(op, new.get(arg, arg), new.get(axis, axis))
        case ir.Dot(a, b, axis):
            return replace(expr, a=new.get(a, a), b=new.get(b, b), axis=new.get(axis, axis))
        case ir.Permute(arg):
            return ir.Permute(new.get(arg, arg))
        case ir.Full(value):
            return ir.Full(new.get(value, value) if isinstance(value, str) else value)


def _ref(ref: ir.Ref, new: Mapping[str, str]) -> ir.Ref:
    return ir.Ref(new.get(ref.buffer, ref.buffer), tuple(new.get(i, i) if isinstance(i, str) else i for i in ref.index))


def _axis(axis: ir.Axis, new: Mapping[str, str]) -> ir.Axis:
    bounds = [new.get(b, b) if isinstance(b, str) else b for b in (axis.start, axis.stop)]
    return replace(
        axis, name=new.get(axis.name, axis.name), over=new.get(axis.over, axis.over), start=bounds[0], stop=bounds[1]
    )
