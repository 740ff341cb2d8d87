"""The cost model beside attention and row operators measured on an H200, none of which a rate was fitted to."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest

from tilewright.bench.gpu_model_nests import measured_nests, nest_errors
from tilewright.machines.machine import Machine

H200 = Machine.named("h200")
SAMPLES = Path(__file__).parents[2] / "benchmarks" / "results" / "probes" / "simulate-nests-h200.json"
MODEL, CORRECTED = 0.12, 0.06
"""What the mean error of a family may be, without the learned correction and with it."""


@cache
def rows():
    return measured_nests(json.loads(SAMPLES.read_text(encoding="utf-8")), H200)


def test_every_family_is_within_its_error_with_and_without_the_correction():
    pytest.importorskip("sklearn")
    found = {e.family: e for e in nest_errors(rows())}
    assert {f: e.model.count for f, e in found.items()} == {
        "attention_prefill": 30, "attention_decode": 10, "attention_paged": 10, "gpu_rows": 12, "all": 62,
    }  # fmt: skip
    for family, errors in found.items():
        assert errors.model.mean_error <= MODEL, family
        assert errors.corrected.mean_error <= CORRECTED, family


def test_a_slower_machine_is_told_apart():
    """The samples are no numbers that any model would fit: at half the bandwidth it is off by far."""
    slow = replace(H200, levels=tuple(
        replace(m, read=m.read / 2, copy=m.copy / 2) if m.read and m.copy else m for m in H200.levels
    ))  # fmt: skip
    data = json.loads(SAMPLES.read_text(encoding="utf-8"))
    off = [abs(r.predicted / r.seconds - 1) for r in measured_nests(data, slow) if r.family == "gpu_rows"]
    assert sum(off) / len(off) > 0.5


def test_what_has_no_design_or_is_unknown_is_passed_over():
    data = {"results": [
        {"family": "attention_ragged", "name": "x", "raw": {"design": {}}},
        {"family": "gpu_rows", "name": "rmsnorm 8192x4096 bf16", "raw": {}},
    ]}  # fmt: skip
    assert measured_nests(data, H200) == []


def test_a_result_of_a_default_that_is_made_no_more_is_passed_over():
    data = json.loads(SAMPLES.read_text(encoding="utf-8"))
    result = next(r for r in data["results"] if r["name"] == "rmsnorm 8192x4096 bf16")

    def found(**changed):
        raw = {**result["raw"], "default": {**result["raw"]["default"], **changed}}
        return measured_nests({"results": [{**result, "raw": raw}]}, H200)

    assert found()
    assert found(**{"cache.x": "cs"})  # a word to caches
    assert found(warps=16) == []
