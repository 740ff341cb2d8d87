"""Errors of the cost model against the committed measurements of an H200."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tilewright.bench.gpu_model import LADDER, Errors, Measured, errors, measured
from tilewright.machines.machine import Machine

RESULTS = Path(__file__).parents[2] / "benchmarks" / "results" / "gpu-h200-2026-11-24.json"


@pytest.fixture(scope="module")
def rows() -> list[Measured]:
    return measured(json.loads(RESULTS.read_text()), Machine.named("h200"))


@pytest.fixture(scope="module")
def found(rows: list[Measured]) -> dict[str, Errors]:
    return {e.family: e for e in errors(rows)}


def test_every_measured_product_is_judged(rows):
    cases = {(r.case.family, r.name) for r in rows}
    assert len(cases) == 55 + 33 + 6 + 18 + 16
    assert len({(r.name, r.case.family, r.design) for r in rows}) == len(rows)


def test_seconds_are_medians_of_the_raw_samples(rows):
    reported = {(r["family"], r["name"]): r["metrics"]["us"] for r in json.loads(RESULTS.read_text())["results"]}
    seen = set()
    for r in rows:  # the winner of a case comes first
        key = (r.case.family, r.name)
        if key not in seen:
            assert r.seconds * 1e6 == pytest.approx(reported[key], rel=1e-3)
        seen.add(key)


@pytest.mark.parametrize("family", ["gemm_small", "gemm_large", "gemm_odd", "gemm_fused", "all"])
def test_mean_error_without_correction_is_at_most_12_percent(found, family):
    assert found[family].model.mean_error <= 0.12


@pytest.mark.parametrize("family", ["gemm_small", "gemm_large", "gemm_odd", "gemm_fused", "all"])
def test_mean_error_corrected_by_other_shapes_is_at_most_6_percent(found, family):
    assert found[family].corrected.mean_error <= 0.06


def test_kernels_that_are_slow_on_purpose_are_in_no_mean(found):
    assert found["all"].model.count == sum(e.model.count for f, e in found.items() if f not in ("all", LADDER))


def test_the_judge_sees_a_wrong_model(rows):
    """Five microseconds more for a launch are seen."""
    h200 = Machine.named("h200")
    ceilings = {**dict(h200.ceilings), "launch_s": dict(h200.ceilings)["launch_s"] + 5e-6}
    slow = Machine.from_dict({**h200.to_dict(), "ceilings": ceilings})
    worse = measured(json.loads(RESULTS.read_text()), slow)
    assert [w.predicted - r.predicted for w, r in zip(worse, rows, strict=True)] == pytest.approx([5e-6] * len(rows))


def test_a_link_of_a_chain_takes_no_launch_and_no_first_way_to_memory():
    result = next(r for r in json.loads(RESULTS.read_text())["results"] if r["family"] == "gemm_small")
    h200 = Machine.named("h200")
    alone, link = (measured({"results": [{**result, "family": f}]}, h200)[0] for f in ("gemm_small", "gemm_chain"))
    assert alone.predicted - link.predicted == pytest.approx(4.2e-6 + 0.68e-6 - 1.08e-6)
