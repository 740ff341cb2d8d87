"""Streams on a GPU: dots over whole dimensions, of rows that stay with a range that passes by (attention).

The range is dealt to blocks and warps in parts (`part.AXIS`) where what it carries can be joined. Each warp has its
keys to itself: it multiplies by mma.sync what it loads, or by FMA where elements are wide.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from tilewright.design.default import Facts
from tilewright.design.design import Design
from tilewright.design.gpu.shape import power
from tilewright.language import ir, structure
from tilewright.language.recurrences import carried

ROWS = 16
"""Rows of a result of mma.sync: what stays with a warp."""

KEYS = 16
"""Points of the range in one step of mma.sync, of which the second dot sums."""

MOST_STAGES = 8
"""Steps of a range that may be on their way at once."""


def dealt_loop(nest: structure.Nest) -> ir.Loop | None:
    """The only serial loop of a nest's body, over one axis."""
    return nest.serial[0] if len(nest.serial) == 1 and len(nest.serial[0].axes) == 1 else None


def why_not_joined(nest: structure.Nest, loop: ir.Loop) -> str | None:
    """Why what two ranges of a loop carry cannot be made one."""
    at = nest.loop.body.index(loop)
    found = carried(loop, {s.name: s for s in nest.loop.body[:at] if isinstance(s, ir.Let)})
    return found if isinstance(found, str) else None


def why_no_fragments(kernel: ir.Kernel, nest: structure.Nest, facts: Facts) -> str | None:
    """Why dots cannot be multiplied by mma.sync on registers."""
    lets = structure.lets(kernel)
    rows = {a.name for a in nest.loop.axes if not a.each}
    for dot in nest.dots:
        assert isinstance(dot.expr, ir.Dot)
        first, second = lets[dot.expr.a], lets[dot.expr.b]
        load = structure.source(lets, second.name)
        if (
            not {first.type.dtype.name, second.type.dtype.name} <= {"bf16", "f16"}
            or first.type.dtype != second.type.dtype
        ):
            return f"{dot.name} multiplies {first.type.dtype} by {second.type.dtype}, not two of bf16 or f16"
        if not isinstance(load.expr, ir.Load) or len(second.type.axes) != 2:
            return f"{second.name} is no matrix as it lies in memory"
        if set(first.type.axes) - {dot.expr.axis} != rows:
            return f"{first.name} does not have the rows {', '.join(sorted(rows))}"
        unknown = [a for a in second.type.axes if a in kernel.dims and not facts.sizes.get(a)]
        if unknown:
            return f"the size of {unknown[0]} is not known"
    return None


def has_copy_engine(facts: Facts) -> bool:
    """Whether the machine copies boxes of tensors by itself."""
    return "wgmma" in {a.name.partition(".")[0] for a in facts.machine.atoms}


def lets_ahead(kernel: ir.Kernel, nest: structure.Nest) -> list[ir.Let]:
    """Loads of the innermost loop that dots read."""
    lets, dots = structure.lets(kernel), [d.expr for d in nest.dots if isinstance(d.expr, ir.Dot)]
    read = {structure.source(lets, n).name for d in dots for n in (d.a, d.b)}
    inner = [s for loop in ir.walk((nest.serial[0],)) if isinstance(loop, ir.Loop) for s in loop.body]
    return [s for s in inner if isinstance(s, ir.Let) and isinstance(s.expr, ir.Load) and s.name in read]


def loads_ahead(kernel: ir.Kernel) -> list[ir.Load]:
    """Loads of the innermost loop that dots read: those that may be on their way some steps ahead."""
    nest = structure.nests(kernel)[0]
    return [let.expr for let in lets_ahead(kernel, nest) if isinstance(let.expr, ir.Load)] if nest.serial else []


def names_carried(nest: structure.Nest) -> set[str]:
    """Values of the range's loop that go on from step to step."""
    return {s.name for s in ir.walk(nest.serial[0].body) if isinstance(s, ir.Assign)}


def step_bytes(let: ir.Let, design: Design, facts: Facts) -> int:
    """Of one tile, at the most: whole dimensions are padded to rows of 128 bytes."""
    row = 128 // let.type.dtype.bytes
    points = (design.number(f"tile.{a}") or -(-facts.sizes.get(a, 1) // row) * row for a in let.type.axes)
    return math.prod(points) * let.type.dtype.bytes


def registers_of_warp(kernel: ir.Kernel, design: Design, facts: Facts) -> Iterator[tuple[str, int]]:
    """Elements of each value that a lane holds where a warp works alone."""
    lanes = set(design.names("lanes"))
    mma = any(atom == "mma" for _, atom in design.prefixed("atom"))
    for let in structure.lets(kernel).values():
        sizes = {a: design.number(f"tile.{a}") or facts.sizes.get(a, 1) for a in let.type.axes}
        spread = 32 if mma else min(32, math.prod(power(n) for a, n in sizes.items() if a in lanes))
        yield let.name, math.prod(sizes.values()) // spread


__all__ = [
    "KEYS", "MOST_STAGES", "ROWS",
    "dealt_loop", "has_copy_engine", "lets_ahead", "loads_ahead", "names_carried", "registers_of_warp", "step_bytes",
    "why_no_fragments", "why_not_joined",
]  # fmt: skip
