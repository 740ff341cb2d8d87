"""Stalls of an array behind double-buffered scratchpads of limited size and bandwidth, as SCALE-Sim 3 counts them.

Half of each scratchpad for operands is active, the other half is filled ahead in the order in which the array first
asks; an element that is not in the active half turns the halves over, again and again until it is there, and the array
waits for the fill. Results collect in a third one, half of which is emptied whenever more than half is full.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from tilewright.simulate.systolic.plan import Plan, Range, ranges

Ids = npt.NDArray[np.int64]

_SETS = 100  # a scratchpad is looked up in so many sets
NOTHING = -1


@dataclass(frozen=True)
class Scratchpads:
    """Bytes of each of the three, and elements a cycle between each and memory."""

    bytes: int = 64 * 1024
    bandwidth: int = 10


def stalled(plan: Plan, pads: Scratchpads) -> tuple[int, int]:
    """The cycles of a plan behind scratchpads, and how many of them the array waits."""
    moving, still = _operands(plan)
    reads = (_Reads.of(pads, moving.order), _Reads.of(pads, still.order))
    writes = _Writes(pads)
    total = waited = row = 0
    for fold in _folds(plan):
        demands = [read.sets[ids] for read, ids in zip(reads, (moving.asked(fold), still.asked(fold)), strict=True)]
        missing = [read.misses(sets) for read, sets in zip(reads, demands, strict=True)]
        for at, results in enumerate(_results(plan, fold)):
            now, waits = row + waited, [0]
            for n, read in enumerate(reads):
                if missing[n][at]:
                    waits.append(read.serve(demands[n][at], now))
                    missing[n] = read.misses(demands[n])
            waits.append(writes.serve(results, now))
            total = max(total, now + waits[-1])
            waited += max(waits[1:])
            row += 1
    return total, waited


# -------------------------------------------------------------------------------------- scratchpads
@dataclass
class _Reads:
    """A scratchpad of operands: the set that each element is in, and the window of sets that are active."""

    sets: Ids  # by element; the last one, for no element, is in no set
    count: int
    active: int
    ahead: int
    fill: int  # cycles to fill one half
    start: int = 0
    filled: int = -1

    @classmethod
    def of(cls, pads: Scratchpads, order: Ids) -> _Reads:
        """A scratchpad that fetches the elements of `order`, in that order."""
        half, each = math.ceil(pads.bytes / 2), math.ceil(pads.bytes / _SETS)
        sets = np.full(order.size + 1, NOTHING)
        sets[order] = np.arange(order.size) // each
        count, most = order.size // each + 1, math.ceil(half / each)
        active = min(count, most)
        return cls(sets, count, active, min(count - active, most), math.ceil((pads.bytes - half) / pads.bandwidth) + 1)

    def misses(self, sets: Ids) -> list[bool]:
        """Which rows ask for something that is not active."""
        outside = (sets != NOTHING) & ((sets - self.start) % self.count >= self.active)
        found: list[bool] = outside.any(axis=1).tolist()
        return found

    def serve(self, asked: Ids, now: int) -> int:
        """Cycles that a row waits; as in the tool, a late fill counts twice, and an early one is taken off."""
        latency = 1
        for wanted in asked[asked != NOTHING].tolist():
            while (wanted - self.start) % self.count >= self.active:
                self.start = (self.start + self.ahead) % self.count
                self.filled += self.fill
                late = self.filled - (now + latency)
                latency += late + max(late, 0)
        return latency - 1


@dataclass
class _Writes:
    """A scratchpad of results: what has come in since lines were last closed, and closed lines that wait."""

    pads: Scratchpads
    free: int = 0
    open: int = 0
    lines: list[int] = field(default_factory=list)
    emptied: int = 0  # when the half that is being emptied is empty

    def __post_init__(self) -> None:
        self.free = self.pads.bytes

    def serve(self, results: int, now: int) -> int:
        """Cycles that a row of results waits."""
        waited, half = 0, self.pads.bytes // 2
        for _ in range(results):
            self.free -= 1
            self.open += 1
            if now + waited < self.emptied:
                if self.free <= 0:
                    waited = self.emptied - now
            elif self.free < half:
                self._empty(now + waited)
        return waited

    def _empty(self, now: int) -> None:
        """Close the lines that are open, and let as many leave as half the scratchpad holds."""
        width = self.pads.bandwidth
        whole, rest = divmod(self.open, width)
        self.lines += [width] * whole + [rest] * (rest > 0)
        self.open = 0
        leaving = self.lines[: math.ceil(self.pads.bytes // 2 / width)]
        self.lines = self.lines[len(leaving) :]
        self.free += width * (len(leaving) - 1) + leaving[-1]
        self.emptied = now + len(leaving) - 1


# ------------------------------------------------------------------------------- what the array asks
@dataclass(frozen=True)
class _Fold:
    """The number of a fold along rows and along columns, and what they cover."""

    rows: Range
    columns: Range


def _folds(plan: Plan) -> Iterator[_Fold]:
    """In the order of the tool: columns outside, rows inside."""
    array = plan.array
    for columns in ranges(plan.sizes[1], array.columns):
        for rows in ranges(plan.sizes[0], array.rows):
            yield _Fold(rows, columns)


@dataclass(frozen=True)
class _Operand:
    """An operand [rows, columns] of element numbers; `order`: as fetched; `asked`: [cycles, lanes] in a fold."""

    order: Ids
    asked: Any


def _operands(plan: Plan) -> tuple[_Operand, _Operand]:
    """What streams from the left, and what stands still (or streams from above)."""
    rows, columns, steps = plan.sizes
    r, c, none = plan.array.rows, plan.array.columns, NOTHING
    left = np.arange(rows * steps).reshape(steps, rows)  # a step of each row of cells
    if plan.flow == "os":
        above = np.arange(columns * steps).reshape(steps, columns)
        return (
            _Operand(_diagonal(left, r), lambda f: _skewed(left[:, slice(*f.rows)], r, 0, c - 1)),
            _Operand(_diagonal(above, c), lambda f: _skewed(above[:, slice(*f.columns)], c, 0, r - 1)),
        )
    still = np.arange(rows * columns).reshape(rows, columns)

    def loaded(fold: _Fold) -> Ids:
        cells = np.full((2 * r + c + steps - 2, c), none)
        tile = still[slice(*fold.rows), slice(*fold.columns)]
        cells[r - tile.shape[0] : r, : tile.shape[1]] = tile[::-1]
        return cells

    order = np.concatenate([still[:, slice(*each)].ravel() for each in ranges(columns, c)])
    return (
        _Operand(_diagonal(left, r), lambda f: _skewed(left[:, slice(*f.rows)], r, r, c - 1)),
        _Operand(order, loaded),
    )


def _skewed(tile: Ids, lanes: int, before: int, after: int) -> Ids:
    """A tile [steps, lanes] as it enters, a cycle later in each lane; nothing `before` it and `after` it."""
    steps, used = tile.shape
    asked = np.full((before + steps + after + lanes - 1, lanes), NOTHING)
    for lane in range(used):
        asked[before + lane : before + lane + steps, lane] = tile[:, lane]
    return asked


def _diagonal(operand: Ids, lanes: int) -> Ids:
    """Tiles of an operand one below the other, along their diagonals, each from its lower end."""
    tiles = []
    for lo, hi in ranges(operand.shape[1], lanes):
        tile = np.full((operand.shape[0], lanes), NOTHING)
        tile[:, : hi - lo] = operand[:, lo:hi]
        tiles.append(tile)
    stacked = np.concatenate(tiles)
    row, lane = np.indices(stacked.shape)
    order = np.lexsort((-row.ravel(), (row + lane).ravel()))
    fetched = stacked.ravel()[order]
    found: Ids = fetched[fetched != NOTHING]
    return found


def _results(plan: Plan, fold: _Fold) -> list[int]:
    """How many results leave in each cycle of a fold."""
    r, c, steps = plan.array.rows, plan.array.columns, plan.sizes[2]
    used = fold.columns[1] - fold.columns[0]
    if plan.flow == "os":
        tall = fold.rows[1] - fold.rows[0]
        before, lines = steps - 1 + r - tall, tall
    else:
        before, lines = 2 * r - 1, steps
    counts = np.zeros(before + lines + c - 1, np.int64)
    for column in range(used):
        counts[before + column : before + column + lines] += 1
    found: list[int] = counts.tolist()
    return found
