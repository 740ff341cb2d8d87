"""Designs of a program on a dataflow machine: what may be decided, whole ones drawn, and which are well-formed.

Decisions, by the names of the tile program; what a design leaves open is placed by the machine (tiles that fit, copies
while there are tiles, units for the slowest stages), so that the empty design is the default one:

- `tile.AXIS`: points of the axis in one tile; `par.AXIS`: points of a parallel axis that one copy of the pipeline takes
- `buffer.VALUE`: a stage ends at the value; `carry.VALUE`: what a loop carries has one owner, or lies in a buffer
- `stages.VALUE`: slots of the buffer that a value crosses; `units.STAGE`: compute units of a stage (row_par)

Which stages there are, and what fits, is known once the program is lowered: whoever simulates a design says so.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence

from tilewright.design.dataflow.mutations import Carry, Cut, Deal, GiveUnits, Retile, SetDepth, SetUnits
from tilewright.design.default import Facts
from tilewright.design.design import Choice, Design
from tilewright.design.legality import Reason
from tilewright.design.mutation import Mutation
from tilewright.design.pick import Pick
from tilewright.language import ir, structure

CARRIED = ("owner", "buffer")
LARGEST_DRAWN = 512
"""Points of an axis in a tile that is drawn, at most; changes may lead further."""

_DEPTHS = 3  # slots that are drawn for a buffer, at most


def draw_dataflow(kernel: ir.Kernel, facts: Facts, pick: Pick) -> Design:
    """A whole design: tiles, how many copies, and what lies in buffers; the rest is left to the placement."""
    tiles = {a.name: pick(f"tile.{a.name}", _tiles(facts.size(kernel, a))) for a in _tiled(kernel)}
    decisions: dict[str, Choice] = {f"tile.{name}": points for name, points in tiles.items()}
    for axis in _dealt(kernel):
        step = 1 if axis.each else tiles[axis.name]
        share = pick(f"par.{axis.name}", (0, *_shares(facts.size(kernel, axis), step)))
        decisions |= {f"par.{axis.name}": share} if share else {}
    for value in _carried(kernel):
        how = pick(f"carry.{value}", ("", *CARRIED))
        decisions |= {f"carry.{value}": how} if how else {}
    return Design.of(decisions)


def suggested_dataflow(kernel: ir.Kernel, design: Design, facts: Facts) -> Iterator[Mutation]:
    """Every mutation that the program suggests, legal or not, in a fixed order."""
    for axis in _tiled(kernel):
        now, whole = design.number(f"tile.{axis.name}", 16), facts.size(kernel, axis)
        near = (2 * now, now // 2, -(-whole // max(1, -(-whole // now) - 1)), whole)
        yield from (Retile(axis.name, n) for n in dict.fromkeys(near) if 1 <= n <= whole)
    for axis in _dealt(kernel):
        step, whole = 1 if axis.each else design.number(f"tile.{axis.name}", 16), facts.size(kernel, axis)
        yield from (Deal(axis.name, n) for n in _shares(whole, step))
    for value in _made(kernel):
        yield Cut(value, not design.get(f"buffer.{value}"))
        now = design.number(f"stages.{value}", 0)
        yield from (SetDepth(value, n) for n in ((now + 1, now - 1) if now else (1, 2, 3, 4)) if n >= 1)
    for value in _carried(kernel):
        yield from (Carry(value, how) for how in CARRIED)
    yield from _units(design)


def _units(design: Design) -> Iterator[Mutation]:
    """Half of a stage's units to another one, a single one, and more or fewer of one alone."""
    stages = {name: design.number(f"units.{name}", 1) for name, _ in design.prefixed("units")}
    for stage, count in stages.items():
        yield from (SetUnits(stage, n) for n in (count + 1, count + max(1, count // 4)))
    for giver, count in stages.items():
        for taker in stages:
            if giver != taker:
                yield from (GiveUnits(giver, taker, n) for n in dict.fromkeys((count // 2, count // 8, 1)) if n)


# --------------------------------------------------------------------------------- what there is to decide
def _tiled(kernel: ir.Kernel) -> list[ir.Axis]:
    return [a for a in structure.axes(kernel).values() if not a.each]


def _dealt(kernel: ir.Kernel) -> list[ir.Axis]:
    """The axes of parallel loops of the kernel itself: ranges of them go to copies."""
    return [a for s in kernel.body if isinstance(s, ir.Loop) and s.parallel for a in s.axes]


def _carried(kernel: ir.Kernel) -> list[str]:
    """Values that some loop updates."""
    return list(dict.fromkeys(s.name for s in ir.walk(kernel.body) if isinstance(s, ir.Assign)))


def _made(kernel: ir.Kernel) -> list[str]:
    """Values that may cross from stage to stage."""
    cheap = (ir.Full, ir.Coord)
    return [name for name, let in structure.lets(kernel).items() if not isinstance(let.expr, cheap)]


def _tiles(whole: int) -> Sequence[int]:
    """Tiles of an axis, the largest first: all of it if that is short, and powers of two."""
    powers = [2**n for n in range(LARGEST_DRAWN.bit_length() - 1, 3, -1) if 2**n < whole]
    return (whole, *powers) if whole <= LARGEST_DRAWN or not powers else tuple(powers)


def _shares(whole: int, step: int) -> Sequence[int]:
    """Points that a copy takes: all, a half, a quarter and so on, whole tiles each."""
    tiles = -(-whole // step)
    counts = dict.fromkeys(-(-tiles // 2**n) for n in range(tiles.bit_length() + 1))
    return tuple(n * step for n in counts)


# -------------------------------------------------------------------------------------------- legality
def legal_dataflow(kernel: ir.Kernel, design: Design, facts: Facts) -> list[Reason]:
    """Every decision that no dataflow machine understands; what does not fit is found when the design is lowered."""
    return [*_form(kernel, design)]


def _form(kernel: ir.Kernel, design: Design) -> Iterator[Reason]:
    values = [*_made(kernel), *_carried(kernel)]
    kinds: dict[str, tuple[str, Sequence[str]]] = {
        "tile": ("axis with tiles", [a.name for a in _tiled(kernel)]),
        "par": ("parallel axis", [a.name for a in _dealt(kernel)]),
        "stages": ("value", values), "buffer": ("value", values), "carry": ("carried value", _carried(kernel)),
    }  # fmt: skip
    for name, choice in design.decisions:
        kind, _, what = name.partition(".")
        if kind != "units" and (kind not in kinds or not what):
            near = difflib.get_close_matches(name, [*kinds, "units"], 1, 0.4)
            those = f"; did you mean {near[0]}.NAME?" if near else f"; there are {', '.join(kinds)}, units"
            yield Reason("names", f"{name}={choice}: no decision of a dataflow machine is called so{those}", _NAMES)
        elif kind != "units" and what not in kinds[kind][1]:
            there = ", ".join(kinds[kind][1]) or "none"
            yield Reason(
                "names", f"{name}={choice}: {kernel.name} has no {kinds[kind][0]} {what}; it has {there}", _NAMES
            )
        elif message := _wrong(kind, choice):
            yield Reason(
                "values", f"{name}={choice}: {message}", "a decision has a value that the lowering understands"
            )
    yield from _shared(kernel, design)


_NAMES = "a decision that nobody reads would be lost in silence"


def _wrong(kind: str, choice: Choice) -> str | None:
    if kind == "carry":
        return None if choice in CARRIED else f"takes {' or '.join(CARRIED)}"
    if kind == "buffer":
        return None if choice is True else "takes true; leave it out for no buffer"
    whole = isinstance(choice, int) and not isinstance(choice, bool) and choice >= 1
    return None if whole else "takes a whole number, 1 or more"


def _shared(kernel: ir.Kernel, design: Design) -> Iterator[Reason]:
    """A copy takes whole tiles."""
    for axis in _dealt(kernel):
        share, tile = design.get(f"par.{axis.name}"), design.get(f"tile.{axis.name}", 16)
        if isinstance(share, int) and isinstance(tile, int) and not axis.each and share % tile:
            yield Reason(
                "shares", f"par.{axis.name}={share} is not whole tiles of tile.{axis.name}={tile}; take a multiple",
                "a ragged tile inside of a range would be one more shape of every stage",
            )  # fmt: skip


__all__ = ["CARRIED", "draw_dataflow", "legal_dataflow", "suggested_dataflow"]
