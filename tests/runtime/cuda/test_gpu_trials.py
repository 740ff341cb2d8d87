"""Trials on a GPU, with a device that is none: kernels that trap, hang or are wrong cost their process only."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

import tilewright as tw
from tilewright.design.default import default_design
from tilewright.design.space import random_design
from tilewright.machines import nvidia
from tilewright.runtime import trial
from tilewright.runtime.subject import Subject

H200 = tw.Machine.named("h200")
SIZES = {"M": 5, "D": 64}


@pytest.fixture(autouse=True)
def fake(monkeypatch, tmp_path):
    monkeypatch.setenv("TILEWRIGHT_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("FAKE_GPU", "{}")
    monkeypatch.setattr(sys, "path", [*sys.path, str(Path(__file__).parent)])
    monkeypatch.setattr(nvidia, "detect", lambda device=0: H200)
    monkeypatch.setitem(trial.WORKERS, "nvidia", "fake_gpu_worker")


def designs(count):
    import random

    subject = Subject.of(tw.operators.softmax, SIZES, "f32", machine=H200)
    found, rng = [default_design(subject.kernel, subject.facts)], random.Random(0)
    while len(found) < count:
        design = random_design(subject.kernel, subject.facts, rng)
        if design not in found:
            found.append(design)
    return subject, found


def test_what_a_kernel_does_to_the_device_ends_in_its_outcome(monkeypatch):
    subject, tried = designs(5)
    behaviours = dict(zip([d.hash for d in tried[1:4]], ("trap", "hang", "wrong"), strict=True))
    monkeypatch.setenv("FAKE_GPU", json.dumps(behaviours))
    with trial.TrialRunner(subject, seconds_limit=5.0) as runner:
        outcomes = runner.evaluate(tried)
        assert [o.status for o in outcomes] == ["ok", "crash", "hang", "wrong", "ok"]
        assert "illegal memory access" in outcomes[1].reason
        assert runner.restarts == 2
        standings = runner.compare([tried[0], tried[4]])
    assert standings[0].ratio == 1.0 and standings[1].seconds > 0


def test_a_search_keeps_what_it_found_in_the_book():
    found = tw.search(tw.operators.softmax, dtype="f32", machine=H200, budget="3 trials", **SIZES)
    assert (found.found, found.trials) == ("search", 3)
    again = tw.search(tw.operators.softmax, dtype="f32", machine=H200, budget="3 trials", **SIZES)
    assert (again.found, again.design) == ("book", found.design)


def test_without_a_gpu_the_search_says_so(monkeypatch):
    def none(device=0):
        raise tw.errors.MachineError("no driver")

    monkeypatch.setattr(nvidia, "detect", none)
    with pytest.raises(tw.errors.MachineError, match="cannot be measured on"):
        tw.search(tw.operators.softmax, dtype="f32", machine=H200, budget="3 trials", **SIZES)
