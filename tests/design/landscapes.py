"""Landscapes to search without a machine: times of designs made of terms, a model that errs, and noisy measurements."""

from __future__ import annotations

import hashlib
import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from programs import facts, traced

from tilewright.design.default import Facts
from tilewright.design.design import Design
from tilewright.design.encoding import NAMES, encode
from tilewright.design.footprint import Footprint
from tilewright.design.space import random_design
from tilewright.design.trial import Outcome, Standing
from tilewright.language import ir

OPTIONS = {"matmul": {"activation": None}, "attention": {"causal": True, "window": None}}


def unit(*what: object) -> float:
    """A number between 0 and 1 that depends on `what` alone."""
    text = "|".join(map(str, what))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") / 2**64


def normal(*what: object) -> float:
    """A number, distributed normally, that depends on `what` alone."""
    return math.sqrt(-2.0 * math.log(unit(*what, "r") + 1e-12)) * math.cos(2 * math.pi * unit(*what, "phi"))


@dataclass(frozen=True)
class Landscape:
    """Times of the designs of one program: smooth terms of their encoding, styles that cost, and some roughness.

    The model knows the terms only about, and nothing of the roughness.
    """

    name: str
    kernel: ir.Kernel
    facts: Facts
    seed: int
    error: float = 0.15  # of the model, as a standard deviation of the logarithm
    rough: float = 0.03
    _known: dict[tuple[float, Design], float] = field(default_factory=dict, repr=False)

    @classmethod
    def of(
        cls, operator: str, seed: int, element: str = "bf16", machine: str = "zen5", error: float = 0.15,
        rough: float = 0.03, **sizes: int,
    ) -> Landscape:  # fmt: skip
        """The landscape of an operator at some sizes."""
        program = traced(operator, element, **OPTIONS.get(operator, {}))
        return cls(operator, program, facts(program, machine, **sizes), seed, error, rough)

    def seconds(self, design: Design) -> float:
        """How long a design really takes."""
        return 1e-4 * math.exp(self._terms(design, 0.0) + self.rough * normal(self.seed, design.hash))

    def under_roof(self, design: Design) -> float:
        """The same where a roofline hides the best: below the time of one random design in 20, little is gained."""
        share = self.seconds(design) / self.roof
        return self.roof * (max(1.0, share) + 0.15 * share)

    @cached_property
    def roof(self) -> float:
        """Seconds that 5% of random designs are faster than."""
        rng = random.Random(0)
        return sorted(self.seconds(random_design(self.kernel, self.facts, rng)) for _ in range(60))[3]

    def model(self, design: Design) -> float:
        """How long the model thinks that it takes."""
        return 1e-4 * math.exp(self._terms(design, 1.0))

    def _terms(self, design: Design, wrong: float) -> float:
        if (wrong, design) not in self._known:
            self._known[wrong, design] = self._sum(design, wrong)
        return self._known[wrong, design]

    def _sum(self, design: Design, wrong: float) -> float:
        """Each number of the encoding has a best value; those of tiles and blocks matter most."""
        total = 0.0
        for name, x in zip(NAMES, encode(self.kernel, design, self.facts), strict=True):
            if name.endswith(("size", "lanes", "cores", "file")):
                continue
            best = 6.0 * unit(self.seed, name, "best") + wrong * self.error * 2.0 * normal(self.seed, name, "off")
            weight = 0.06 * unit(self.seed, name, "weight") * (1.0 + wrong * self.error * normal(self.seed, name, "w"))
            total += weight * min(abs(x - best), 4.0)
        kind = tuple((n, c) for n, c in design.decisions if n.startswith(("atom", "pack", "lanes")))
        total += 0.3 * unit(self.seed, kind) + wrong * self.error * normal(self.seed, kind, "model")
        return total + 0.2 * max(0.0, Footprint(self.kernel, design, self.facts).registers / self.facts.registers - 1)


@dataclass
class Noisy:
    """Measures a landscape: each trial has a drift of its own, paired rounds only a little noise.

    `process` is the standard deviation of what each process adds to each design, in all rounds that it holds.
    """

    seconds: Callable[[Design], float]
    seed: int = 0
    drift: float = 0.015
    paired: float = 0.002
    process: float = 0.0
    fails: Callable[[Design], Outcome | None] = lambda _: None
    evaluated: list[Design] = field(default_factory=list)
    compared: list[list[Design]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._rng = random.Random(self.seed)
        self.renewed = 0

    def renew(self) -> None:
        """Another process, with favourites of its own."""
        self.renewed += 1

    def _told(self, design: Design) -> float:
        return self.seconds(design) * math.exp(self.process * normal(self.seed, self.renewed, design.hash))

    def evaluate(self, designs: Sequence[Design]) -> list[Outcome]:
        """Outcomes with noise."""
        self.evaluated += designs
        return [self.fails(d) or self._measured(d) for d in designs]

    def _measured(self, design: Design) -> Outcome:
        seconds = self._told(design) * math.exp(self._rng.gauss(0.0, self.drift))
        samples = tuple(seconds * (1 + abs(self._rng.gauss(0.0, 0.01))) for _ in range(5))
        return Outcome("ok", seconds, samples, noise=self.drift)

    def compare(self, designs: Sequence[Design]) -> list[Standing]:
        """Standings with the noise of paired rounds."""
        self.compared.append(list(designs))
        first = self._told(designs[0])
        standings = []
        for n, design in enumerate(designs):
            ratio = self._told(design) / first * (math.exp(self._rng.gauss(0.0, self.paired)) if n else 1.0)
            width = 2.0 * self.paired
            standings.append(
                Standing(design, first * ratio, ratio, ratio * (1 - width), ratio * (1 + width), self.paired)
            )
        return standings


LANDSCAPES = [
    Landscape.of("matmul", 1), Landscape.of("matmul", 2, "f32", M=1000, N=777, K=333), Landscape.of("gate_up", 3, M=64),
    Landscape.of("rmsnorm", 4), Landscape.of("attention", 5), Landscape.of("softmax", 6, "f32"),
    Landscape.of("matmul", 7, machine="sapphire-rapids"),
]  # fmt: skip

SILU = Landscape.of("silu", 11, "f32")
"""A small one."""
