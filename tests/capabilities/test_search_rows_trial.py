"""Rows of the list of capabilities that the run-time half of search answers for."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import tilewright as tw
from tilewright.design.book.store import Book
from tilewright.design.trial import Budget
from tilewright.runtime import child, dispatch, tolerance
from tilewright.runtime.table import Table
from tilewright.runtime.trial import TrialRunner

SIZES = {"M": 20, "N": 48, "K": 40}
FEW = Budget(trials=4)


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """A cache folder, and so a book, of its own, and a process that knows no kernel."""
    monkeypatch.setenv("TILEWRIGHT_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("TILEWRIGHT_THREADS", "1")
    for known in ("_listed", "_kernels", "_by_design"):
        monkeypatch.setattr(dispatch, known, {})
    monkeypatch.setattr(dispatch, "TABLE", Table())
    return tmp_path / "cache"


def designed(**how):
    return tw.search(tw.operators.matmul, dtype="f32", budget=how.pop("budget", FEW), **{**SIZES, **how})


# ------------------------------------------------------------------------------------------------- B9
def test_B9_a_second_run_searches_nothing(monkeypatch):
    first = designed()
    assert (first.found, first.trials) == ("search", 4)
    assert first.compiles > 0
    monkeypatch.setattr(subprocess, "Popen", lambda *_, **__: pytest.fail("a process was started"))
    monkeypatch.setattr("tilewright.build.kernel_cache._compiled", lambda *_: pytest.fail("a kernel was compiled"))
    second = designed()
    assert (second.found, second.trials, second.compiles) == ("book", 0, 0)
    assert second.record == first.record


def test_B9_another_process_finds_it_too(home):
    first = designed()
    code = (
        "import tilewright as tw; from tilewright.runtime import trial\n"
        "trial.TrialRunner.__init__ = None\n"
        f"d = tw.search(tw.operators.matmul, dtype='f32', **{SIZES})\n"
        "print(d.found, d.trials, d.compiles, d.design.hash)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["book", "0", "0", first.design.hash]


def test_B9_a_launch_takes_the_design_of_the_book():
    found = designed()
    operands = {"a": (20, 40), "b": (48, 40), "c": (20, 48)}
    arrays = {n: np.random.default_rng(0).standard_normal(s, np.float32) for n, s in operands.items()}
    tw.launch(tw.operators.matmul.kernel, **arrays)
    tolerance.check("c", arrays["c"], tw.operators.matmul.reference(arrays["a"], arrays["b"])["c"])
    assert [k.design for k in dispatch.kernels()] == [found.design]


def test_B9_what_was_cut_off_goes_on_where_it_was():
    def after_the_first_batch(seen):
        if len(seen.trials) > 1:
            raise KeyboardInterrupt

    cut = designed(budget=Budget(trials=12), progress=after_the_first_batch)
    assert cut.result.stopped == "interrupted"
    kept = {t.design: t.outcome for t in cut.result.trials}
    rest = designed(budget=Budget(trials=12))
    assert rest.result.stopped == "budget"
    assert rest.trials == 12 - len(kept)
    assert {t.design: t.outcome for t in rest.result.trials if t.design in kept} == kept


def test_B9_a_killed_search_loses_no_trial(home):
    code = (
        "import os, signal, tilewright as tw\n"
        "def kill(seen):\n"
        "    if len(seen.trials) > 1: os.kill(os.getpid(), signal.SIGKILL)\n"
        f"tw.search(tw.operators.matmul, dtype='f32', budget='12 trials', progress=kill, **{SIZES})\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    assert done.returncode == -signal.SIGKILL
    rest = designed(budget=Budget(trials=12))
    assert rest.result.stopped == "budget"
    assert 0 < rest.trials < 11


def test_no_process_outlives_a_killed_search(tmp_path):
    """A worker inside a kernel that never returns dies with its parent."""
    code = (
        "import os, sys, signal, threading\n"
        "from tilewright.runtime.child import Child\n"
        "from pathlib import Path\n"
        f"child = Child('endless', {{}}, Path({str(tmp_path)!r}), memory_limit=1 << 30)\n"
        "threading.Thread(target=child.ask, args=({}, 60.0), daemon=True).start()\n"
        "while not child.ready: pass\n"
        "print(child.ready['pid'], flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([*sys.path, str(Path(__file__).parent.parent / "runtime")]),
    }
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    worker = int(done.stdout)
    for _ in range(60_000):
        state = Path(f"/proc/{worker}/stat")
        if not state.exists() or state.read_text().split()[2] == "Z":
            return
        signal.sigtimedwait([], 0.01)
    pytest.fail(f"process {worker} goes on")


# -------------------------------------------------------------------------------- a user's own kernel
USER = """
from tilewright import Scalar, Tensor, f32, kernel, parallel, tiles, zeros, maximum

@kernel
def scaled_rows(x: Tensor["M", "D"], y: Tensor["M", "D"], alpha: Scalar["f32"]):
    for i in parallel("M"):
        total = zeros(i, dtype=f32)
        for d in tiles("D"):
            v = x[i, d].to(f32)
            total += (v * v).sum(d)
        for d in tiles("D"):
            y[i, d] = alpha * x[i, d].to(f32) / maximum(total, 1e-6)
"""


def test_a_users_kernel_is_designed_from_its_file(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(USER)
    found = tw.search(f"{path}:scaled_rows", dtype="bf16", budget=FEW, M=9, D=130)
    assert {t.outcome.status for t in found.result.trials} == {"ok"}
    kernel = tw.compile(tw.runtime.subject.named(f"{path}:scaled_rows"), found)
    x = np.random.default_rng(1).standard_normal((9, 130), np.float32).astype(tw.bf16.numpy)
    y = np.zeros_like(x)
    kernel.run(x, y, alpha=0.5)
    wide = x.astype(np.float64)
    np.testing.assert_allclose(y.astype(np.float64), 0.5 * wide / (wide**2).sum(1, keepdims=True), rtol=2**-8)


def test_a_book_that_is_given_is_used_and_the_default_one_left_alone(home):
    book = Book.in_memory()
    found = designed(book=book)
    assert book.get(found.key).design == found.design
    assert Book.open().get(found.key) is None


def test_a_worker_that_cannot_start_says_so(tmp_path):
    nothing = child.Child("no.such.module", {}, tmp_path, memory_limit=1 << 30)
    with pytest.raises(child.ChildError, match="did not start"):
        nothing.ask({}, 1.0)


def test_a_machine_that_this_host_cannot_stand_in_for_is_refused():
    with pytest.raises(tw.errors.MachineError, match="cannot be measured on"):
        TrialRunner(tw.operators.matmul, SIZES, "f32", tw.Machine.named("h200"))
