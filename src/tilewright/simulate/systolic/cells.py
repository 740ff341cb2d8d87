"""The cells of an array, cycle by cycle, with values: registers that shift, multiply and add; all lanes at once.

A lane is a copy of the array. Where folds do not overlap, each fold has a lane of its own; where they do, one lane
takes them all. Every cell holds x (moves right), a weight and its shadow, and a sum (moves down, or stays).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Values = npt.NDArray[Any]


@dataclass(frozen=True)
class Pass:
    """A fold as the cells see it, for all lanes: `shift` is the cycle in which its tile begins to move in, `start` the
    one in which its stream begins.

    Weights or inputs still: `held` [lanes, R, C] and `moving` [lanes, R, T]; outputs still: `held` [lanes, T, C] and
    `moving` [lanes, R, T], both of which stream.
    """

    shift: int
    start: int
    held: Values
    moving: Values

    @property
    def steps(self) -> int:
        return int(self.moving.shape[2])


def one_stands(passes: list[Pass], rows: int, columns: int, dtype: npt.DTypeLike) -> tuple[list[Values], int]:
    """What leaves the bottom of the array in each pass, [lanes, T, C], and the cycles until the last value is out."""
    lanes, end = passes[0].held.shape[0], passes[-1].start + passes[-1].steps + rows + columns - 2
    left, top = _left(passes, rows, end, dtype), _top(passes, rows, columns, end, dtype)
    x, w, shadow, moving_in, sums = (np.zeros((lanes, rows, columns), dtype) for _ in range(5))
    bottom = np.zeros((end, lanes, columns), dtype)
    diagonals, live = _diagonals(rows, columns), _Live(passes, rows + columns)
    for now in range(end):
        moving_in[:, 1:] = moving_in[:, :-1]
        moving_in[:, 0] = top[now]
        for _, each in live.at(now):
            if 0 <= (d := now - each.start) < len(diagonals):
                w[:, diagonals[d][0], diagonals[d][1]] = shadow[:, diagonals[d][0], diagonals[d][1]]
            if 0 <= (c := now - each.shift - rows + 1) < columns:
                shadow[:, :, c] = moving_in[:, :, c]
        x[:, :, 1:] = x[:, :, :-1]
        x[:, :, 0] = left[now]
        product = x * w
        product[:, 1:] += sums[:, :-1]
        sums = product
        bottom[now] = sums[:, -1]
    return [_deskewed(bottom, each, rows, columns) for each in passes], end


def both_stream(passes: list[Pass], rows: int, columns: int, dtype: npt.DTypeLike) -> tuple[list[Values], int]:
    """The sums that stood still in each pass, [lanes, R, C], and the cycles until the last one is complete."""
    lanes, end = passes[0].moving.shape[0], passes[-1].start + passes[-1].steps + rows + columns - 2
    left = _left(passes, rows, end, dtype)
    above = _left([Pass(p.shift, p.start, p.held, p.held.swapaxes(1, 2)) for p in passes], columns, end, dtype)
    x, y, sums = (np.zeros((lanes, rows, columns), dtype) for _ in range(3))
    done = [np.zeros((lanes, rows, columns), dtype) for _ in passes]
    diagonals, live = _diagonals(rows, columns), _Live(passes, rows + columns)
    for now in range(end):
        x[:, :, 1:] = x[:, :, :-1]
        x[:, :, 0] = left[now]
        y[:, 1:] = y[:, :-1]
        y[:, 0] = above[now]
        sums += x * y
        for number, each in live.at(now):
            if 0 <= (d := now - each.start - each.steps + 1) < len(diagonals):
                cells = (slice(None), *diagonals[d])
                done[number][cells] = sums[
                    cells
                ]  # its last product is in: the second set takes the sum, this one starts anew
                sums[cells] = 0
    return done, end


@dataclass
class _Live:
    """The passes that are in the array in a cycle."""

    passes: list[Pass]
    wave: int
    first: int = 0
    last: int = 0

    def at(self, now: int) -> list[tuple[int, Pass]]:
        """Passes, with their numbers, from when their tile begins to move in until their last result is out."""
        while self.last < len(self.passes) and self.passes[self.last].shift <= now:
            self.last += 1
        while (
            self.first < self.last and self.passes[self.first].start + self.passes[self.first].steps + self.wave < now
        ):
            self.first += 1
        return [(n, self.passes[n]) for n in range(self.first, self.last)]


def _left(passes: list[Pass], rows: int, end: int, dtype: npt.DTypeLike) -> Values:
    """What enters each row in each cycle, [cycles, lanes, R]: row r gets step s in cycle start + s + r."""
    lanes = passes[0].moving.shape[0]
    enters = np.zeros((end, lanes, rows), dtype)
    for each in passes:
        for r in range(rows):
            enters[each.start + r : each.start + r + each.steps, :, r] = each.moving[:, r].T
    return enters


def _top(passes: list[Pass], rows: int, columns: int, end: int, dtype: npt.DTypeLike) -> Values:
    """What is pushed into each column in each cycle, [cycles, lanes, C]: the last row first, a cycle later a column."""
    enters = np.zeros((end + rows + columns, passes[0].held.shape[0], columns), dtype)
    for each in passes:
        for c in range(columns):
            enters[each.shift + c : each.shift + c + rows, :, c] = each.held[:, ::-1, c].T
    return enters


def _deskewed(bottom: Values, each: Pass, rows: int, columns: int) -> Values:
    """The results of a pass: step s leaves column c in cycle start + R - 1 + s + c."""
    steps, column = np.arange(each.steps)[:, None], np.arange(columns)[None, :]
    found: Values = bottom[each.start + rows - 1 + steps + column, :, column]
    return found.transpose(2, 0, 1)


def _diagonals(rows: int, columns: int) -> list[tuple[Values, Values]]:
    """Rows and columns of the cells that a wavefront reaches, cycle by cycle."""
    found = []
    for d in range(rows + columns - 1):
        r = np.arange(max(0, d - columns + 1), min(rows, d + 1))
        found.append((r, d - r))
    return found
