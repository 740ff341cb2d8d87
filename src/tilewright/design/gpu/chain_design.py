"""The default design of a chain, and designs drawn at once."""

from __future__ import annotations

from collections.abc import Iterator

from tilewright.design.default import Facts
from tilewright.design.design import Choice, Design
from tilewright.design.gpu.chain import Chain
from tilewright.design.gpu.chain_legality import legal_chain
from tilewright.design.gpu.chain_resources import ChainResources
from tilewright.design.pick import Pick
from tilewright.language import ir

LEAST_ROWS = 16
"""Rows from which on a tile of 64 of them is worth the matrix unit; fewer are streams."""

SHAPES = ((128, 2), (192, 3), (64, 1))
"""Rows of a block, and warpgroups."""
COLUMNS = (128, 176, 160, 144, 112, 96, 80, 64, 48, 32)
"""Columns of a step."""
PACKS = (1, 2, 4, 8)
"""Positions of the packed axis in a tile of rows."""
MOST_STAGES = 4


def default_chain(kernel: ir.Kernel, c: Chain, facts: Facts) -> Design | None:
    """A legal design of a chain, good at once; None where the matrix unit cannot take it, or has too little to do."""
    if facts.sizes.get(c.row.over, 0) < LEAST_ROWS:
        return None
    return next(iter(shortlist(kernel, c, facts, 1)), None)


def shortlist(kernel: ir.Kernel, c: Chain, facts: Facts, most: int = 8) -> list[Design]:
    """Legal designs that were good at some shape, the best guess for these sizes first; at most so many."""
    found: dict[Design, None] = {}
    for rows, groups, columns, way in _preferred(c, facts):
        design = fitted(kernel, c, facts, _base(c, rows, groups, columns) | _extras(c, groups, way))
        if design is not None:
            found[design] = None
        if len(found) == most:
            break
    return list(found)


def _preferred(c: Chain, facts: Facts) -> Iterator[tuple[int, int, int, str]]:
    """Rows, warpgroups, columns of a step, and whether blocks draw tiles or leave: by what was measured on an H200.

    Narrow sums want three warpgroups where there are many steps, wide ones two and as many columns as registers
    hold. Tiles of one length each, with many steps, are as well off in blocks that leave; others are drawn.
    """
    columns, rows = facts.sizes.get(c.step.over, _LONG), facts.sizes.get(c.row.over, _LONG)
    width = max(facts.sizes.get(c.width(d), 128) for d in c.second)
    even = c.step.stop is None
    ways = ("leave", "draw") if even and columns >= _LONG else ("draw", "leave")
    if width <= _NARROW:
        three = [(192, 3, 96, "leave" if even else "draw"), (192, 3, 96, "draw"), (192, 3, 112, ways[0])]
        two = [(128, 2, 128, way) for way in ways]
        many = columns >= _LONG // 2 and rows >= _LONG // 4
        yield from [*three, *two] if many else [*two, *three]
        yield 128, 2, 192, ways[0]
    yield from ((128, 2, 128, f"{way}{turns}") for turns in ("", _TOGETHER) for way in ways)
    for tile, groups in ((128, 2), (64, 1)):
        for count in (128, 112, 96, 80, 64, 32):
            yield from ((tile, groups, count, way) for way in ways)


_TOGETHER = ", together"  # warpgroups that take no turns
_NARROW, _LONG = 64, 4096
"""Columns of sums, and of scores, that count as narrow, and as long."""


def _base(c: Chain, rows: int, groups: int, columns: int) -> dict[str, Choice]:
    decisions: dict[str, Choice] = {f"atom.{d.name}": "wgmma" for d in c.dots}
    return decisions | {f"tile.{c.row.name}": rows, f"tile.{c.step.name}": columns, "warpgroups": groups, "stages": 2}


def _extras(c: Chain, groups: int, way: str) -> dict[str, Choice]:
    """Products that lag, turns, results by the copy engine; rows with many columns first."""
    decisions: dict[str, Choice] = {"overlap": True}
    if way.startswith("draw"):
        decisions |= {"persistent": True, "drawn": True}
    if groups > 1 and not way.endswith(_TOGETHER):
        decisions["schedule"] = "pingpong"
    if c.step.stop is not None:
        decisions["grid.descending"] = True
    return decisions | {f"store.{t}": "tma" for t in c.wide}


def fitted(kernel: ir.Kernel, c: Chain, facts: Facts, decisions: dict[str, Choice]) -> Design | None:
    """The design with as many stages as fit, and without what is not legal; None where that does not help."""
    stores = [n for n in decisions if n.startswith("store.")]
    for drop in ([], ["stages.item"], stores, [*stores, "stages.item"]):
        kept = {n: v for n, v in decisions.items() if n not in drop}
        for stages in range(MOST_STAGES, 1, -1):
            design = Design.of({**kept, "stages": stages})
            if not legal_chain(kernel, c, design, facts):
                return design
    return None


def draw_chain(c: Chain, facts: Facts, pick: Pick) -> Design:
    """A design of a chain, legal or not."""
    rows, groups = pick("shape", SHAPES)
    decisions = _base(c, rows, groups, pick("columns", COLUMNS))
    if pick("overlap", (True, False)):
        decisions["overlap"] = True
        if groups > 1 and pick("schedule", ("pingpong", "cooperative")) == "pingpong":
            decisions["schedule"] = "pingpong"
    if c.packed is not None and facts.sizes.get(c.packed.over, 1) > 1:
        packed = pick("packed", PACKS)
        if packed > 1:
            decisions |= {f"tile.{c.packed.name}": packed, f"tile.{c.row.name}": rows // packed}
    stay = pick("stay", ("drawn", "dealt", "leave"))
    if stay != "leave":
        decisions["persistent"] = True
    if stay == "drawn":
        decisions["drawn"] = True
    if stay != "leave" and pick("items", (2, 1)) == 2:
        decisions["stages.item"] = 2
    if c.step.stop is not None and pick("descending", (True, False)):
        decisions["grid.descending"] = True
    order = pick("order", ("row", "grouped"))
    if order == "grouped":
        decisions |= {"grid.order": order, "grid.group": pick("group", (4, 8, 16, 32))}
    if pick("store", ("tma", "direct")) == "tma":
        decisions |= {f"store.{t}": "tma" for t in c.wide}
    room = int(facts.machine.limit("shared_bytes_per_block"))
    r = ChainResources(c, Design.of(decisions), facts)
    most = max(2, min(MOST_STAGES, (room - r.shared_bytes) // (r.step_bytes + 64) + 2))
    decisions["stages"] = pick("stages", tuple(range(most, 1, -1)))
    return Design.of(decisions)


__all__ = ["COLUMNS", "PACKS", "SHAPES", "default_chain", "draw_chain", "fitted", "shortlist"]
