"""Default designs of rows: nests without dots, whose lanes lie along what has stride one."""

from __future__ import annotations

import math
from collections.abc import Iterator

from tilewright.design.default import Facts, unit_axes
from tilewright.design.design import Choice, Design
from tilewright.design.gpu.shape import Shape, power
from tilewright.design.twins import Twin, twins
from tilewright.language import ir


def default_rows(s: Shape) -> dict[str, Choice]:
    """Lanes along what has stride one, then along rows; a block has several rows where they are short."""
    counts = unit_axes(s.kernel, s.facts)
    along = [a for a in s.serial if counts.get(a.name)] or [a for a in s.parallel if counts.get(a.name) and not s.whole]
    length = max([s.size(a) for a in along] + [s.facts.sizes.get(d, 1) for d in s.whole], default=1)
    lanes = max(1, min(256, power(-(-length // s.run))))
    threads = max(128, lanes)
    spare = threads // lanes
    decisions: dict[str, Choice] = {"warps": threads // 32}
    for axis in along:
        deep = 2 if axis in s.parallel and not s.serial and s.size(axis) > lanes * s.run else 1
        decisions[f"tile.{axis.name}"] = min(power(s.size(axis)), lanes * s.run * deep)
    others = [a for a in (*s.serial, *s.parallel) if a not in along]
    rows: list[str] = []
    for axis in others:
        inner = axis in s.serial
        free = spare if inner or not any(a in s.serial for a in others) else 1
        decisions[f"tile.{axis.name}"] = min(power(s.size(axis)), free)
        rows.append(axis.name)
        if not inner:
            spare = max(1, spare // int(decisions[f"tile.{axis.name}"]))  # type: ignore[arg-type]
    decisions["lanes"] = (*s.whole, *(a.name for a in along), *rows)
    return decisions


# --------------------------------------------------------------------------------------------- rows that are kept
def broken_keeps(kernel: ir.Kernel, design: Design, facts: Facts) -> Iterator[str]:
    """What hinders values from staying in registers from one loop over a row to the next."""
    known = twins(kernel)
    for twin in (known[name] for name, _ in design.prefixed("keep")):
        first, second = twin.first.axes[0], twin.second.axes[0]
        if first.over not in facts.fixed or not facts.sizes.get(first.over):
            yield f"keep.{twin.later.name}: the size of {first.over} is no part of the kernel; fix it, or drop the decision"
        one, two = design.number(f"tile.{first.name}", 1), design.number(f"tile.{second.name}", 1)
        if one != two:
            yield f"keep.{twin.later.name}: tile.{first.name}={one} and tile.{second.name}={two} differ; make them equal"


def held(kernel: ir.Kernel, design: Design, facts: Facts) -> int:
    """Registers of a thread that hold what is kept."""
    known = twins(kernel)
    kept = {known[name].earlier.name: known[name] for name, wanted in design.prefixed("keep") if wanted}
    return sum(_held(t, design, facts) for t in kept.values())


def _held(twin: Twin, design: Design, facts: Facts) -> int:
    row, lanes = twin.first.axes[0], design.names("lanes")
    tiles = {a: design.number(f"tile.{a}", 1) for a in twin.earlier.type.axes}
    spread = math.prod(n for a, n in tiles.items() if a in lanes)
    threads = min(32 * design.number("warps", 4), power(spread))
    blocks = design.number(f"split.{row.name}", 1)
    elements = -(-math.prod(tiles.values()) // threads) * -(-facts.sizes.get(row.over, 1) // (tiles[row.name] * blocks))
    return -(-elements * twin.earlier.type.dtype.bytes // 4)


__all__ = ["broken_keeps", "default_rows", "held"]
