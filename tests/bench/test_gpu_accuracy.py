"""The GPU model beside everything that this project has measured on an H200, operator by operator."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest

from tilewright.bench.gpu_accuracy import FITTED, by_family, by_operator, samples
from tilewright.design.cost.correction import FEWEST_ALIKE
from tilewright.machines.machine import Machine

RESULTS = Path(__file__).parents[2] / "benchmarks" / "results"
H200 = Machine.named("h200")
MODEL, CORRECTED = 0.12, 0.06
"""What the mean error of an operator may be, without the learned correction and with it."""


@cache
def found():
    return samples(RESULTS, H200)


def test_every_operator_is_within_its_error():
    """The correction has seen no measurement of the shape that it is judged on."""
    pytest.importorskip("sklearn")
    lines = by_operator(found())
    assert {"matmul", "gate_up", "attention", "paged_attention", "rmsnorm", "softmax", "topk"} <= {
        e.name for e in lines
    }
    assert {e.name: round(e.mean, 4) for e in lines if e.mean > MODEL} == {}
    assert {e.name: round(e.corrected, 4) for e in lines if e.corrected > CORRECTED} == {}


def test_every_family_is_within_its_error_and_shapes_that_no_rate_has_seen_are_no_worse():
    pytest.importorskip("sklearn")
    lines = {e.name: e for e in by_family(found())}
    assert {e.name: round(e.mean, 4) for e in lines.values() if e.mean > MODEL} == {}
    unseen, every = (next(e for n, e in lines.items() if n.startswith(word)) for word in ("of them", "all of"))
    assert unseen.count > every.count / 2
    assert unseen.corrected <= CORRECTED
    assert every.corrected < every.mean


def test_a_shape_is_in_one_group_in_every_file():
    names = {}
    for s in found():
        names.setdefault(s.name, set()).add(s.group)
    assert all(len(groups) == 1 for groups in names.values())
    shared = {s.group for s in found() if s.family == FITTED} & {s.group for s in found() if s.family != FITTED}
    assert shared
    assert not any(f" {word}" in str(s.group) for s in found() for word in ("k8", "pages of"))
    paged = [s for s in found() if s.family == "attention_paged"]
    assert paged
    assert {s.group for s in paged} <= {s.group for s in found() if s.family == "attention_decode"}


def test_operators_of_few_shapes_keep_the_word_of_the_model():
    pytest.importorskip("sklearn")
    shapes = {s.operator: {t.group for t in found() if t.operator == s.operator} for s in found()}
    few = [e for e in by_operator(found()) if len(shapes[e.name]) <= FEWEST_ALIKE]
    many = [e for e in by_operator(found()) if len(shapes[e.name]) > 2 * FEWEST_ALIKE]
    assert few and many
    assert all(e.corrected == e.mean for e in few)
    assert all(e.corrected <= e.mean for e in many)
    assert sum(e.corrected for e in many) < 0.75 * sum(e.mean for e in many)


def test_the_newest_results_are_read(tmp_path):
    for pattern in ("gpu-h200-*.json", "decode-gpu-h200-*.json", "rows-gpu-h200-*.json"):
        newest = sorted(RESULTS.glob(pattern))[-1].read_text(encoding="utf-8")
        (tmp_path / pattern.replace("*", "2026-01-01")).write_text('{"results": []}')
        (tmp_path / pattern.replace("*", "2026-12-31")).write_text(newest)
    (tmp_path / "probes").mkdir()
    probe = sorted(RESULTS.glob("probes/simulate-rows-h200-*.json"))[-1]
    shortened = json.loads(probe.read_text(encoding="utf-8"))
    shortened["results"] = [r for r in shortened["results"] if r["kind"] == "decode"][:2]
    (tmp_path / "probes" / probe.name).write_text(json.dumps(shortened))
    here = samples(tmp_path, H200)
    assert [s for s in here if s.family != FITTED] == [s for s in found() if s.family != FITTED]
    assert len([s for s in here if s.family == FITTED]) == 2


def test_a_wrong_model_is_seen():
    """At half the bandwidth rows are off by far; so no number of the samples is the model's own."""
    slow = replace(H200, levels=tuple(
        replace(m, read=m.read / 2, copy=m.copy / 2) if m.read and m.copy else m for m in H200.levels
    ))  # fmt: skip
    off = [abs(s.row[1] / s.row[2] - 1) for s in samples(RESULTS, slow) if s.family == "gpu_rows"]
    assert sum(off) / len(off) > 0.5
