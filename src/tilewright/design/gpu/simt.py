"""Designs of programs whose threads all do the same: elementwise operators, rows, streams, and products by FMA.

Three shapes of nests, told apart by what they contain: *products* (a serial loop that a dot sums over, between two axes
of a parallel loop), *streams* (dots over whole dimensions), and *rows* (no dot).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TypeGuard

from tilewright.design.default import Facts
from tilewright.design.design import Choice, Design
from tilewright.design.early import early_loads
from tilewright.design.gpu.fma import default_fma
from tilewright.design.gpu.mma import legal_panels, staged_product
from tilewright.design.gpu.product import Product, product
from tilewright.design.gpu.row_rules import broken_rules
from tilewright.design.gpu.rows import default_rows, draw_rows
from tilewright.design.gpu.shape import VECTOR, Shape, power
from tilewright.design.gpu.straight import is_straight, legal_straight
from tilewright.design.gpu.stream import registers_of_warp
from tilewright.design.gpu.stream_default import default_stream
from tilewright.design.gpu.stream_legality import broken_parts
from tilewright.design.hold import held_rows
from tilewright.design.legality import Reason
from tilewright.design.pick import Pick
from tilewright.design.twins import twins
from tilewright.language import ir, structure


def default_simt(kernel: ir.Kernel, facts: Facts) -> Design:
    """A legal design of any program of one nest."""
    nest = structure.nests(kernel)[0]
    shape = Shape(kernel, nest, facts)
    found = product(kernel)
    if not isinstance(found, str) and (staged := staged_product(found, facts, _reads_more(kernel, found))):
        return Design.of(staged)
    if not nest.dots:
        return default_rows(shape)
    decisions = default_fma(shape) if shape.is_product else default_stream(shape)
    return Design.of({f"atom.{d.name}": "fma" for d in nest.dots} | shape.widths() | decisions)


def draw_simt(kernel: ir.Kernel, facts: Facts, pick: Pick) -> Design:
    """A whole design: drawn where the program is one of rows, else its default one."""
    nest = structure.nests(kernel)[0]
    return default_simt(kernel, facts) if nest.dots else draw_rows(Shape(kernel, nest, facts), pick)


def _reads_more(kernel: ir.Kernel, p: Product) -> bool:
    """Whether tensors that are no operands of dots are read."""
    return any(ref.buffer not in {o.tensor for o in p.operands} for _, ref in structure.loads(kernel))


# ------------------------------------------------------------------------------------------------- legality
_PREFIXES = ("tile", "unroll", "split", "vec", "cache", "atom", "engine", "keep", "early", "hold", "part")
_SINGLE = ("warps", "lanes", "stages", "swap", "turns", "resident", "grid.order", "grid.group", "persistent")
MOST_WARPS = 32
MOST_REGISTERS = 128


def legal_simt(kernel: ir.Kernel, design: Design, facts: Facts) -> list[Reason]:
    """Every reason why `design` cannot run `kernel`; an empty list for a legal design."""
    if is_straight(design):
        return legal_straight(kernel, design, facts)
    found = [Reason("form", m, "a decision that nobody reads would be lost in silence") for m in _form(kernel, design)]
    found = found or [
        Reason("threads", m, "threads are dealt to axes by bits of their number") for m in _threads(kernel, design)
    ]
    if dict(design.prefixed("engine")) and not dict(design.prefixed("part")):
        return found or legal_panels(kernel, design, facts)
    found = found or [
        Reason("parts", m, "each block and each warp begins anew, and what they have is joined behind a barrier")
        for m in broken_parts(kernel, design, facts)
    ]
    found = found or broken_rules(kernel, design, facts)
    return found or [
        Reason("registers", m, "a tile lies in registers, all of it") for m in _registers(kernel, design, facts)
    ]


def _form(kernel: ir.Kernel, design: Design) -> Iterator[str]:
    axes = {a.name for a in structure.axes(kernel).values() if not a.each}
    tensors = {p.name for p in kernel.params if p.dims is not None}
    dots = {v.name for v in structure.lets(kernel).values() if isinstance(v.expr, ir.Dot)}
    known = dict.fromkeys(("tile", "unroll", "split"), axes) | dict.fromkeys(("vec", "cache", "engine"), tensors)
    known |= {"atom": dots, "keep": set(twins(kernel)), "early": set(early_loads(kernel))}
    known["hold"] = set(held_rows(kernel))
    known["part"] = set(structure.axes(kernel))
    if len(structure.nests(kernel)) != 1:
        yield f"{kernel.name} has {len(structure.nests(kernel))} loops over the grid; write one kernel for each"
    for name, value in design.decisions:
        prefix, _, what = name.partition(".")
        if name in _SINGLE:
            continue
        if prefix not in _PREFIXES:
            yield f"{name}={value}: no decision is called so; there are {', '.join((*_PREFIXES, *_SINGLE))}"
        elif what not in known[prefix]:
            there = ", ".join(sorted(known[prefix])) or "none"
            yield f"{name}={value}: {kernel.name} has no such {prefix}; it has {there}"
        elif prefix in ("tile", "unroll", "split", "vec") and not _ispower(value):
            yield f"{name}={value}: takes a power of two"


def _ispower(value: Choice | None) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1 and value & (value - 1) == 0


def _threads(kernel: ir.Kernel, design: Design) -> Iterator[str]:
    warps, resident = design.get("warps", 4), design.get("resident", 1)
    if not _ispower(warps) or warps > MOST_WARPS:
        yield f"warps={warps}: takes a power of two up to {MOST_WARPS}"
    elif not isinstance(resident, int) or not 1 <= resident <= 64 // design.number("warps", 4):
        yield f"resident={resident}: takes 1 to {64 // design.number('warps', 4)} blocks of {warps} warps"
    if design.get("turns") and not dict(design.prefixed("part")):
        yield "turns: warps take the steps of a part in turns; add part.AXIS, or drop the decision"
    lanes = design.get("lanes", ())
    known = {a for let in structure.lets(kernel).values() for a in let.type.axes} | set(structure.axes(kernel))
    if not isinstance(lanes, tuple) or len(set(lanes)) != len(lanes) or not set(lanes) <= known:
        yield f"lanes={lanes}: takes distinct axes that values have: {', '.join(sorted(known))}"
    for tensor, elements in design.prefixed("vec"):
        most = VECTOR // kernel.param(tensor).dtype.bytes
        if isinstance(elements, int) and elements > most:
            yield f"vec.{tensor}={elements}: an access moves {VECTOR} bytes, {most} elements; take that or less"


def _registers(kernel: ir.Kernel, design: Design, facts: Facts) -> Iterator[str]:
    if dict(design.prefixed("part")):
        for name, held in registers_of_warp(kernel, design, facts):
            if held > MOST_REGISTERS:
                yield f"{name} has {held} elements a lane of its warp; take smaller tiles: {MOST_REGISTERS} at most"
        return
    threads = 32 * design.number("warps", 4)
    lanes = set(design.names("lanes"))
    for let in structure.lets(kernel).values():
        sizes = {a: design.number(f"tile.{a}") or facts.sizes.get(a, 1) for a in let.type.axes}
        points = math.prod(sizes.values())
        spread = min(threads, math.prod(power(n) for a, n in sizes.items() if a in lanes))
        if points > MOST_REGISTERS * spread:
            tiles = ", ".join(f"tile.{a}={n}" for a, n in sizes.items())
            yield f"{let.name} has {points // spread} elements a thread ({tiles}); {MOST_REGISTERS} is the most"


__all__ = ["default_simt", "draw_simt", "legal_simt"]
