"""What lowering and designs need to know of a program's shape: its nest, its dots, who reads what."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from copy import copy
from dataclasses import dataclass, replace
from functools import wraps
from typing import TypeVar

from tilewright.language import ir

T = TypeVar("T")


def asked_once(question: Callable[[ir.Kernel], T]) -> Callable[[ir.Kernel], T]:
    """A question about a program, whose answer is kept with the program, which never changes.

    A search asks each of thousands of designs what its program looks like. Whoever asks gets a shallow copy.
    """
    name = f"{question.__module__}.{question.__name__}"

    @wraps(question)
    def answer(kernel: ir.Kernel) -> T:
        known = kernel.__dict__
        if name not in known:
            known[name] = question(kernel)
        found: T = known[name]
        return copy(found)

    return answer


@dataclass(frozen=True)
class Nest:
    """A top-level parallel loop with the serial loops and dots inside it."""

    loop: ir.Loop
    serial: tuple[ir.Loop, ...]  # directly in the body
    dots: tuple[ir.Let, ...]

    @property
    def main(self) -> ir.Loop | None:
        """The only serial loop of the body, where there is just one and it is over a whole dimension."""
        if len(self.serial) != 1 or len(self.serial[0].axes) != 1:
            return None
        axis = self.serial[0].axes[0]
        return self.serial[0] if axis.start is None and axis.stop is None and not axis.each else None


@asked_once
def nests(kernel: ir.Kernel) -> list[Nest]:
    """The top-level loops of a program."""
    result = []
    for stmt in kernel.body:
        if isinstance(stmt, ir.Loop):
            serial = tuple(s for s in stmt.body if isinstance(s, ir.Loop))
            dots = tuple(s for s in ir.walk(stmt.body) if isinstance(s, ir.Let) and isinstance(s.expr, ir.Dot))
            result.append(Nest(stmt, serial, dots))
    return result


@asked_once
def axes(kernel: ir.Kernel) -> dict[str, ir.Axis]:
    """Every loop axis of a program by name."""
    return {a.name: a for s in ir.walk(kernel.body) if isinstance(s, ir.Loop) for a in s.axes}


@asked_once
def lets(kernel: ir.Kernel) -> dict[str, ir.Let]:
    """Every value of a program by name."""
    return {s.name: s for s in ir.walk(kernel.body) if isinstance(s, ir.Let)}


def source(values: Mapping[str, ir.Let], name: str) -> ir.Let:
    """The value `name`, or that of 8 bits which it is, made wider."""
    let = values[name]
    if isinstance(let.expr, ir.Map) and let.expr.op == "cast" and (stored := values.get(let.expr.args[0])) is not None:
        return stored if stored.type.dtype.is_storage_only and stored.type.dtype.bits == 8 else let
    return let


@asked_once
def loads(kernel: ir.Kernel) -> list[tuple[ir.Let, ir.Ref]]:
    """Every load with its ref."""
    return [(s, s.expr.ref) for s in lets(kernel).values() if isinstance(s.expr, ir.Load)]


@asked_once
def summed_in_loops(kernel: ir.Kernel) -> list[str]:
    """Last axes of loops in order that a dot or a reduction in them runs along, as the program names them."""
    found: dict[str, None] = {}
    for loop in (s for s in ir.walk(kernel.body) if isinstance(s, ir.Loop) and not s.parallel):
        sums = [s.expr for s in loop.body if isinstance(s, ir.Let) and isinstance(s.expr, ir.Dot | ir.Reduce)]
        if any(e.axis == loop.axes[-1].name for e in sums):
            found[loop.axes[-1].name] = None
    return list(found)


def rewrite(body: tuple[ir.Stmt, ...], change: Callable[[ir.Stmt], ir.Stmt]) -> tuple[ir.Stmt, ...]:
    """`body` with every statement replaced by `change(stmt)`, inner ones first."""
    result = []
    for stmt in body:
        if isinstance(stmt, (ir.Loop, ir.When, ir.Role)):
            result.append(change(replace(stmt, body=rewrite(stmt.body, change))))
        else:
            result.append(change(stmt))
    return tuple(result)


def fresh(name: str, taken: set[str]) -> str:
    """`name`, or `name` with the first number that makes it new; the result is taken from now on."""
    candidate, n = name, 0
    while candidate in taken:
        candidate, n = f"{name}_{n}", n + 1
    taken.add(candidate)
    return candidate


def names(kernel: ir.Kernel) -> set[str]:
    """Every name that a program uses."""
    used = {p.name for p in kernel.params} | set(kernel.dims) | set(axes(kernel)) | set(lets(kernel))
    return used | {s.name for s in ir.walk(kernel.body) if isinstance(s, ir.Alloc)}
