"""How much of a serial axis the blocks of a nest walk, where their own position or a sequence's length ends it."""

from __future__ import annotations

import math

from tilewright.design.cost.gpu_grid import tile
from tilewright.design.cost.gpu_product import size_of
from tilewright.design.cost.program import Program
from tilewright.design.default import Facts
from tilewright.design.design import Design
from tilewright.language import ir


def visited(program: Program, design: Design, facts: Facts) -> float:
    """The share of a serial axis that blocks walk where it ends at their own position, as under a causal mask, or where
    their sequence does, whose lengths the facts may tell.

    S rows at the end of T walk T - S + (S + tile) / 2 of it in the mean; 1 where no loop ends so.
    """
    for axis in (a for loop in _loops(program) if not loop.parallel for a in loop.axes if isinstance(a.stop, str)):
        own, whole = _position(program, str(axis.stop)), size_of(program, facts, axis.name)
        filled = facts.filled if _from_data(program, str(axis.stop)) else ()
        if whole and (own is not None or filled):
            shares = [_walked(share * whole, whole, own, program, design, facts) for share in filled or (1.0,)]
            return sum(shares) / len(shares)
    return 1.0


def _walked(length: float, whole: int, own: str | None, program: Program, design: Design, facts: Facts) -> float:
    """The share for a sequence of `length`: rows before its first position see nothing."""
    if own is None:
        return min(1.0, length / whole)
    asked = max(1, size_of(program, facts, own))
    rows = min(asked, length)
    return rows / asked * max(0.0, min(1.0, (length - max(0, rows - tile(design, own)) / 2) / whole))


def there(program: Program, facts: Facts) -> float:
    """The share of a ragged batch's tensors that exists."""
    axes = [a for loop in _loops(program) if not loop.parallel for a in loop.axes if isinstance(a.stop, str)]
    ragged = facts.filled and any(_from_data(program, str(a.stop)) for a in axes)
    return sum(facts.filled) / len(facts.filled) if ragged else 1.0


def uneven(program: Program, design: Design, facts: Facts) -> float:
    """The share of the longest part's walk that is left when the others of a ragged batch, bound by memory, are done.

    Parts of a sequence are as long as each other, but for its last: shorter parts leave less.
    """
    if not facts.filled:
        return 0.0
    longest, axes = max(facts.filled), [a for a, _ in design.prefixed("part")]
    whole = min((design.number(f"part.{a}") / max(1, size_of(program, facts, a)) for a in axes), default=1.0)
    part = min(whole, longest)
    parts = sum(max(1, math.ceil(share / part - 1e-9)) for share in facts.filled)
    return 1.0 - sum(facts.filled) / parts / part


def _from_data(program: Program, name: str) -> bool:
    """Whether a scalar was computed from what a tensor holds."""
    let = program.values.get(name)
    return let is not None and (
        isinstance(let.expr, ir.Load) or any(_from_data(program, n) for n in ir.operands(let.expr))
    )


def _loops(program: Program) -> list[ir.Loop]:
    return [s for s in ir.walk(program.kernel.body) if isinstance(s, ir.Loop)]


def _position(program: Program, name: str) -> str | None:
    """The axis whose position a scalar was computed from, if any."""
    let = program.values.get(name)
    if let is None:
        return None
    if isinstance(let.expr, ir.Coord):
        return let.expr.axis
    return next((found for n in ir.operands(let.expr) if (found := _position(program, n)) is not None), None)


__all__ = ["there", "uneven", "visited"]
