"""Known calls on the CPU: run by compiled code, counted exactly, timed now and then, and following every swap."""

from __future__ import annotations

import threading

import numpy as np
import pytest
import torch

from tilewright import ops
from tilewright.runtime import builtin, dispatch
from tilewright.runtime.host_record import HostCall
from tilewright.runtime.monitor import MONITOR, SAMPLE
from tilewright.runtime.table import Special

pytestmark = [
    pytest.mark.skipif(not builtin.possible(), reason="this interpreter runs no records"),
    pytest.mark.usefixtures("table"),
]
KINDS = pytest.mark.parametrize("convert", [np.asarray, torch.from_numpy], ids=["numpy", "torch"])


def operands(convert, rows=24):
    random = np.random.default_rng(rows)
    x, w = random.standard_normal((rows, 32), np.float32), random.standard_normal((48, 32), np.float32)
    return convert(x), convert(w), x.astype(np.float64) @ w.T.astype(np.float64)


def special_of(slot, **decisions):
    sizes = dict(slot.common)
    design = slot.origin.request(sizes).design.with_(**decisions)
    kernel = dispatch.compiled(slot.origin.program, slot.origin.request(sizes, design))
    return Special(kernel, slot.common, 1.0, 2.0)


@pytest.fixture
def asked(monkeypatch):
    """How often compiled code left a call to Python."""
    calls, plain = [], HostCall.again

    def again(self, status):
        calls.append(self)
        plain(self, status)

    monkeypatch.setattr(HostCall, "again", again)
    return calls


@KINDS
def test_each_call_is_counted_once_and_one_in_thirty_two_is_timed(table, asked, convert):
    x, weight = convert(np.full((4, 64), 2.0, np.float32)), convert(np.ones(64, np.float32))
    MONITOR.reset()
    ops.rmsnorm(x, weight)
    ops.rmsnorm(x, weight)  # torch's first call shows what a tensor is
    (slot,) = table.slots()
    before = slot.calls
    asked.clear()
    for n in range(2 * (SAMPLE + 1)):
        y = ops.rmsnorm(x, weight)
        np.testing.assert_allclose(np.asarray(y), 1.0, atol=1e-5)
        assert slot.calls == before + n + 1
    assert sum(MONITOR.counts().values()) == slot.calls
    assert len(asked) == 2
    assert slot.seconds > 0


@KINDS
def test_a_swap_is_seen_by_the_next_call_and_costs_python_once(table, asked, convert):
    x, weight = convert(np.full((4, 64), 2.0, np.float32)), convert(np.ones(64, np.float32))
    for _ in range(5):
        ops.rmsnorm(x, weight)
    (slot,) = table.slots()
    special = special_of(slot, threads=1)
    ran, entry = [], special.kernel.entry

    def watched(address):
        ran.append(address)
        entry(address)

    object.__setattr__(special.kernel, "entry", watched)  # what Python calls; compiled code calls the binary
    asked.clear()
    slot.swap(special, "specialised", "for the test")
    for _ in range(8):
        np.testing.assert_allclose(np.asarray(ops.rmsnorm(x, weight)), 1.0, atol=1e-5)
    assert len(ran) == 1
    assert slot.hits == 8
    slot.swap(None, "rolled back", "for the test")
    asked.clear()
    for _ in range(8):
        np.testing.assert_allclose(np.asarray(ops.rmsnorm(x, weight)), 1.0, atol=1e-5)
    assert 1 <= len(asked) <= 2
    assert len(ran) == 1


@KINDS
def test_a_kernel_with_workspace_is_left_to_python_and_right(table, convert):
    x, w, exact = operands(convert)
    assert ops.linear.bind(x, w, out=convert(np.empty((24, 48), np.float32))).room > 0
    for _ in range(6):
        np.testing.assert_allclose(np.asarray(ops.linear(x, w)), exact, rtol=1e-5, atol=1e-4)


def test_swaps_between_kernels_with_and_without_workspace_under_sixteen_threads(table):
    """Each thread calls by records of its own while the kernel changes under all of them; each call is counted."""
    x, w, _ = operands(np.asarray)
    ops.linear(x, w)
    (slot,) = table.slots()
    choices = [None, special_of(slot, unroll__k=2), special_of(slot, threads=1)]
    errors, calls, start = [], 300, threading.Barrier(17)

    def work(seed):
        x, w, exact = operands(np.asarray)
        x, exact = x * seed, exact * seed
        y = np.empty((24, 48), np.float32)
        start.wait()
        try:
            for _ in range(calls):
                y.fill(np.nan)
                ops.linear(x, w, out=y)
                np.testing.assert_allclose(y, exact, rtol=1e-5, atol=1e-3)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(1, 17)]
    for thread in threads:
        thread.start()
    start.wait()
    n = 0
    while any(t.is_alive() for t in threads):
        slot.swap(choices[n % 3], "specialised", "for the test")
        n += 1
    assert not errors
    assert sum(s.calls for s in table.slots()) == 16 * calls + 1


def test_new_arrays_are_results_of_their_own(table):
    x = np.full((4, 64), 2.0, np.float32)
    weight, kept = np.ones(64, np.float32), []
    for n in range(1, 50):
        kept.append((n, ops.rmsnorm(x, weight * np.float32(n))))
    for n, y in kept:
        np.testing.assert_allclose(y, n, rtol=1e-5)
    assert len({y.__array_interface__["data"][0] for _, y in kept}) == len(kept)
