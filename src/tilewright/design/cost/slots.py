"""Cycles that straight-line code takes on each resource of a core; the fullest one decides."""

from __future__ import annotations

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


@dataclass
class Slots:
    """Cycles by resource, and instructions; `chain` is the longest chain of sums that depend on one another."""

    multiply: float = 0.0
    compute: float = 0.0
    shuffle: float = 0.0
    load: float = 0.0
    store: float = 0.0
    instructions: float = 0.0
    chain: float = 0.0

    def add(self, other: Slots, times: float = 1.0) -> None:
        """Other code `times` over, beside this; chains run side by side."""
        self.multiply += times * other.multiply
        self.compute += times * other.compute
        self.shuffle += times * other.shuffle
        self.load += times * other.load
        self.store += times * other.store
        self.instructions += times * other.instructions
        self.chain = max(self.chain, other.chain)

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
        """The fullest resource, or the chain."""
        busiest = max(self.multiply, self.compute, self.shuffle, self.load, self.store)
        return max(busiest, self.instructions / rates.width, self.chain)
