"""Swaps under fire: threads that call, processes that fork, and kernels that nobody needs any more."""

from __future__ import annotations

import gc
import os
import random
import threading
import time
import weakref

import numpy as np
import pytest

from tilewright import ops
from tilewright.design.book.store import Book
from tilewright.runtime import background, dispatch, learner, modes
from tilewright.runtime.background import BackgroundProcess, Budget
from tilewright.runtime.child import ChildDied, ChildError
from tilewright.runtime.learner import job_of
from tilewright.runtime.table import Special, Table
from tilewright.runtime.trigger import Trigger

KILLS = int(os.environ.get("KILLS", "4"))
SEED = int(os.environ.get("KILLS_SEED", "7"))
"""How often the background is killed, and a seed of the moments; KILLS=200 is the long form of the test."""


pytestmark = pytest.mark.usefixtures("table")


def operands(seed: int, rows: int = 24) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    chance = np.random.default_rng(seed)
    x, w = chance.standard_normal((rows, 32), np.float32), chance.standard_normal((48, 32), np.float32)
    return x, w, x.astype(np.float64) @ w.T.astype(np.float64)


def special_of(slot, **decisions) -> Special:
    """A kernel of its own for a slot: no table, list or cache holds it but the slot."""
    sizes = dict(slot.common)
    design = slot.origin.request(sizes).design.with_(**decisions)
    kernel = dispatch.compiled(slot.origin.program, slot.origin.request(sizes, design))
    return Special(kernel, slot.common, 1.0, 2.0)


def test_sixteen_threads_call_while_kernels_are_swapped(table):
    """Each result is whole and right, each call is counted once, and the two ways to call see every swap."""
    x, w, exact = operands(0)
    ops.linear(x, w)
    (slot,) = table.slots()
    choices = [None, special_of(slot, unroll__k=2), special_of(slot, unroll__k=3), special_of(slot, threads=1)]
    calls, errors, start = 150, [], threading.Barrier(17)

    def work(seed):
        x, w, exact = operands(seed)
        y = np.empty((24, 48), np.float32)
        launch = ops.linear.bind(x, w, out=y)
        start.wait()
        try:
            for n in range(calls):
                if n % 2:
                    y.fill(np.nan)
                    launch()
                else:
                    y[...] = ops.linear(x, w)
                np.testing.assert_allclose(y, exact, rtol=1e-5, atol=1e-4)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(16)]
    for thread in threads:
        thread.start()
    start.wait()
    swaps = 0
    while any(t.is_alive() for t in threads):
        slot.swap(choices[swaps % len(choices)], "specialised", "for the test")
        swaps += 1
        time.sleep(0.0005)
    assert not errors
    assert swaps > 4
    assert sum(s.calls for s in table.slots()) == 16 * calls + 1
    np.testing.assert_allclose(ops.linear(x, w), exact, rtol=1e-5, atol=1e-4)


def test_one_launch_that_threads_share_is_never_torn_by_a_swap(table):
    """All write the same result into the same memory, so that whatever mixes two kernels' arguments shows."""
    x, w, exact = operands(1)
    y = np.full((24, 48), np.nan, np.float32)
    launch = ops.linear.bind(x, w, out=y)
    launch()
    (slot,) = table.slots()
    choices = [None, special_of(slot, unroll__k=2), special_of(slot, threads=1)]
    threads = [threading.Thread(target=lambda: [launch() for _ in range(400)]) for _ in range(8)]
    for thread in threads:
        thread.start()
    n = 0
    while any(t.is_alive() for t in threads):
        slot.swap(choices[n % 3], "specialised", "for the test")
        n += 1
    np.testing.assert_allclose(y, exact, rtol=1e-5, atol=1e-4)
    assert slot.calls == 8 * 400 + 1


