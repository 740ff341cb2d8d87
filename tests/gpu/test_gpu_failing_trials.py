"""Trials on a GPU: kernels that trap, stray or hang cost their process, and the search goes on."""

from __future__ import annotations

from pathlib import Path

import pytest
from worker_trials import Worker, outcomes, softmax_designs

import tilewright as tw
from tilewright.design.book.store import Book
from tilewright.machines import nvidia

SIZES = {"M": 37, "D": 1000}


@pytest.fixture(autouse=True)
def worker(monkeypatch, tmp_path):
    return Worker(monkeypatch, tmp_path / "cache", Path(__file__).parent, "misbehaving_worker", "MISBEHAVING")


def test_each_failure_ends_in_its_outcome_and_the_others_are_timed(worker):
    # Each design is compiled by a process of its own, which starts for it: as few as show what is asked.
    subject, tried = softmax_designs(nvidia.detect(), SIZES, 6)
    found, restarts, standings = outcomes(worker, subject, tried, ("trap", "hang", "stray", "large"), 10.0)
    assert [o.status for o in found] == ["ok", "crash", "hang", "crash", "memory", "ok"]
    assert "GPU 0 ran out of memory" in found[4].reason and "end other programs" in found[4].reason
    assert "the kernel trapped" in found[1].reason and "the kernel trapped" in found[3].reason
    assert restarts == 3
    assert all(0 < s.seconds < 1e-3 for s in standings)


def test_a_search_quarantines_what_traps_and_finds_a_design(worker, tmp_path):
    subject, _ = softmax_designs(nvidia.detect(), SIZES, 1)

    def search(book):
        return tw.search(
            tw.operators.softmax, dtype="f32", machine=subject.machine, budget="3 trials", book=book, **SIZES
        )

    dry = search(Book.open(tmp_path / "dry.sqlite"))
    assert dry.result is not None
    bad = dry.result.trials[1].design
    worker.misbehave({bad.hash: "trap"})
    book = Book.open(tmp_path / "book.sqlite")
    found = search(book)
    assert found.record.seconds > 0 and found.design != bad
    assert "trapped" in book.quarantined(found.record.key)[bad.hash]
