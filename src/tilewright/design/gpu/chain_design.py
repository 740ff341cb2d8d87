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
    for decisions in _preferred(c, facts):
        design = fitted(kernel, c, facts, decisions)
        if design is not None:
            found[design] = None
        if len(found) == most:
            break
    return list(found)


def _preferred(c: Chain, facts: Facts) -> Iterator[dict[str, Choice]]:
    """Decisions by what was measured on an H200 (notes 0015), the best guess first.

    Narrow sums want three warpgroups, unless their tiles of 192 rows do not fit the rows or few steps end in a mask;
    they take turns. Two warpgroups part by themselves where rows lie ready ahead, but for sums that are very wide.
    Tiles are drawn; where they are uneven and long, eight heads walk together. Where rows of unlike ranges may share a
    tile, fewer rows of more heads read less that only others see (notes 0022).
    """
    rows = facts.sizes.get(c.row.over, _LONG)
    width = max(facts.sizes.get(c.width(d), 128) for d in c.second)
    even = c.step.stop is None
    # Where results do not leave by the engine, the order of groups takes a register more than the producer has.
    grouped = () if even or rows < _LONG // 2 or width % 32 else ("grouped",)
    turns = ("together",) if width <= _WIDE else ()
    three, two = _shape(c, 192, 3, 128, *grouped), _shape(c, 128, 2, 128, *turns, *grouped)
    own = [_shape(c, 192, 3, 128, *grouped, "own"), _shape(c, 192, 3, 128, "own")] if width <= _NARROW else []
    yield from _side_by_side(c, facts)
    if c.ranged:
        yield from _packed(c, facts, *turns, *grouped)
        yield from own
    if width <= _NARROW:
        fits = -(-rows // 192) * 192 * _WASTE[0] <= rows * _WASTE[1]
        yield from (three, two) if fits and (even or rows >= _LONG // 2) else (two, three)
        yield from own
    yield two
    if rows <= _FEW:
        yield _shape(c, 64, 1, 128)
    others: tuple[tuple[str, ...], ...] = (("together",), (), ("grouped",), ("own", *turns), ("leave",))
    yield from (_shape(c, 128, 2, 128, *words) for words in others)
    for tile, groups in ((128, 2), (64, 1)):
        yield from (_shape(c, tile, groups, count, *turns) for count in (128, 112, 96, 80, 64, 32))


def _packed(c: Chain, facts: Facts, *words: str) -> Iterator[dict[str, Choice]]:
    """Tiles with a part of the rows of four heads that share their keys, or of two, if heads come in such numbers."""
    heads = facts.sizes.get(c.packed.over, 1) if c.packed else 1
    many = next((n for n in (4, 2) if heads % n == 0), 1)
    if c.packed is not None and many > 1:
        yield _shape(c, 128, 2, 128, *words) | {f"tile.{c.packed.name}": many, f"tile.{c.row.name}": 128 // many}


def _side_by_side(c: Chain, facts: Facts) -> Iterator[dict[str, Choice]]:
    """Tiles of few rows, with several heads in each that share their keys: else each head reads the keys again."""
    rows = facts.sizes.get(c.row.over, _LONG)
    heads = facts.sizes.get(c.packed.over, 1) if c.packed else 1
    height = next((n for n in (16, 32, _FEW) if rows <= n), 0)
    for groups in (1, 2) if height else ():
        many = 64 * groups // height
        if c.packed is not None and 1 < many <= heads:
            tile: dict[str, Choice] = {f"tile.{c.packed.name}": many, f"tile.{c.row.name}": height}
            yield _shape(c, 64 * groups, groups, 128, "together") | tile


_NARROW, _WIDE, _FEW, _LONG = 64, 128, 64, 4096
"""Columns of sums that count as narrow, and as not very wide; rows that count as few, and as many."""
_WASTE = (5, 6)
"""Rows that exist, of those of all tiles, at least."""


def _shape(c: Chain, rows: int, groups: int, columns: int, *words: str) -> dict[str, Choice]:
    """Tiles; products that lag, results by the copy engine, rows with many columns first; and what `words` say.

    `leave`: blocks leave after a tile, else they draw the next one, whose rows come ahead. `together`: no turns.
    `grouped`: heads walk together. `own`: steps by a warpgroup's own rows.
    """
    decisions = _base(c, rows, groups, columns) | {"overlap": True}
    if "leave" not in words:
        decisions |= {"persistent": True, "drawn": True, "stages.item": 2}
    if groups > 1 and "together" not in words:
        decisions["schedule"] = "pingpong"
    if "grouped" in words:
        decisions |= {"grid.order": "grouped", "grid.group": 8}
    if "own" in words and groups > 1:
        decisions["own"] = True
    if c.step.stop is not None:
        decisions["grid.descending"] = True
    return decisions | {f"store.{t}": "tma" for t in c.wide}


def _base(c: Chain, rows: int, groups: int, columns: int) -> dict[str, Choice]:
    decisions: dict[str, Choice] = {f"atom.{d.name}": "wgmma" for d in c.dots}
    return decisions | {f"tile.{c.row.name}": rows, f"tile.{c.step.name}": columns, "warpgroups": groups, "stages": 2}


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
    if groups > 1 and pick("own", (True, False)):
        decisions["own"] = True
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
