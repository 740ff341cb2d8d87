"""The rates of the GPU model fitted to measured products, and judged on shapes that they were not fitted to.

Least squares of log(predicted / measured), errors beyond 5% counted less and less, each rate drawn weakly towards what
the machine's description says. Nothing is run.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from tilewright.bench.gpu_model import Measured, predicted
from tilewright.errors import MissingPackage
from tilewright.machines.machine import Machine

Vector = npt.NDArray[np.float64]
UNSEEN = ("next_launch_s", "sync_s")
"""Rates that no single product shows."""

_TOLERANCE, _PULL, _STEPS = 0.05, 1.0, 12


def fitted(rows: Sequence[Measured], machine: Machine) -> Machine:
    """The machine with the rates under its `ceilings` fitted to `rows`; MissingPackage without SciPy."""
    measured = np.log([r.seconds for r in rows])

    def residuals(x: Vector) -> Vector:
        model = _scaled(machine, x)
        errors = np.log([predicted(r, model) for r in rows]) - measured
        return np.concatenate([errors / _TOLERANCE, _PULL * x])

    start = np.zeros(len(_names(machine)))
    found = _least_squares()(residuals, start, loss="soft_l1", max_nfev=_STEPS).x
    return _scaled(machine, found)


def held_out(rows: Sequence[Measured], machine: Machine, folds: int = 4) -> dict[str, tuple[int, float]]:
    """By family, and of "all": designs, and the mean error of rates that were fitted to other shapes only."""
    shapes = sorted({r.shape for r in rows})  # whatever the order of the results
    fold = {shape: n % folds for n, shape in enumerate(shapes)}
    errors: dict[str, list[float]] = {}
    for n in range(folds):
        model = fitted([r for r in rows if fold[r.shape] != n], machine)
        for row in (r for r in rows if fold[r.shape] == n):
            off = abs(predicted(row, model) / row.seconds - 1)
            errors.setdefault(row.case.family, []).append(off)
            errors.setdefault("all", []).append(off)
    return {family: (len(found), statistics.fmean(found)) for family, found in errors.items()}


def _names(machine: Machine) -> list[str]:
    return [name for name, _ in machine.ceilings if name not in UNSEEN]


def _scaled(machine: Machine, x: Vector) -> Machine:
    """The machine with each rate multiplied by exp(x)."""
    factors = dict(zip(_names(machine), np.exp(x).tolist(), strict=True))
    return replace(machine, ceilings=tuple((n, v * factors.get(n, 1.0)) for n, v in machine.ceilings))


def rounded(machine: Machine) -> dict[str, float]:
    """The rates to three digits, as a description gives them."""
    return {n: float(f"{v:.3g}") for n, v in machine.ceilings if math.isfinite(v)}


def _least_squares() -> Any:
    try:
        from scipy.optimize import least_squares
    except ImportError:
        raise MissingPackage("fitting rates needs SciPy; pip install 'tilewright[search]'") from None
    return least_squares


__all__ = ["fitted", "held_out", "rounded"]
