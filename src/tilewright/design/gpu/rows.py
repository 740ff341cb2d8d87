"""Default designs of rows: nests without dots, whose lanes lie along what has stride one."""

from __future__ import annotations

from tilewright.design.default import unit_axes
from tilewright.design.design import Choice
from tilewright.design.gpu.shape import Shape, power


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


__all__ = ["default_rows"]
