"""Designs of a product on a systolic array: the default one, whole ones drawn, and which are legal.

Decisions:

- `stationary`: what stands still in the cells: a tensor, or the value that carries the sum
- `tile.AXIS`: points of the axis in one fold: rows, columns, and how much streams through them
- `stages.fifo`: tiles that are fetched ahead; `stages.array`: tiles in the cells (2: the next one is shifted in while
  one computes); `stages.acc`: sets of sums (2: one is taken out while the other is made)
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence

from tilewright.design.default import Facts
from tilewright.design.design import Choice, Design
from tilewright.design.legality import Reason
from tilewright.design.mutation import Mutation
from tilewright.design.mutation_tiles import SetTile
from tilewright.design.pick import Pick
from tilewright.design.systolic.capacity import Room
from tilewright.design.systolic.mutations import HoldStill, SetStages
from tilewright.design.systolic.shape import shape
from tilewright.errors import IllegalDesign
from tilewright.language import ir

STAGES = ("stages.fifo", "stages.array", "stages.acc")


def default_systolic(kernel: ir.Kernel, facts: Facts) -> Design:
    """Whole folds, the longest stream that fits, everything that can overlap; IllegalDesign where no array helps."""
    room = _room(kernel, facts)
    if isinstance(room, str):
        raise IllegalDesign(f"{kernel.name} does not run on the array of {facts.machine.name}: {room}")
    return _folded(room, room.flows[0], room.most_cells, room.most_fifo)


def _room(kernel: ir.Kernel, facts: Facts) -> Room | str:
    found = shape(kernel)
    return found if isinstance(found, str) else Room(found, facts)


def _folded(room: Room, flow: str, cells: int, fifo: int) -> Design:
    sums = cells if flow == "os" or room.accumulators is None or room.accumulators > 1 else 1
    rows, columns, streamed = (a.name for a in room.shape.roles(flow))
    return Design.of({
        "stationary": room.shape.choices[flow],
        f"tile.{rows}": min(room.rows, room.size(0, flow)),
        f"tile.{columns}": min(room.columns, room.size(1, flow)),
        f"tile.{streamed}": _stream(room, flow, sums, fifo),
        "stages.fifo": fifo, "stages.array": cells, "stages.acc": sums,
    })  # fmt: skip


def _stream(room: Room, flow: str, sums: int, fifo: int) -> int:
    """How much streams: all that fits; where outputs stand still, a part of the sum that the queue holds."""
    if flow != "os":
        return room.streamed(flow, sums)
    step = max(1, min(room.size(2, flow), 256))
    if room.buffer is None:
        return step
    return max(1, min(step, room.buffer // ((room.rows + room.columns) * fifo * room.shape.product.itemsize)))


def draw_systolic(kernel: ir.Kernel, facts: Facts, pick: Pick) -> Design:
    """A whole design: a dataflow, how much overlaps, and a part of the longest stream."""
    room = _room(kernel, facts)
    if isinstance(room, str):
        return default_systolic(kernel, facts)
    flow = pick("stationary", room.flows)
    cells = pick("cells", tuple(range(room.most_cells, 0, -1)))
    fifo = pick("fifo", _halves(room.most_fifo))
    design = _folded(room, flow, cells, fifo)
    streamed = room.shape.roles(flow)[2].name
    tile = pick("stream", _halves(design.number(f"tile.{streamed}"))[:5])
    return Design.of({**dict(design.decisions), f"tile.{streamed}": tile})


def _halves(number: int) -> Sequence[int]:
    found = [number]
    while found[-1] > 1:
        found.append(found[-1] // 2)
    return found


def suggested_systolic(kernel: ir.Kernel, design: Design, facts: Facts) -> Iterator[Mutation]:
    """Every mutation that the array suggests, legal or not, in a fixed order."""
    room = _room(kernel, facts)
    if isinstance(room, str):
        return
    for flow in room.flows:
        yield HoldStill(
            _folded(room, flow, design.number("stages.array", 1), design.number("stages.fifo", 1)).decisions
        )
    for axis in room.shape.roles(room.shape.dataflow(design)):
        now = design.number(f"tile.{axis.name}", 1)
        most = facts.sizes[axis.over]
        yield from (SetTile(axis.name, n) for n in dict.fromkeys((2 * now, now // 2, most)) if 1 <= n <= most)
    for name in STAGES:
        now = design.number(name, 1)
        yield from (SetStages(name, n) for n in (now + 1, now - 1) if n >= 1)


# -------------------------------------------------------------------------------------------- legality
def legal_systolic(kernel: ir.Kernel, design: Design, facts: Facts) -> list[Reason]:
    """Every reason why an array cannot run `kernel` under `design`."""
    room = _room(kernel, facts)
    if isinstance(room, str):
        return [Reason("product", f"{kernel.name}: {room}", "an array multiplies two matrices and adds up")]
    return _form(room, design) or [*_fits(room, design)]


def _form(room: Room, design: Design) -> list[Reason]:
    product = room.shape.product
    known = ["stationary", *STAGES, *(f"tile.{a.name}" for a in (product.m, product.n, product.k))]
    found = []
    for name, value in design.decisions:
        if name not in known:
            near = difflib.get_close_matches(name, known, 1)
            hint = f"; did you mean {near[0]}?" if near else f"; there are {', '.join(known)}"
            found.append(_reason("names", f"{name}={value}: no decision of an array is called so{hint}"))
        elif name != "stationary" and not _counts(value):
            found.append(_reason("values", f"{name}={value}: takes a whole number, 1 or more"))
    held = design.get("stationary")
    if held not in [room.shape.choices[flow] for flow in room.flows]:
        those = " or ".join(f"{room.shape.choices[f]} ({f})" for f in room.flows)
        found.append(_reason("stationary", f"stationary={held}: the cells of {room.facts.machine.name} hold {those}"))
    return found


def _counts(value: Choice) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _fits(room: Room, design: Design) -> Iterator[Reason]:
    flow = room.shape.dataflow(design)
    rows, columns, streamed = (a.name for a in room.shape.roles(flow))
    most = {
        f"tile.{rows}": (room.rows, "rows of cells"), f"tile.{columns}": (room.columns, "columns of cells"),
        "stages.array": (room.most_cells, "tiles that the cells hold"),
        "stages.fifo": (room.most_fifo, "tiles that the queue holds"),
        "stages.acc": (room.most_cells if flow == "os" else 2, "sets of sums"),
    }  # fmt: skip
    for name, (limit, what) in most.items():
        if design.number(name, 1) > limit:
            yield _reason("cells", f"{name}={design.number(name)}: the array has {limit} {what}; take {limit} at most")
    sums = design.number("stages.acc", 1) * design.number(f"tile.{streamed}", 1)
    if flow != "os" and room.accumulators is not None and sums > room.accumulators:
        most_streamed = room.accumulators // design.number("stages.acc", 1)
        yield _reason(
            "accumulators",
            f"tile.{streamed}={design.number(f'tile.{streamed}', 1)} with stages.acc={design.number('stages.acc', 1)} "
            f"takes {sums} rows of accumulators of {room.accumulators}; take tile.{streamed}={most_streamed}",
        )
    if room.buffer is not None and (taken := room.buffered_bytes(design)) > room.buffer:
        points = design.number(f"tile.{streamed}", 1)
        fewer = points * room.buffer // taken
        yield _reason(
            "buffer",
            f"tile.{streamed}={points}: what streams takes {taken} bytes of the unified buffer's {room.buffer}; "
            + (f"take {fewer} or fewer" if fewer else "not even one fits: split the sum into several products"),
        )


_WHY = {
    "names": "a decision that nobody reads would be lost in silence",
    "values": "a decision has a value that the lowering understands",
    "stationary": "which operand the cells hold is built into the array",
    "cells": "a fold is no larger than the array",
    "accumulators": "a sum waits in its accumulator until all of its folds have streamed",
    "buffer": "an operand streams from the buffer, fold after fold",
}


def _reason(rule: str, message: str) -> Reason:
    return Reason(rule, message, _WHY[rule])


__all__ = ["default_systolic", "draw_systolic", "legal_systolic", "suggested_systolic"]
