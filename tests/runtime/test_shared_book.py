"""The background beside others: two that learn into one book, and one whose disk is full."""

from __future__ import annotations

import resource
import threading
import warnings

import numpy as np
import pytest

from tilewright import ops
from tilewright.design.book.store import Book
from tilewright.runtime import learner
from tilewright.runtime.background import BackgroundProcess, Budget
from tilewright.runtime.learner import job_of
from tilewright.runtime.trigger import Trigger

pytestmark = pytest.mark.usefixtures("table")


def called(table, depth):
    """A shape that was called once: its slot, and a check that it still computes."""
    random = np.random.default_rng(depth)
    x, w = random.standard_normal((24, depth), np.float32), random.standard_normal((48, depth), np.float32)
    before = {slot.key for slot in table.slots()}

    def check():
        np.testing.assert_allclose(ops.linear(x, w), x.astype(np.float64) @ w.T.astype(np.float64), atol=1e-4)

    check()
    (slot,) = (s for s in table.slots() if s.key not in before)
    return slot, check


def test_two_processes_learn_into_one_book(table):
    """Both search the same shape at once, and then one of their own; the book has all three, whole."""
    shared, one, other = (called(table, depth)[0] for depth in (32, 40, 56))
    answers = {}

    def learn(name, slots):
        process = BackgroundProcess(Budget(share=1.0))
        try:
            jobs = ({"job": "design", **job_of(s), "trials": 3, "seconds": 60.0, "seed": 0} for s in slots)
            answers[name] = [process.ask(job) for job in jobs]
        finally:
            process.stop()

    threads = [threading.Thread(target=learn, args=(n, [shared, own])) for n, own in enumerate((one, other))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [a["status"] for found in answers.values() for a in found] == ["found"] * 4
    book = Book.open()
    assert book.verify().problems == ()
    assert {dict(r.key.sizes)["K"] for r in book.list()} == {32, 40, 56}


def test_a_full_disk_ends_no_call_and_no_learner(table):
    """No file of the background grows beyond a few bytes: what it finds is lost, and calls go on."""
    slot, check = called(table, 32)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    learning = learner.start(trigger=Trigger(count=1, payback=None), budget=Budget(trials=2, share=1.0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (512, hard))  # the background inherits it
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            assert learning.wait_idle(1200.0)
            check()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        learner.stop()
    assert slot.state in ("given up", "kept generic", "specialised")
    check()
    assert Book.open().verify().problems == ()
