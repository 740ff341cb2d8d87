"""Default designs of streams on a CPU: dots over whole dimensions inside a serial loop, as in attention."""

from __future__ import annotations

from tilewright.design.default_rows import is_value_axis
from tilewright.design.design import Choice
from tilewright.design.facts import Facts
from tilewright.language import ir, structure


def streams(kernel: ir.Kernel, nest: structure.Nest, facts: Facts) -> tuple[dict[str, Choice], list[str]]:
    """Dots over whole dimensions: those lie across lanes; a few rows share what is streamed."""
    whole = [d for d in kernel.dims if d not in structure.axes(kernel) and is_value_axis(kernel, d)]
    width = max((facts.sizes[d] for d in whole), default=facts.lanes)
    vectors = -(-width // facts.lanes)
    rows = max(1, facts.registers // 2 // vectors)
    decisions: dict[str, Choice] = {}
    for axis in (a for a in nest.loop.axes if not a.each):
        tile = min(rows, 1 << (max(1, facts.size(kernel, axis)) - 1).bit_length())
        decisions[f"tile.{axis.name}"] = tile
        rows = max(1, rows // tile)
    serial = [a for loop in ir.walk(nest.loop.body) if isinstance(loop, ir.Loop) for a in loop.axes if not a.each]
    streamed = facts.lanes
    while streamed > 1 and streamed * vectors > _MOST_STREAMED:
        streamed //= 2
    for axis in serial:
        decisions[f"tile.{axis.name}"] = streamed
    return decisions, [*whole, *(a.name for a in serial)]


_MOST_STREAMED = 1024  # vectors of one tile of what streams by: each is a few instructions


__all__ = ["streams"]
