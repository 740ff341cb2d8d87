"""Default designs of products by FMA, operands in registers: of types and layouts that no matrix unit takes."""

from __future__ import annotations

from tilewright.design.default_rows import unit_axes
from tilewright.design.design import Choice
from tilewright.design.gpu.shape import Shape, power

_FEW = 8
"""Rows up to which a product is one pass over the weights with the sum across lanes."""
_EACH = 4
"""Rows, and columns, of results in each thread of a grid of them."""


def default_fma(s: Shape) -> dict[str, Choice]:
    """Few rows: lanes along the sum, warps along columns. Else a grid of threads, 4 by 4 results in each."""
    main = s.nest.main
    assert main is not None
    k = main.axes[0]
    m, n = s.parallel
    rows = s.size(m)
    counts = unit_axes(s.kernel, s.facts)
    if rows <= _FEW and counts.get(k.name):
        each = next((r for r in (4, 2) if s.size(n) >= 12 * r * s.facts.machine.cores), 2)
        return {
            "warps": 4,
            f"tile.{m.name}": power(rows),
            f"tile.{n.name}": 4 * each,
            f"tile.{k.name}": 32 * s.run,
            f"unroll.{k.name}": max(1, (8 if rows == 1 else 4 if rows <= 4 else 2) // each),
            "lanes": (k.name, n.name),
        }
    return _narrow(s) | {
        "warps": 8,
        f"tile.{m.name}": 64,
        f"tile.{n.name}": 64,
        f"tile.{k.name}": 8,
        "lanes": (n.name, m.name),
    }


def _narrow(s: Shape) -> dict[str, Choice]:
    """Widths of loads of elements of 8 bits: as many as a thread has rows or columns, not the 16 of a whole access.

    By a whole access of each operand a thread would have 16 by 16 results, more than it has registers.
    """
    narrow = {f"vec.{p.name}" for p in s.kernel.params if p.dims is not None and p.dtype.bytes == 1}
    return dict.fromkeys(narrow & s.widths().keys(), _EACH)


__all__ = ["default_fma"]
