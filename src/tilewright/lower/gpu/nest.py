"""What the stages look for in a nest of loops around the dots of the matrix unit."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from tilewright.design.design import Design
from tilewright.language import ir

ATOM_ROWS = 64
"""Rows of the result of one wgmma."""


@dataclass(frozen=True)
class Roles:
    """Which axis of the result lies along the rows of the atom, and which along its columns."""

    row: str
    column: str


def dots(body: tuple[ir.Stmt, ...]) -> list[ir.Let]:
    """Lets of dots, at any depth."""
    return [s for s in ir.walk(body) if isinstance(s, ir.Let) and isinstance(s.expr, ir.Dot)]


def is_wgmma(body: tuple[ir.Stmt, ...], design: Design) -> bool:
    """Whether the design gives dots of `body` to the matrix unit."""
    return any(design.get(f"atom.{d.name}") == "wgmma" for d in dots(body))


def roles(body: tuple[ir.Stmt, ...], design: Design) -> Roles:
    """Rows and columns of the dots in `body`: the first operand's axis along the rows, unless operands are swapped."""
    first, second = dots(body)[0].type.axes
    return Roles(second, first) if design.get("swap") else Roles(first, second)


def is_main(stmt: ir.Stmt) -> bool:
    """Whether a statement is the serial loop around dots."""
    return isinstance(stmt, ir.Loop) and not stmt.parallel and any(s in stmt.body for s in dots(stmt.body))


def is_split(stmt: ir.Stmt) -> bool:
    """Whether a statement is a loop over parts of a sum."""
    return isinstance(stmt, ir.Loop) and ir.note(stmt.notes, "how") is not None


def is_rows(stmt: ir.Stmt) -> bool:
    """Whether a statement is the loop over rows of the atom."""
    return isinstance(stmt, ir.Loop) and stmt.parallel and [a.step for a in stmt.axes] == [ATOM_ROWS] and _own(stmt)


def _own(loop: ir.Loop) -> bool:
    return ir.note(loop.notes, "bind") in (None, "warpgroup") and not any(is_rows(s) for s in loop.body)


def replaced(
    body: tuple[ir.Stmt, ...], wanted: Callable[[ir.Stmt], bool], new: Callable[[ir.Stmt], tuple[ir.Stmt, ...]]
) -> tuple[ir.Stmt, ...]:
    """`body` with the outermost statements that are `wanted` replaced by those that `new` gives."""
    result: list[ir.Stmt] = []
    for stmt in body:
        if wanted(stmt):
            result += new(stmt)
        elif isinstance(stmt, (ir.Loop, ir.When, ir.Role)):
            result.append(replace(stmt, body=replaced(stmt.body, wanted, new)))
        else:
            result.append(stmt)
    return tuple(result)
