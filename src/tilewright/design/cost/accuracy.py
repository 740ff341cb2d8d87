"""How good predictions are against measurements: rank correlation, errors, and what their first choices are worth.

For the learned correction the predictions are made by models that never saw the shape they are judged on (k-fold by
groups), so that nothing is counted as learned that was only remembered.
"""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np

from tilewright.design.cost.correction import FEWEST_ALIKE, Correction, Row

TRUST_FOLDS, TRUST_ERRORS = 4, 0.5
"""Parts of what a correction is taught from, on each of which one is judged that the others taught; and by how many
standard errors it must help."""


@dataclass(frozen=True)
class Accuracy:
    """Predictions of one family or shape against measurements.

    `spearman` is 1 where the order is right and 0 where it is chance; errors are |predicted - measured| / measured;
    `first` is the best measured time over that of the design predicted to be best, `first16` over the best of the
    sixteen so predicted.
    """

    count: int
    spearman: float
    median_error: float
    mean_error: float
    first: float
    first16: float

    def to_json(self) -> dict[str, float]:
        """Plain numbers."""
        return {k: round(float(v), 4) for k, v in vars(self).items()}


def accuracy(predicted: Sequence[float], measured: Sequence[float]) -> Accuracy:
    """How good `predicted` seconds are; both need the same length, at least two."""
    if len(predicted) != len(measured) or len(measured) < 2:
        raise ValueError(f"{len(predicted)} predictions and {len(measured)} measurements cannot be compared")
    errors = [abs(p - m) / m for p, m in zip(predicted, measured, strict=True)]
    order = sorted(range(len(predicted)), key=lambda n: predicted[n])
    best = min(measured)
    return Accuracy(
        len(measured),
        spearman(predicted, measured),
        statistics.median(errors),
        statistics.fmean(errors),
        best / measured[order[0]],
        best / min(measured[n] for n in order[:16]),
    )


def spearman(x: Sequence[float], y: Sequence[float]) -> float:
    """Rank correlation (Spearman 1904): Pearson's of the ranks, equal values sharing their mean rank; 0 if constant."""
    a, b = _ranks(x), _ranks(y)
    spread = float(np.std(a) * np.std(b))
    return float(np.mean((a - a.mean()) * (b - b.mean()))) / spread if spread > 0 else 0.0


def _ranks(values: Sequence[float]) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    array = np.asarray(values, np.float64)
    _, where, counts = np.unique(array, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    return np.asarray((ends - (counts - 1) / 2)[where.ravel()], np.float64)


def cross_validated(
    rows: Sequence[Row], groups: Sequence[Hashable], folds: int = 4, seed: int = 0, kinds: Sequence[Hashable] = ()
) -> list[float]:
    """Corrected seconds of each row, by a correction that saw no row of its group; groups are dealt to folds.

    `kinds` tells what each row is of, as an operator: the correction is used where it can be trusted by what it saw
    (`trusted`), and elsewhere the prediction stands as it is.
    """
    fold = _dealt(groups, folds)
    result = [math.nan] * len(rows)
    for held in range(max(fold, default=-1) + 1):
        seen = [n for n, f in enumerate(fold) if f != held]
        taught = [rows[n] for n in seen]
        learned = Correction.fit(taught, seed)
        good = trusted(taught, [groups[n] for n in seen], [kinds[n] for n in seen], seed) if kinds else frozenset()
        for n in (n for n, f in enumerate(fold) if f == held):
            used = not kinds or kinds[n] in good
            result[n] = learned.predict(rows[n][0], rows[n][1]) if used else rows[n][1]
    return result


def trusted(
    rows: Sequence[Row], groups: Sequence[Hashable], kinds: Sequence[Hashable], seed: int = 0
) -> frozenset[Hashable]:
    """The kinds of which a correction that these rows teach can be trusted.

    Those with FEWEST_ALIKE groups or more, of which corrections that saw others of the groups are nearer to what was
    measured than the model alone is: in |log(measured / predicted)|, in the mean over groups, beyond noise.
    """
    number = Counter(kind for kind, _ in set(zip(kinds, groups, strict=True)))
    many = {kind for kind, n in number.items() if n >= FEWEST_ALIKE}
    if not many:
        return frozenset()
    gains: dict[Hashable, dict[Hashable, list[float]]] = {kind: {} for kind in many}
    corrected = cross_validated(rows, groups, TRUST_FOLDS, seed)
    for (_, predicted, measured), better, group, kind in zip(rows, corrected, groups, kinds, strict=True):
        if kind in many:
            gain = abs(math.log(measured / predicted)) - abs(math.log(measured / better))
            gains[kind].setdefault(group, []).append(gain)
    return frozenset(kind for kind in many if _beyond_noise([statistics.fmean(g) for g in gains[kind].values()]))


def _beyond_noise(gains: Sequence[float]) -> bool:
    """Whether what several groups gain is a gain, and not chance: its mean over its own standard error."""
    return statistics.fmean(gains) > TRUST_ERRORS * statistics.stdev(gains) / math.sqrt(len(gains))


def _dealt(groups: Sequence[Hashable], folds: int) -> list[int]:
    """The fold of each row: all of a group in one."""
    names = list(dict.fromkeys(groups))
    of = {g: n % min(folds, len(names)) for n, g in enumerate(names)}
    return [of[g] for g in groups]


__all__ = ["Accuracy", "accuracy", "cross_validated", "spearman", "trusted"]
