"""What the book's measurements teach the cost model: a correction for one program, machine and thread count.

It is used only where it is better than the model alone on measurements that it was not taught: of keys held back, or,
where the book knows one key alone, of designs held back. Without scikit-learn, or with too little measured, the model
stands alone.
"""

from __future__ import annotations

import statistics
from collections.abc import Hashable, Sequence
from dataclasses import replace
from importlib.util import find_spec

from tilewright.design.book.key import Key
from tilewright.design.book.store import Book
from tilewright.design.cost import Correction, estimate, features
from tilewright.design.cost.accuracy import cross_validated, spearman
from tilewright.design.cost.correction import Row
from tilewright.design.legality import legal
from tilewright.language import ir
from tilewright.machines.machine import Machine

FEWEST, MOST = 60, 480
"""Measurements that a correction is taught from; of more, the newest."""

_PARTS = 4  # in which measurements are held back
_BETTER = 0.02  # by which the rank correlation of what was held back must rise


def learned(book: Book, key: Key, kernel: ir.Kernel, machine: Machine, without: str = "") -> Correction | None:
    """The correction for `key` by what was measured of its program here, the run `without` left out; None for none."""
    if find_spec("sklearn") is None:
        return None
    rows, groups = _rows(book, key, kernel, machine, without)
    if len(rows) < FEWEST or not _helps(rows, groups):
        return None
    return Correction.fit(rows)


def _rows(book: Book, key: Key, kernel: ir.Kernel, machine: Machine, without: str) -> tuple[list[Row], list[str]]:
    """Measured designs of the same program, as the correction reads them, and the key of each."""
    kin = {k.hash: k for k in book.known_keys() if _alike(k, key)}
    found = [m for h in kin for m in book.measurements(kin[h]) if m.run != without and m.trial.outcome.seconds]
    rows, groups = list[Row](), list[str]()
    for m in sorted(found, key=lambda m: m.date)[-MOST:]:
        facts = replace(kin[m.key].facts_on(machine), threads=key.threads)
        if m.trial.outcome.seconds and not legal(kernel, m.trial.design, facts):
            said = estimate(kernel, m.trial.design, facts)
            rows.append((features(kernel, m.trial.design, facts, said), said.seconds, m.trial.outcome.seconds))
            groups.append(m.key)
    return rows, groups


def _alike(one: Key, other: Key) -> bool:
    """Whether two keys are of one program on one machine, whatever their sizes and objectives."""
    names = ("semantics", "dtypes", "layouts", "machine", "threads")
    return all(getattr(one, n) == getattr(other, n) for n in names)


def _helps(rows: Sequence[Row], groups: Sequence[str]) -> bool:
    """Whether corrections order what they were not taught better than the model does, key by key."""
    held: Sequence[Hashable] = groups if len(set(groups)) > 1 else [n % _PARTS for n in range(len(rows))]
    corrected = cross_validated(rows, held, _PARTS)
    return _order(corrected, rows, groups) > _order([r[1] for r in rows], rows, groups) + _BETTER


def _order(predicted: Sequence[float], rows: Sequence[Row], groups: Sequence[str]) -> float:
    """The mean over keys of the rank correlation of predictions and measurements."""
    found = []
    for group in dict.fromkeys(groups):
        mine = [n for n, g in enumerate(groups) if g == group]
        found.append(spearman([predicted[n] for n in mine], [rows[n][2] for n in mine]))
    return statistics.fmean(found)


__all__ = ["FEWEST", "MOST", "learned"]
