"""Trials on a GPU, with a device that is none: kernels that trap, hang or are wrong cost their process only."""

from __future__ import annotations

from pathlib import Path

import pytest
from worker_trials import Worker, outcomes, softmax_designs

import tilewright as tw
from tilewright.machines import nvidia
from tilewright.runtime import trial

H200 = tw.Machine.named("h200")
SIZES = {"M": 5, "D": 64}


@pytest.fixture(autouse=True)
def worker(monkeypatch, tmp_path):
    monkeypatch.setattr(nvidia, "detect", lambda device=0: H200)
    return Worker(monkeypatch, tmp_path / "cache", Path(__file__).parent, "fake_gpu_worker", "FAKE_GPU")


def test_what_a_kernel_does_to_the_device_ends_in_its_outcome(worker):
    subject, tried = softmax_designs(H200, SIZES, 6)
    found, restarts, standings = outcomes(worker, subject, tried, ("trap", "hang", "wrong", "large"), 5.0)
    assert [o.status for o in found] == ["ok", "crash", "hang", "wrong", "memory", "ok"]
    assert "illegal memory access" in found[1].reason
    assert "ran out of memory" in found[4].reason and "end other programs" in found[4].reason
    assert restarts == 2
    assert standings[0].ratio == 1.0 and standings[1].seconds > 0


def test_what_kernels_take_is_known_before_they_run():
    subject, tried = softmax_designs(H200, SIZES, 3)
    with trial.TrialRunner(subject) as runner:
        usages = runner.usages(tried)
        assert set(usages) == set(tried) and all(u.registers > 0 and u.threads >= 32 for u in usages.values())
        before = runner.compiled
        assert [o.status for o in runner.evaluate(tried)] == ["ok"] * 3
        assert runner.compiled == before


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
