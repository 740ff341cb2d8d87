"""Rows of the list of capabilities that the specialising run time answers for, end to end."""

from __future__ import annotations

import subprocess
import sys
import threading

import numpy as np
import pytest
from fake_background import Clock, FakeBackground, faster, learner

import tilewright as tw
from tilewright import ops
from tilewright.design.book.record import Record
from tilewright.design.design import Design
from tilewright.design.trial import Budget
from tilewright.machines.machine import Machine
from tilewright.observe.why import why
from tilewright.runtime import background, dispatch, modes, rebind
from tilewright.runtime.buckets import Range, Shape, range_of
from tilewright.runtime.learner import job_of
from tilewright.runtime.monitor import MONITOR
from tilewright.runtime.table import Table
from tilewright.runtime.trigger import Trigger


@pytest.fixture(autouse=True)
def table(tmp_path, monkeypatch):
    """As a new process would begin: a cache folder, a book and a table of this test's own."""
    monkeypatch.setenv("TILEWRIGHT_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("TILEWRIGHT_THREADS", "1")
    return begin_again(monkeypatch)


def begin_again(monkeypatch) -> Table:
    for known in ("_listed", "_kernels", "_by_design"):
        monkeypatch.setattr(dispatch, known, {})
    monkeypatch.setattr(dispatch, "TABLE", Table())
    MONITOR.reset()
    rebind.forget()
    return dispatch.TABLE


def linear(rows: int, columns: int = 48, depth: int = 32) -> np.ndarray:
    """A product of fixed operands, checked."""
    chance = np.random.default_rng(rows)
    x, w = chance.standard_normal((rows, depth), np.float32), chance.standard_normal((columns, depth), np.float32)
    y = ops.linear(x, w)
    np.testing.assert_allclose(y, x.astype(np.float64) @ w.T.astype(np.float64), rtol=1e-5, atol=1e-4)
    return y


def attention(batch: int, length: int) -> None:
    q, kv = np.ones((batch, 2, 1, 16), np.float32), np.ones((batch, 2, length, 16), np.float32)
    np.testing.assert_allclose(ops.attention(q, kv, kv), 1.0, rtol=1e-5)


def test_A1_shapes_are_counted_exactly_by_threads_at_once():
    threads = [threading.Thread(target=lambda: [attention(3, 100) for _ in range(25)]) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    attention(5, 20)
    assert MONITOR.counts() == {
        Shape("attention", Range(2, 4), Range(65, 256), "f32", "cpu"): 200,
        Shape("attention", Range(5, 16), Range(17, 64), "f32", "cpu"): 1,
    }


def test_A2_a_count_triggers(table, tmp_path):
    learning = learner(table, FakeBackground(tmp_path), trigger=Trigger(count=5, payback=None))
    for n in range(1, 8):
        linear(24)
        assert learning.step() is (n == 5) or n > 5
    assert learning.status().searches == 1


def test_A3_an_interval_triggers(table, tmp_path):
    clock = Clock()
    learning = learner(
        table, FakeBackground(tmp_path), trigger=Trigger(count=None, interval=60.0, payback=None), clock=clock
    )
    linear(24)
    assert not learning.step()
    clock.now += 61
    assert learning.step()


def test_A4_a_key_triggers_once_and_never_again(table, tmp_path):
    asked = FakeBackground(tmp_path)
    learning = learner(table, asked)
    for rows in (17, 24, 64, 40, 30):
        for _ in range(5):
            linear(rows)
        learning.step()
    assert [j["job"] for j in asked.jobs].count("design") == 1
    linear(65), linear(65), linear(65)
    learning.step()
    assert [j["job"] for j in asked.jobs].count("design") == 2


def test_A5_kernels_are_designed_and_compiled_in_another_process(table):
    """A search in the background's own process compiles there; this process loads what it left on disk."""
    linear(24)
    (slot,) = table.slots()
    before = modes.counts()
    process = background.BackgroundProcess(background.Budget(share=1.0))
    try:
        answer = process.ask({"job": "design", **job_of(slot), "trials": 3, "seconds": 300.0, "seed": 0})
    finally:
        process.stop()
    assert (answer["status"], answer["trials"]) == ("found", 3)
    assert answer["compiles"] > 0
    record = Record.from_dict(answer["record"])
    dispatch.compiled(slot.origin.program, slot.origin.request(dict(slot.common), record.design))
    after = modes.counts()
    assert (after.compiles - before.compiles, after.loads - before.loads) == (0, 1)


def test_A6_the_table_is_updated_atomically_bounded_and_evicts_the_coldest(monkeypatch, tmp_path):
    small = Table(capacity=4)
    monkeypatch.setattr(dispatch, "TABLE", small)
    learning = learner(small, FakeBackground(tmp_path))
    for _ in range(3):
        linear(24)
    learning.step()
    for _ in range(5):
        linear(24)
    for columns in range(1, 30):
        linear(1, columns)
        assert len(small) <= 4
    kept = small.why("matmul", M=24)
    assert [(r.state, r.hits) for r in kept] == [("specialised", 5)]


@pytest.mark.parametrize("numerics", ["pinned", "free"])
def test_A7_hit_and_miss_give_identical_bits_under_pinned_numerics(table, tmp_path, monkeypatch, numerics):
    """A design that splits the sum otherwise changes bits: pinned keeps the generic kernel, free takes it."""
    monkeypatch.setenv("TILEWRIGHT_NUMERICS", numerics)
    split = Design.of({"tile.m": 1, "tile.n": 2, "tile.k": 8, "lanes": ("k",)})
    learning = learner(table, FakeBackground(tmp_path, lambda job: faster(job, design=split)))
    before = linear(24, depth=300)
    linear(24, depth=300), linear(24, depth=300)
    learning.step()
    assert table.rows()[0].state == "specialised"
    after = linear(24, depth=300)
    assert (before.tobytes() == after.tobytes()) is (numerics == "pinned")


@pytest.mark.parametrize(("low", "high"), [(1, 1), (2, 4), (5, 16), (17, 64), (65, 256)])
def test_A8_kernels_are_specialised_by_batch_range_to_its_very_edges(table, tmp_path, low, high):
    learning = learner(table, FakeBackground(tmp_path))
    for _ in range(3):
        linear(high)
    learning.step()
    for rows, inside in ((low, True), (high, True), (high + 1, False), (low - 1, False)):
        if rows:
            hits = sum(r.hits for r in table.rows())
            linear(rows)
            assert (sum(r.hits for r in table.rows()) > hits) is inside
            assert (range_of(rows) == Range(low, high)) is inside


def test_A18_frozen_compiles_searches_and_writes_nothing_and_has_what_was_learnt(table, tmp_path, monkeypatch):
    """Another process, after one that learnt: lengths of the same range find the design, and nothing is touched."""
    found = tw.search(tw.operators.matmul, M=24, N=48, K=32, dtype="f32", budget=Budget(trials=4))
    linear(24), linear(30)
    folder = tmp_path / "cache"
    before = {p: (p.stat().st_mtime_ns, p.stat().st_size) for p in sorted(folder.rglob("*")) if p.is_file()}
    code = (
        "import numpy as np\nfrom tilewright import ops\nfrom tilewright.runtime import dispatch, modes, learner\n"
        "learner.start()\n"
        "for m in (24, 30): ops.linear(np.ones((m, 32), np.float32), np.ones((48, 32), np.float32))\n"
        "c = modes.counts()\n"
        "print(c.compiles, c.frozen_compiles, learner.current().active, {r.design for r in dispatch.TABLE.rows()})\n"
    )
    monkeypatch.setenv("TILEWRIGHT_MODE", "frozen")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    better = found.speedup > 1
    design = repr({found.design.hash}) if better else "{None}"
    assert done.stdout.strip() == f"0 0 False {design}"
    after = {p: (p.stat().st_mtime_ns, p.stat().st_size) for p in sorted(folder.rglob("*")) if p.is_file()}
    assert {p: s for p, s in after.items() if "book" not in p.name} == {
        p: s for p, s in before.items() if "book" not in p.name
    }


def test_a_book_of_a_machine_with_more_instructions_is_a_miss(table, monkeypatch):
    """Designs are kept by machine: on a weaker one none of them is launched, and the generic kernel answers."""
    tw.search(tw.operators.matmul, M=24, N=48, K=32, dtype="f32", budget=Budget(trials=3))
    begin_again(monkeypatch)
    weaker = Machine.named("x86-avx2")
    monkeypatch.setattr(dispatch, "machine", lambda: weaker)
    linear(24)
    (row,) = dispatch.TABLE.rows()
    assert (row.state, row.design, row.misses) == ("generic", None, 1)
    told = why("matmul", {"M": 24, "N": 48, "K": 32}, "f32")
    assert told.row.design is None
    assert "no design for this key" in told.book and "machine" in told.book.partition("differs in")[2]
