"""The numbers behind a report: what was measured beside what was predicted, rank correlation, error."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence

import numpy as np

from tilewright.design.trial import Trial
from tilewright.errors import ArgumentError

Pairs = Sequence[tuple[float, float]]
"""(predicted seconds, measured seconds) of each design."""


def measured(trials: Iterable[Trial]) -> list[Trial]:
    """Those trials whose design ran, was right and was timed."""
    return [t for t in trials if t.outcome.status == "ok" and t.outcome.seconds is not None]


def pairs(trials: Iterable[Trial]) -> list[tuple[float, float]]:
    """Predicted and measured seconds of every trial that was timed."""
    return [(t.predicted, t.outcome.seconds) for t in measured(trials) if t.outcome.seconds is not None]


def spearman(values: Pairs) -> float:
    """Rank correlation of the two numbers of each pair, ties sharing their mean rank; NaN below three pairs.

    Spearman, "The proof and measurement of association between two things", 1904.
    """
    if len(values) < 3:
        return math.nan
    a, b = (_ranks([pair[i] for pair in values]) for i in (0, 1))
    a, b = a - a.mean(), b - b.mean()
    scale = math.sqrt(float(a @ a) * float(b @ b))
    return float(a @ b) / scale if scale else math.nan


def _ranks(values: Sequence[float]) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """Ranks from 0, equal values sharing the mean of theirs."""
    _, inverse, counts = np.unique(np.asarray(values, np.float64), return_inverse=True, return_counts=True)
    first = np.cumsum(counts) - counts
    ranks: np.ndarray[tuple[int], np.dtype[np.float64]] = (first + (counts - 1) / 2)[inverse]
    return ranks


def median_error(values: Pairs) -> float:
    """How far predictions are off in the middle, as a factor less 1: 0.25 is 25% too much or too little.

    Raises ArgumentError where there is nothing to compare.
    """
    if not values:
        raise ArgumentError("no design was both predicted and measured; measure some first")
    return math.exp(statistics.median(abs(math.log(p / m)) for p, m in values)) - 1
