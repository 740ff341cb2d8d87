"""Cycles in closed form: when each fold starts, from when its tile is there and when the fold before lets it.

R rows, C columns, T steps that stream, F folds, D cycles to fetch a tile. Without limits of bandwidth this gives

- nothing overlapped, weights or inputs still:  F (2R + C + T - 2) - 1     as SCALE-Sim counts: the last cycle's number
- nothing overlapped, outputs still:            F (R + C + T - 2) - 1
- next tile shifted in while one computes:      R + (F - 1) max(T, R, D) + T + R + C - 2
- next sums begun while others leave:           (F - 1) max(T, D) + T + R + C - 2
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction

from tilewright.simulate.systolic.plan import Plan


@dataclass(frozen=True)
class Account:
    """Cycles of a product, and what they were spent on; the parts add up to `cycles`.

    `useful`: as many as the multiplications would take with every cell at work; `idle`: streamed with cells that hold
    nothing; `load`: shifting tiles in; `fill`: wavefronts that enter and leave; `stalls`: waiting for memory.
    """

    cycles: int
    useful: float
    idle: float
    load: int
    fill: int
    stalls: int

    def parts(self) -> tuple[tuple[str, float], ...]:
        """Names and cycles, in the order in which a chart stacks them."""
        return (
            ("multiply", self.useful), ("cells without work", self.idle), ("shift tiles in", self.load),
            ("fill and drain", self.fill), ("wait for memory", self.stalls),
        )  # fmt: skip


def account(plan: Plan) -> Account:
    """The cycles of a plan and their parts."""
    cycles = closed_form(plan)
    ideal, load, fill = _ideal(plan)
    streamed = plan.tiles_a_block * sum(plan.blocks)
    useful = plan.macs / (plan.array.rows * plan.array.columns)
    return Account(cycles, useful, streamed - useful, load, fill, cycles - ideal)


def closed_form(plan: Plan) -> int:
    """Cycles of a plan."""
    waits = any(plan.wait_cycles(n) for n in set(plan.blocks))
    if plan.fetch_cycles == 0 and not waits:
        return _ideal(plan)[0]
    begun, steps = deque(starts(plan), maxlen=1).pop()
    return begun + steps + _tail(plan)


def _tail(plan: Plan) -> int:
    """Cycles from the last step that streams in until the last result is out; SCALE-Sim counts one less."""
    wave = plan.array.rows + plan.array.columns - 2
    return wave if plan.overlaps else wave - 1


def _ideal(plan: Plan) -> tuple[int, int, int]:
    """Cycles where memory never waits: all, those that load tiles, those that fill and drain."""
    rows, columns = plan.array.rows, plan.array.columns
    per_block, steps, wave = plan.tiles_a_block, plan.blocks, rows + columns - 2
    streamed = per_block * sum(steps)
    shift = 0 if plan.flow == "os" else rows
    if plan.overlaps:
        load = shift + per_block * sum(max(0, shift - n) for n in steps) - max(0, shift - steps[-1])
        return load + streamed + wave, load, wave
    load = plan.folds * shift
    fill = plan.folds * wave - 1
    return load + streamed + fill, load, fill


def starts(plan: Plan) -> Iterator[tuple[int, int]]:
    """For each fold, the cycle in which its stream begins, and for how many cycles it streams.

    The first tile lies ready in cycle 0. A tile may be fetched once the one `fifo` before it has left the queue.
    """
    shift = 0 if plan.flow == "os" else plan.array.rows
    wave = plan.array.rows + plan.array.columns - 2
    fetch, fetched = plan.fetch_cycles, Fraction(0)
    left: deque[int] = deque(maxlen=plan.fifo)  # when each of the last tiles left the queue
    free = begun = 0
    for number, (steps, wait) in enumerate(plan.passes()):
        if number:
            fetched = max(fetched, Fraction(left[0] if len(left) == plan.fifo else 0)) + fetch
        ready = math.ceil(fetched)
        if plan.overlaps:
            begun = max(free + wait, max(begun, ready) + shift)
            free = begun + steps
        else:
            begun = max(free + wait, ready) + shift
            free = begun + steps + wave
        # A tile has left once it is in the cells; where outputs stand still, once it has streamed through.
        left.append(begun if shift else free)
        yield begun, steps
