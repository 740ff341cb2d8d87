"""Rates fitted to measurements: found again where the model made them, and judged on other shapes."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from tilewright.bench.gpu_fit import fitted, held_out, rounded
from tilewright.bench.gpu_model import LADDER, measured, predicted
from tilewright.machines.machine import Machine

RESULTS = Path(__file__).parents[2] / "benchmarks" / "results" / "gpu-h200-2026-11-24.json"
H200 = Machine.named("h200")
pytest.importorskip("scipy")


@pytest.fixture(scope="module")
def rows():
    found = measured(json.loads(RESULTS.read_text()), H200)
    return [r for r in found if r.case.family != LADDER]


def test_rates_that_made_the_data_are_found_again(rows):
    slow = {"launch_s": 9e-6, "tensor_burst": 0.7}
    other = replace(H200, ceilings=tuple((n, slow.get(n, v)) for n, v in H200.ceilings))
    made = [replace(r, seconds=predicted(r, other)) for r in rows[::3]]
    found = rounded(fitted(made, H200))
    assert found["launch_s"] == pytest.approx(9e-6, rel=0.05)
    assert found["tensor_burst"] == pytest.approx(0.7, rel=0.05)


def test_shapes_that_no_rate_was_fitted_to():
    """Each family of today's kernels within what is asked of the corrected model, by the model alone."""
    newest = max(RESULTS.parent.glob("gpu-h200-*.json"))
    rows = [r for r in measured(json.loads(newest.read_text()), H200) if r.case.family != LADDER]
    found = held_out(rows, H200)
    assert sum(n for family, (n, _) in found.items() if family != "all") == found["all"][0] == len(rows)
    assert found["all"][1] <= 0.04
    assert all(error <= 0.06 for _, error in found.values())


def test_one_unseen_fold_at_a_time(rows):
    """What is judged was not fitted to: a family with a time that is twice as long stays wrong where it is held out."""
    few = rows[::16]
    wrong = [replace(r, seconds=3 * r.seconds) if r.shape == few[0].shape else r for r in few]
    assert held_out(wrong, H200, folds=len({r.shape for r in few}))["all"][1] > held_out(few, H200)["all"][1]
