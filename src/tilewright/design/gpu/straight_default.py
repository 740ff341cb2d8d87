"""The default design of a product of few rows whose operands go straight to registers, where that is legal and best."""

from __future__ import annotations

from tilewright.design.default import Facts
from tilewright.design.design import Design
from tilewright.design.gpu.product import Product
from tilewright.design.gpu.straight import UNITS, legal_straight, straight
from tilewright.language import ir

_BY_FMA, _BY_MMA = 2, 8
"""Rows up to which each is best on an H200 (note 0019); more rows pass through shared memory."""

_WARPS, _THREADS = 8, 1024
"""Warps of a block, and threads of an SM: enough to keep memory busy, few enough that each has 64 registers."""


def default_straight(kernel: ir.Kernel, p: Product, facts: Facts) -> Design | None:
    """A legal design, good at once; None where rows are too many, or operands lie in another way."""
    m, k = p.size(p.m, facts), p.size(p.k, facts)
    if m > _BY_MMA:
        return None
    for atom in ("fma", "mma") if m <= _BY_FMA else ("mma",):
        lanes = UNITS[atom][2] * 16 // p.itemsize
        chunks = max(1, 4 // sum(o.axis == p.n.name for o in p.operands))
        steps = -(-k // (lanes * chunks))
        along = next(w for w in (4, 2, 1) if steps % w == 0) if atom == "fma" else _part(steps)
        found = straight(p, facts, 1, along, max(1, _WARPS // along), chunks, atom)
        found = Design.of({**dict(found.decisions), "resident": _THREADS // (32 * found.number("warps"))})
        if not legal_straight(kernel, found, facts):
            return found
    return None


def _part(steps: int) -> int:
    """As many warps as have equal parts of a sum."""
    return next(w for w in range(min(_WARPS, steps), 0, -1) if steps % w == 0)


__all__ = ["default_straight"]
