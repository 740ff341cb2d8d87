"""Cycles that straight-line code takes on each resource of a core; the fullest one decides."""

from __future__ import annotations

import math
from dataclasses import dataclass

from tilewright.design.cost.rates import Rates

# Instructions of one elementwise operation on a vector, where it is not one (see `emit/llvm_math.py`).
INSTRUCTIONS = {
    "exp": 15, "exp2": 13, "log": 20, "tanh": 24, "sigmoid": 20, "erf": 40, "rsqrt": 10, "sqrt": 10, "div": 10,
    "mod": 14, "max": 1, "min": 1, "select": 1, "cast": 1, "not": 1,
}  # fmt: skip
FUSED = frozenset({"add", "sub", "mul"})
"""Operations of the units that multiply."""

POLYNOMIALS = frozenset({"exp", "exp2", "log", "tanh", "sigmoid", "erf"})
MULTIPLIED = 0.6
"""Share of a polynomial's instructions that only the units that multiply can do (7 FMA among the 12 of `exp`)."""


LATENCY = {
    "exp": 50, "exp2": 46, "log": 60, "tanh": 75, "sigmoid": 70, "erf": 70, "rsqrt": 24, "sqrt": 20, "div": 16, "mod": 30,
    "max": 2, "min": 2, "select": 2, "not": 2,
}  # fmt: skip
"""Cycles until the result of an elementwise operation is there, where they are not those of a sum (ARITHMETIC)."""
ARITHMETIC, LOADED = 4.0, 7.0
"""Cycles until a sum or product is there, and a vector that the first cache holds."""

SHARPNESS = 3.0
"""Exponent of the mean in which throughput and waiting add up: both bind a little where they are about equal."""


@dataclass
class Slots:
    """Cycles by resource, and instructions.

    `chain` is the longest chain of sums that depend on one another from step to step, `depth` the cycles from a step's
    first load to its last result: the steps that the scheduler holds hide them in each other.
    """

    multiply: float = 0.0
    compute: float = 0.0
    shuffle: float = 0.0
    load: float = 0.0
    store: float = 0.0
    instructions: float = 0.0
    chain: float = 0.0
    depth: float = 0.0

    def add(self, other: Slots, times: float = 1.0) -> None:
        """Other code `times` over, beside this; chains run side by side."""
        self.multiply += times * other.multiply
        self.compute += times * other.compute
        self.shuffle += times * other.shuffle
        self.load += times * other.load
        self.store += times * other.store
        self.instructions += times * other.instructions
        self.chain = max(self.chain, other.chain)
        self.depth = max(self.depth, other.depth)

    def vectors(self, rates: Rates, width: int, number: float, *, multiply: bool = False, rate: float = 0.0) -> None:
        """`number` operations on `width` lanes each; two whole vectors a cycle are computed in all."""
        self.compute += number * rates.slot(width, 2.0)
        if multiply:
            self.multiply += number * rates.slot(width, rate or rates.fma)
        self.instructions += number

    def map(self, rates: Rates, op: str, width: int, number: float) -> None:
        """`number` elementwise operations `op` on `width` lanes each."""
        count = number * INSTRUCTIONS.get(op, 1)
        multiplied = 1.0 if op in FUSED else MULTIPLIED if op in POLYNOMIALS else 0.0
        self.vectors(rates, width, multiplied * count, multiply=True)
        self.vectors(rates, width, (1.0 - multiplied) * count)

    def shuffles(self, rates: Rates, width: int, number: float) -> None:
        """`number` exchanges between lanes: one whole vector a cycle."""
        self.shuffle += number * rates.slot(width, 1.0)
        self.compute += number * rates.slot(width, 2.0)
        self.instructions += number

    def loads(self, rates: Rates, size: float, number: float, split: float = 0.0) -> None:
        """`number` loads of `size` bytes, of which the share `split` crosses a line and takes two."""
        self.load += number * (1 + split) * rates.load(size)
        self.instructions += number

    def stores(self, rates: Rates, size: float, number: float, split: float = 0.0) -> None:
        """`number` stores of `size` bytes, of which the share `split` crosses a line and takes two."""
        self.store += number * (1 + split) * rates.store(size)
        self.instructions += number

    def cycles(self, rates: Rates) -> float:
        """The fullest resource with what is waited for beside it, or the chain."""
        busiest = max(
            self.multiply, self.compute, self.shuffle, self.load, self.store, self.instructions / rates.width
        )
        return max(mean(busiest, self.waiting(rates)), self.chain)

    def waiting(self, rates: Rates) -> float:
        """Cycles of a step that its own depth asks for: the next steps run beside it as far as the scheduler reaches."""
        return self.depth / math.hypot(1.0, rates.scheduled / max(1.0, self.instructions))


def mean(one: float, other: float) -> float:
    """Cycles where two things take so many each: the larger, and more where they are about equal."""
    return (one**SHARPNESS + other**SHARPNESS) ** (1.0 / SHARPNESS)
