"""What follows the products of a tile on a GPU: loads, functions of elements, and stores by the matrix unit's layout.

    seconds = rounds * (latency of loads + |instructions, special functions, requests to L1|) + stores

Nothing is fitted but `partial_stores_per_s`. An SM issues 128 lanes a cycle and 16 of the special unit, and L1 takes
one line a cycle. A warp's accumulators lie eight rows by eight columns: a request for pairs of neighbours, or for the
eight rows of a column, touches lines with 16 bytes each. One for single elements touches them with 8, and leaves words
that are written in part, which L2 has to read before it writes.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from tilewright.design.cost.gpu_rates import GpuRates, joined
from tilewright.design.cost.program import Program
from tilewright.language import ir

LANES, SPECIAL = 128.0, 16.0
"""Instructions of single elements that an SM issues in a cycle, and those of its special unit."""

_SHARED_BYTES = 128.0
_ELEMENTS = 8  # of a tile in one line of a request

INSTRUCTIONS: Mapping[str, tuple[int, int]] = {
    "exp": (2, 1), "exp2": (1, 1), "log": (2, 1), "sqrt": (3, 1), "rsqrt": (1, 1), "div": (8, 1),
    "sigmoid": (2, 2), "tanh": (9, 2), "erf": (8, 1),
}  # fmt: skip
"""Instructions of a function of one element, and how many more the special unit takes (`emit/cuda/approx.cuh`)."""


@dataclass(frozen=True)
class Tile:
    """The extents of a block's tile by axis; `odd`: rows of the result start at addresses that no pair may lie at."""

    extents: Mapping[str, int]
    itemsize: int
    odd: bool
    swapped: bool

    def points(self, axes: tuple[str, ...]) -> int:
        """Elements of a value along some of the tile's axes."""
        return math.prod(self.extents.get(a, 1) for a in axes)

    @property
    def partial(self) -> bool:
        """Whether stores leave words that are written in part: single elements that are no neighbours."""
        return self.odd and not self.swapped


def epilogue(program: Program, tile: Tile, rates: GpuRates) -> float:
    """Seconds of what is computed behind the main loop, for one tile of one SM: everything but its stores."""
    instructions = special = lines = 0.0
    loads = False
    for let in _behind(program):
        points = tile.points(let.type.axes)
        if isinstance(let.expr, ir.Load):
            loads = True
            lines += points / (_ELEMENTS // 2 if tile.partial else _ELEMENTS)
        elif isinstance(let.expr, ir.Map):
            more = INSTRUCTIONS.get(let.expr.op, (1, 0))
            instructions, special = instructions + points * more[0], special + points * more[1]
    cycles = joined(instructions / LANES, special / SPECIAL, lines)
    return (rates.latency_s if loads else 0.0) + cycles / rates.clock


def stores(tile: Tile, blocks: int, by_engine: bool, rates: GpuRates) -> float:
    """Seconds in which `blocks` SMs at once store a tile each; `by_engine`: only until the copy engine has it."""
    points = math.prod(tile.extents.values())
    if by_engine:
        return points * tile.itemsize / _SHARED_BYTES / rates.clock
    requests = points / (_ELEMENTS // 2 if tile.partial else _ELEMENTS)
    shared = requests * blocks / rates.partial_stores_per_s if tile.partial else 0.0
    return joined(requests / rates.clock, shared)


def _behind(program: Program) -> Iterator[ir.Let]:
    """Values that a nest computes outside of its serial loops."""
    for nest in program.nests:
        yield from (s for s in nest.loop.body if isinstance(s, ir.Let) and not isinstance(s.expr, ir.Full))


__all__ = ["Tile", "epilogue", "stores"]