def test_a_shared_launch_keeps_every_thread_to_its_own_workspace(table):
    """Threads end while others run: a call that worked in the memory of one that has ended would write into nothing."""
    x, w, exact = operands(1)
    y = np.full((24, 48), np.nan, np.float32)
    launch = ops.linear.bind(x, w, out=y)
    assert launch.room > 0
    launch()
    before = launch.words.copy()
    for _ in range(40):
        threads = [threading.Thread(target=lambda: [launch() for _ in range(3)]) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    np.testing.assert_array_equal(launch.words, before)  # what threads share is not written to
    np.testing.assert_allclose(y, exact, rtol=1e-5, atol=1e-4)


def test_a_kernel_lives_as_long_as_a_launch_uses_it_and_no_longer(table):
    x, w, exact = operands(2)
    y = np.empty((24, 48), np.float32)
    launch = ops.linear.bind(x, w, out=y)
    launch()
    (slot,) = table.slots()
    for n in range(20):
        special = special_of(slot, unroll__k=2 + n % 2)
        gone = weakref.ref(special.kernel.binary.library)
        slot.swap(special, "specialised", "for the test")
        del special
        launch()
        slot.swap(None, "generic", "for the test")
        gc.collect()
        assert gone() is not None  # the launch has not been called since, and could be under way
        launch()
        gc.collect()
        assert gone() is None
    np.testing.assert_allclose(y, exact, rtol=1e-5, atol=1e-4)


def test_ten_thousand_shapes_take_a_bounded_table(monkeypatch):
    table = Table(capacity=64)
    monkeypatch.setattr(dispatch, "TABLE", table)
    compiled = modes.counts().compiles
    for n in range(10_000):  # 3 ranges of rows by thousands of columns: a slot each
        x, w = np.ones((1 + n % 3, 8), np.float32), np.ones((1 + n // 3, 8), np.float32)
        ops.linear.bind(x, w, out=np.empty((len(x), len(w)), np.float32))
    assert len(table) <= 64
    assert table.evictions > 6000
    assert modes.counts().compiles - compiled <= 8
    assert len(dispatch._kernels) <= dispatch.MOST_KERNELS


def test_a_child_that_is_forked_while_it_learns_goes_on_calling(table):
    learning = learner.start(trigger=Trigger(count=10**9), budget=Budget())
    try:
        x, w, exact = operands(3)
        ops.linear(x, w)
        with dispatch._compiling:  # another thread may hold any lock when a process forks
            pid = os.fork()
            if not pid:
                try:
                    new, v, other = operands(4, rows=5)
                    right = np.allclose(ops.linear(x, w), exact, atol=1e-4)
                    right &= np.allclose(ops.linear(new, v), other, atol=1e-4)
                    os._exit(0 if right and learner.current() is None else 1)
                finally:
                    os._exit(2)
        _, status = os.waitpid(pid, 0)
        assert os.waitstatus_to_exitcode(status) == 0
        assert learner.current() is learning
    finally:
        learner.stop()


def test_the_background_is_killed_at_random_moments_and_callers_notice_nothing(table, tmp_path):
    """kill -9 at any moment: the call under way is right, the book is whole, and the search ends with a record."""
    x, w, exact = operands(5)
    ops.linear(x, w)
    (slot,) = table.slots()
    process, chance = BackgroundProcess(Budget(share=1.0)), random.Random(SEED)
    job = {"job": "design", **job_of(slot), "trials": 4, "seconds": 60.0, "seed": 0}
    killed = 0
    try:
        for _ in range(KILLS):
            timer = threading.Thread(target=kill_soon, args=(process, chance.uniform(0.05, 1.5)))
            timer.start()
            try:
                process.ask(job)
            except (ChildDied, ChildError) as died:  # at work, or while it started
                killed += 1
                assert "SIGKILL" in str(died)
            timer.join()
            np.testing.assert_allclose(ops.linear(x, w), exact, rtol=1e-5, atol=1e-4)
        assert killed > 0
        answer = process.ask(job)
        assert answer["status"] == "found"
    finally:
        process.stop()
    assert Book.open().verify().problems == ()


def kill_soon(process, seconds):
    """Kill the process some time after it has started; one that was never there is none to kill."""
    until = time.monotonic() + 10
    while process.pid is None and time.monotonic() < until:
        time.sleep(0.005)
    pid = process.pid
    time.sleep(seconds)
    if pid is not None and process.pid == pid:
        os.kill(pid, 9)


def test_a_background_that_cannot_start_leaves_calls_alone(table, monkeypatch):
    monkeypatch.setattr(background, "_MODULE", "tilewright.there_is_no_such_module")
    learning = learner.start(trigger=Trigger(count=1), budget=Budget())
    try:
        x, w, exact = operands(6)
        np.testing.assert_allclose(ops.linear(x, w), exact, rtol=1e-5, atol=1e-4)
        assert learning.wait_idle(1200.0)
        (row,) = table.rows()
        assert row.state == "given up"
        assert learning.status().crashes == 2
    finally:
        learner.stop()
