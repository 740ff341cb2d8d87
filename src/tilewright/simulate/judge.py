"""A simulated machine as the judge of designs: times by the simulation, after a check of the values."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from tilewright.design.design import Design
from tilewright.design.trial import Outcome, Standing
from tilewright.errors import AccumulatorOverflow, IllegalDesign, VerificationError
from tilewright.language import ir, structure
from tilewright.runtime.subject import Subject


@dataclass
class Judge(ABC):
    """An Evaluator that a simulation stands behind; each kind of machine gives the time of a design and its check."""

    subject: Subject
    seed: int = 0
    known: dict[Design, Outcome] = field(default_factory=dict)
    times: dict[Design, float] = field(default_factory=dict)

    @abstractmethod
    def simulated(self, design: Design) -> float:
        """Seconds of a design at the subject's sizes; IllegalDesign with the reasons."""

    @abstractmethod
    def check_values(self, design: Design) -> None:
        """Execute the scheduled program of a legal design; VerificationError where a result is wrong."""

    def completed(self, design: Design) -> Design:
        """The design with what it leaves open decided by the machine's own placement."""
        return design

    def seconds(self, design: Design) -> float:
        """Seconds, with no values computed; infinite for an illegal design."""
        if design not in self.times:
            try:
                self.times[design] = self.simulated(design)
            except IllegalDesign:
                self.times[design] = math.inf
        return self.times[design]

    def evaluate(self, designs: Sequence[Design]) -> list[Outcome]:
        """An outcome for each design, in order."""
        for design in designs:
            if design not in self.known:
                self.known[design] = self._outcome(design)
        return [self.known[design] for design in designs]

    def _outcome(self, design: Design) -> Outcome:
        try:
            seconds = self.simulated(design)
            self.check_values(design)
        except IllegalDesign as error:
            return Outcome("illegal", reason=str(error))
        except (VerificationError, AccumulatorOverflow) as error:
            return Outcome("wrong", reason=str(error))
        return Outcome("ok", seconds, (seconds,))

    def compare(self, designs: Sequence[Design]) -> list[Standing]:
        """Ratios of seconds, exact: a model has no noise."""
        seconds = [self.seconds(d) for d in designs]
        ratios = [s / seconds[0] for s in seconds]
        return [Standing(d, s, r, r, r) for d, s, r in zip(designs, seconds, ratios, strict=True)]


def few_tiles(kernel: ir.Kernel, scheduled: ir.Kernel, sizes: Mapping[str, int], most: int) -> dict[str, int]:
    """Sizes at which every tiled axis of a scheduled program has two whole tiles and a ragged one.

    Tiles count as `most` points at most; axes of single positions have two. Dimensions keep their order: what is no
    shorter than another one stays so, as a program may ask for it.
    """
    axes, tiles = structure.axes(scheduled), dict[str, int]()
    for axis in axes.values():
        if not axis.each and not any(other.over == axis.name for other in axes.values()):  # it has no tiles inside
            dim = axis.over
            while dim in axes:
                dim = axes[dim].over
            tiles[dim] = max(tiles.get(dim, 1), min(axis.step or 1, most))
    found = dict(sizes)
    for axis in structure.axes(kernel).values():
        if axis.over in found:
            found[axis.over] = min(sizes[axis.over], 2 if axis.each else 2 * tiles.get(axis.over, most) + 5)
    tiled, reached = {a.over for a in structure.axes(kernel).values() if not a.each} & set(sizes), 1
    for dim in sorted(tiled, key=lambda d: sizes[d]):
        found[dim] = reached = min(sizes[dim], max(found[dim], reached))
    return found
