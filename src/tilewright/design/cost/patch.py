"""What an access touches while some axes move: bytes, rows, and how much of a cache its lines can use."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from tilewright.design.cost.rates import LINE, WAYS
from tilewright.design.cost.schedule import Access


@dataclass(frozen=True)
class Patch:
    """`rows` runs of `run` bytes, `stride` bytes apart; `touched` counts whole cache lines."""

    rows: float
    run: float
    stride: float
    touched: float

    def held(self, capacity: int) -> float:
        """Bytes of a cache of `capacity` that it takes: more than it touches where its rows start in few sets.

        Rows a power of two apart start in the same sets. With `sets` sets and rows of `lines` lines at a distance of
        `step` lines, rows / (sets / gcd(step, sets)) of them meet in each; each set holds WAYS lines.
        """
        if self.rows <= 1 or self.stride <= 0 or self.stride % LINE:
            return self.touched
        sets = max(1, capacity // (LINE * WAYS))
        starts = sets // math.gcd(int(self.stride) // LINE, sets)
        lines = max(1.0, self.run / LINE)
        usable = min(float(sets), starts * lines)
        return self.touched if self.rows <= starts else self.touched * max(1.0, sets / usable)


def patch(access: Access, moving: Mapping[str, float]) -> Patch:
    """What `access` touches while each axis covers `moving[axis]` points."""
    extents = [1.0 if i is None else moving[i] for i in access.index]
    if access.unit is None:
        count = math.prod(extents) * access.itemsize
        return Patch(1, count, 0, max(float(LINE), count))
    run = extents[access.unit] * access.itemsize
    stride, rows = access.dims[access.unit] * access.itemsize, 1.0
    whole = extents[access.unit] >= access.dims[access.unit]
    for d in range(len(extents) - 1, -1, -1):
        if d == access.unit:
            continue
        if rows == 1 and (
            whole or extents[d] == 1
        ):  # rows that follow each other are one; a single row moves no further
            run *= extents[d]
            whole = whole and extents[d] >= access.dims[d]
            stride *= access.dims[d]
        else:
            rows *= extents[d]
    lines = max(1.0, run / LINE)
    return Patch(rows, run, float(stride), rows * lines * LINE)
