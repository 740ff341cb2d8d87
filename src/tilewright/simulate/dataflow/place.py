"""A good design of a program on a dataflow array at once: tiles that fit, copies, units for slow stages."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

from tilewright.design.design import Choice, Design
from tilewright.errors import IllegalDesign
from tilewright.language import ir, structure
from tilewright.lower.dataflow.fit import check_fit, footprint
from tilewright.lower.dataflow.stages import lower_dataflow
from tilewright.machines.dataflow import DataflowArray
from tilewright.simulate.dataflow.pipeline import Pipeline
from tilewright.simulate.dataflow.timing import Timing

LARGEST_TILE = 128


def default_dataflow(kernel: ir.Kernel, sizes: Mapping[str, int], array: DataflowArray) -> Design:
    """The largest square tiles that fit; then copies, while there are tiles; then units for the slowest stages.

    Raises IllegalDesign, with what to split, where not even tiles of one element fit.
    """
    return completed(kernel, sizes, array, Design())


def completed(kernel: ir.Kernel, sizes: Mapping[str, int], array: DataflowArray, design: Design) -> Design:
    """The design with what it leaves open placed: tiles, copies, units. One that gives units has decided it all.

    Raises IllegalDesign where tiles are open and none fit; what is decided is not judged.
    """
    decided = {name.partition(".")[0] for name, _ in design.decisions}
    if "units" in decided:
        return design
    decisions = dict(design.decisions)
    if "tile" not in decided:
        decisions = _with_tiles(kernel, sizes, array, decisions)
    if "par" not in decided:
        decisions = _with_copies(kernel, sizes, array, decisions)
    return with_units(kernel, sizes, array, decisions)


def _with_tiles(
    kernel: ir.Kernel, sizes: Mapping[str, int], array: DataflowArray, decisions: dict[str, Choice]
) -> dict[str, Choice]:
    """The largest square tiles that fit."""
    tile, lengths = LARGEST_TILE, {a.name: sizes.get(a.over, 1) for a in structure.axes(kernel).values() if not a.each}
    while True:
        tiles: dict[str, Choice] = {f"tile.{name}": max(1, min(tile, n)) for name, n in lengths.items()}
        try:
            check_fit(lower_dataflow(kernel, Design.of({**decisions, **tiles}), array.name), sizes, array)
            return {**decisions, **tiles}
        except IllegalDesign:
            if tile == 1:
                raise
            tile //= 2


def _with_copies(
    kernel: ir.Kernel, sizes: Mapping[str, int], array: DataflowArray, decisions: dict[str, Choice]
) -> dict[str, Choice]:
    """As many copies of the first parallel loop as leave each a tile or more, and half of all units free."""
    loop = next((s for s in kernel.body if isinstance(s, ir.Loop) and s.parallel), None)
    if loop is None:
        return decisions
    one = footprint(lower_dataflow(kernel, Design.of(decisions), array.name), sizes)
    room = min(array.compute_units // 2 // one.compute_units(), array.memory_units // one.memory_units(array))
    for axis in loop.axes:
        length, step = sizes[axis.over], 1 if axis.each else Design.of(decisions).number(f"tile.{axis.name}", 16)
        tiles = math.ceil(length / step)
        copies = max(1, min(room, tiles))
        if copies > 1:
            decisions = {**decisions, f"par.{axis.name}": math.ceil(tiles / copies) * step}
            room //= copies
    return decisions


def with_units(
    kernel: ir.Kernel, sizes: Mapping[str, int], array: DataflowArray, decisions: Mapping[str, Choice]
) -> Design:
    """The units that are left go to the stages in proportion to what each takes with one unit, all firings together."""
    design = Design.of(decisions)
    lowered = lower_dataflow(kernel, design, array.name)
    span, one = Timing(lowered, sizes, array).whole(), footprint(lowered, sizes)
    spare = array.compute_units // one.copies - one.compute_units() // one.copies
    if span.schedule is None or spare <= 0:
        return design
    stages = dict(_stages(span.schedule.pipeline))
    whole = sum(stages.values()) or 1
    more = {f"units.{name}": 1 + int(spare * time / whole) for name, time in stages.items()}
    return Design.of({**decisions, **{name: units for name, units in more.items() if units > 1}})


def _stages(pipeline: Pipeline, firings: int = 1) -> Iterator[tuple[str, float]]:
    """Each stage that is no pipeline itself, with the time that all its firings take."""
    for stage in pipeline.stages:
        if stage.inner is None:
            yield stage.name, firings * sum(stage.times)
        else:
            yield from _stages(stage.inner, firings * stage.firings)
