"""What a search believes of designs it has not tried: the model's word, corrected by how wrong it was nearby.

The model errs alike on designs alike. What trials showed, as logarithms of measured over predicted time, is carried
over to a design by its likeness to those tried: a weighted mean, with the mean of all trials as its anchor
(Nadaraya 1964, Watson 1964).
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable
from dataclasses import dataclass, field

from tilewright.design.design import Choice, Design
from tilewright.design.trial import Trial

_ANCHOR = 0.25  # weight of the mean of all trials, as if it were one trial some decisions away
_FAR = 2.0  # decisions in which two designs differ when one says a third of what it knows about the other
_STYLE = 3.0  # deciding otherwise about instructions, packing or lanes counts for so many decisions
_STYLES = ("atom", "pack", "local", "unpack", "lanes")


@dataclass
class Belief:
    """Residuals of the trials so far; corrections come in whole steps of `step`, of their logarithm, if it is given.

    Steps are counted from the median of the residuals: by how much the model errs on all designs ranks none of them.
    """

    step: float = 0.0
    _seen: list[tuple[frozenset[tuple[str, Choice]], float]] = field(default_factory=list)

    def learn(self, trials: Iterable[Trial]) -> None:
        """Take in what was measured; trials that failed say nothing of time."""
        for trial in trials:
            seconds = trial.outcome.seconds
            if seconds and 0.0 < trial.predicted < math.inf:
                self._seen.append((frozenset(trial.design.decisions), math.log(seconds / trial.predicted)))

    def corrected(self, design: Design, predicted: float) -> float:
        """Seconds that `design` will take, where the model says `predicted`."""
        if not self._seen:
            return predicted
        decisions = frozenset(design.decisions)
        weight = _ANCHOR
        total = _ANCHOR * sum(residual for _, residual in self._seen) / len(self._seen)
        for other, residual in self._seen:
            likeness = math.exp(-_distance(decisions, other) / _FAR)
            weight, total = weight + likeness, total + likeness * residual
        found = total / weight
        if self.step:
            middle = statistics.median(residual for _, residual in self._seen)
            found = round((found - middle) / self.step) * self.step + middle
        return predicted * math.exp(found)


def _distance(one: frozenset[tuple[str, Choice]], other: frozenset[tuple[str, Choice]]) -> float:
    """In how many decisions two designs differ; those that make another kind of kernel count for several."""
    names = {name for name, _ in one ^ other}
    return sum(_STYLE if name.partition(".")[0] in _STYLES else 1.0 for name in names)


def likeness(one: Design, other: Design) -> float:
    """1 for a design and itself, and less by a third of it for every decision or two in which designs differ."""
    return math.exp(-_distance(frozenset(one.decisions), frozenset(other.decisions)) / _FAR)


__all__ = ["Belief", "likeness"]
