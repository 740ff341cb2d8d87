"""Trials on a GPU: kernels that trap, stray or hang cost their process, and the search goes on."""

from __future__ import annotations

import json
import random
import sys
from pathlib import Path

import pytest

import tilewright as tw
from tilewright.design.book.store import Book
from tilewright.design.default import default_design
from tilewright.design.space import random_design
from tilewright.machines import nvidia
from tilewright.runtime import trial
from tilewright.runtime.subject import Subject

SIZES = {"M": 37, "D": 1000}


@pytest.fixture(autouse=True)
def apart(monkeypatch, tmp_path):
    monkeypatch.setenv("TILEWRIGHT_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("MISBEHAVING", "{}")
    monkeypatch.setattr(sys, "path", [*sys.path, str(Path(__file__).parent)])
    monkeypatch.setitem(trial.WORKERS, "nvidia", "misbehaving_worker")


def designs(count):
    """The default design of a softmax, and others drawn at random."""
    subject = Subject.of(tw.operators.softmax, SIZES, "f32", machine=nvidia.detect())
    found, rng = [default_design(subject.kernel, subject.facts)], random.Random(0)
    while len(found) < count:
        design = random_design(subject.kernel, subject.facts, rng)
        if design not in found:
            found.append(design)
    return subject, found


def test_each_failure_ends_in_its_outcome_and_the_others_are_timed(monkeypatch):
    subject, tried = designs(6)
    behaviours = dict(zip([d.hash for d in tried[1:4]], ("trap", "hang", "stray"), strict=True))
    monkeypatch.setenv("MISBEHAVING", json.dumps(behaviours))
    with trial.TrialRunner(subject, seconds_limit=10.0) as runner:
        outcomes = runner.evaluate(tried)
        assert [o.status for o in outcomes] == ["ok", "crash", "hang", "crash", "ok", "ok"]
        assert "the kernel trapped" in outcomes[1].reason and "the kernel trapped" in outcomes[3].reason
        assert runner.restarts == 3
        standings = runner.compare([tried[0], tried[4], tried[5]])
    assert all(0 < s.seconds < 1e-3 for s in standings)


def test_a_search_quarantines_what_traps_and_finds_a_design(monkeypatch, tmp_path):
    subject, _ = designs(1)

    def search(book):
        return tw.search(
            tw.operators.softmax, dtype="f32", machine=subject.machine, budget="6 trials", book=book, **SIZES
        )

    dry = search(Book.open(tmp_path / "dry.sqlite"))
    assert dry.result is not None
    bad = dry.result.trials[1].design
    monkeypatch.setenv("MISBEHAVING", json.dumps({bad.hash: "trap"}))
    book = Book.open(tmp_path / "book.sqlite")
    found = search(book)
    assert found.record.seconds > 0 and found.design != bad
    assert "trapped" in book.quarantined(found.record.key)[bad.hash]
