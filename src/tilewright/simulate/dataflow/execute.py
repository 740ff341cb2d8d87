"""A scheduled program executed stage by stage, in the order and with the buffers of its schedule.

Every buffer of a pipeline is as many arrays as it has slots; a slot is poisoned when it is filled anew. A schedule
that lets a stage run too far ahead, or a buffer that is too shallow, gives wrong values here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from tilewright.language import ir
from tilewright.language.interpreter import Array, Execution
from tilewright.simulate.dataflow.schedule import Schedule
from tilewright.simulate.dataflow.timing import Lengths, Timing


def execute(timing: Timing, tensors: Mapping[str, Array], scalars: Mapping[str, float] | None = None) -> None:
    """Run the program that `timing` describes on `tensors`, writing its results into them; as `interpreter.run`."""
    state = _Machine.of(timing.kernel, tensors, scalars or {}, 16, exact=False)
    state.timing = timing
    state.block(timing.kernel.body)


class _Machine(Execution):
    """The interpreter, with the stages of a loop executed as their schedule says."""

    timing: Timing

    def loop(self, axes: tuple[ir.Axis, ...], body: tuple[ir.Stmt, ...], parallel: bool) -> None:
        if not any(isinstance(s, ir.Role) for s in body):
            super().loop(axes, body, parallel)
            return
        outside, iterations = self.now, list(self.iterations(axes))
        trips: list[Lengths] = [{a: len(tile) for a, (tile, _, _) in each.items()} for each in iterations]
        schedule = self.timing.pipeline(axes[-1].name, body, trips).schedule if trips else None
        for firing, j in _order(schedule):
            self.now = iterations[firing]
            self.fire(body, j, firing)
        self.now = outside

    def fire(self, body: tuple[ir.Stmt, ...], j: int, firing: int) -> None:
        """One firing of role j, with the slots of its iteration in place of the buffers."""
        allocs = [s for s in body if isinstance(s, ir.Alloc)]
        role = [s for s in body if isinstance(s, ir.Role)][j]
        for alloc in allocs:
            depth = ir.note(alloc.notes, "stages", 1)
            assert isinstance(depth, int)
            slot = f"{alloc.name}#{firing % depth}"
            if _fills(role, alloc.name):
                self.buffers[slot] = self.poisoned(alloc)
            if slot in self.buffers:
                self.buffers[alloc.name], self.dims[alloc.name] = self.buffers[slot], alloc.dims
        self.block(role.body)

    def poisoned(self, alloc: ir.Alloc) -> Array:
        poison: Any = math.nan if alloc.dtype.kind == "float" else 0
        return np.full([self.extent(d) for d in alloc.dims], poison, self.dtype(alloc.dtype))


def _order(schedule: Schedule | None) -> list[tuple[int, int]]:
    """(firing, stage) by start; what starts at once is independent, or goes by firing and stage."""
    if schedule is None:
        return []
    starts = [(at, i, j) for j, row in enumerate(schedule.start) for i, at in enumerate(row)]
    return [(i, j) for _, i, j in sorted(starts)]


def _fills(role: ir.Role, buffer: str) -> bool:
    stored = [s.ref.buffer for s in ir.walk(role.body) if isinstance(s, ir.Store)]
    return buffer in stored + [s.dst.buffer for s in ir.walk(role.body) if isinstance(s, ir.Copy)]
