"""The background's budget, its gate, and what it does in one process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from fake_background import Clock

from tilewright.errors import ArgumentError
from tilewright.runtime import child as child_module
from tilewright.runtime.background import Budget, Gate, Pace, Spent
from tilewright.runtime.child import Child, ChildDied, seconds_queued


def test_an_hour_is_counted_by_when_work_ended():
    clock = Clock()
    spent = Spent(clock)
    spent.add(100.0)
    clock.now += 3000
    spent.add(50.0)
    assert spent.seconds == 150.0
    clock.now += 700
    assert spent.seconds == 50.0
    clock.now += 3600
    assert spent.seconds == 0.0


def test_the_gate_is_a_file_and_a_folder_that_is_gone_leaves_it_open(tmp_path):
    gate = Gate(tmp_path / "not-now")
    gate.close()
    assert gate.closed
    gate.open()
    gate.open()
    assert not gate.closed
    nowhere = Gate(tmp_path / "gone" / "not-now")
    nowhere.close()
    assert not nowhere.closed


def test_a_share_of_a_quarter_sleeps_three_times_what_it_worked(monkeypatch):
    now, slept = [0.0], []
    monkeypatch.setattr("tilewright.runtime.background.time.monotonic", lambda: now[0])
    monkeypatch.setattr("tilewright.runtime.background.time.sleep", slept.append)
    pace = Pace(0.25)
    now[0] = 2.0
    pace.rest()
    assert (slept, pace.worked) == ([6.0], 2.0)


@pytest.mark.parametrize(
    "how", [{"share": 0.0}, {"share": 1.5}, {"trials": 0}, {"memory": 0}, {"seconds_an_hour": -1.0}]
)
def test_a_budget_of_nothing_is_refused(how):
    with pytest.raises(ArgumentError, match=next(iter(how))):
        Budget(**how)


def test_a_child_that_is_stopped_while_it_works_says_so(tmp_path):
    """The learner is stopped by another thread than the one that waits for an answer."""
    child = Child("endless", {}, tmp_path, memory_limit=1 << 30, environment={"PYTHONPATH": os.pathsep.join(sys.path)})
    said = []

    def ask():
        try:
            child.ask({}, 60.0)
        except Exception as error:
            said.append(error)

    waiting = threading.Thread(target=ask)
    waiting.start()
    while not child.ready:
        time.sleep(0.01)
    child.stop()
    waiting.join(600.0)
    assert [type(e) for e in said] == [ChildDied]


def test_a_job_that_gets_no_processor_is_waited_for_and_not_for_ever(tmp_path):
    """Low priority on a busy machine is no fault of a design; a job that is stuck without working ends all the same."""
    child = Child("sleeper", {}, tmp_path, memory_limit=1 << 30, environment={"PYTHONPATH": os.pathsep.join(sys.path)})
    try:
        assert child.ask({"sleep": 0.4}, 0.2) == {}
        with pytest.raises(ChildDied, match=r"did not end within 0\.1 s"):
            child.ask({"sleep": 60.0}, 0.1)
    finally:
        child.stop()


def test_time_in_a_queue_for_processors_is_no_time_of_a_job(tmp_path, monkeypatch):
    """On a machine that others keep busy no job hangs because of them."""
    queued = iter([{"1": 5.0}, *({"1": 5.0 + 0.1 * n, "2": 0.1} for n in range(1000))])
    monkeypatch.setattr(child_module, "seconds_queued", lambda _: next(queued))
    child = Child("sleeper", {}, tmp_path, memory_limit=1 << 30, environment={"PYTHONPATH": os.pathsep.join(sys.path)})
    try:
        assert child.ask({"sleep": 0.4}, 0.02) == {}  # 20 times its time; each look finds 0.1 s more in the queue
        monkeypatch.setattr(child_module, "seconds_queued", lambda _: {"1": 900.0})  # before the job, and never again
        with pytest.raises(ChildDied, match=r"did not end within 0\.1 s"):
            child.ask({"sleep": 60.0}, 0.1)
    finally:
        child.stop()


@pytest.mark.skipif(not Path("/proc/self/schedstat").exists(), reason="this system does not say how long threads wait")
def test_who_shares_a_core_waits_for_it():
    core = {min(os.sched_getaffinity(0))}
    spinning = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(2)]
    try:
        for each in spinning:
            os.sched_setaffinity(each.pid, core)
        before = [(spent(each.pid), seconds_queued(each.pid)) for each in spinning]
        while any(spent(each.pid) - was < 0.2 for each, (was, _) in zip(spinning, before, strict=True)):
            time.sleep(0.02)
        for each, (_, waits) in zip(spinning, before, strict=True):
            ((thread, now),) = seconds_queued(each.pid).items()
            assert now - waits[thread] > 0.1  # the other had the core for 0.2 s
    finally:
        for each in spinning:
            each.kill()
            each.wait()
    assert seconds_queued(spinning[0].pid) == {}


def spent(pid: int) -> float:
    """Seconds that a process had a processor."""
    return int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) * 1e-9


def test_the_background_stays_in_the_session_of_its_program(tmp_path):
    """Linux weighs sessions against each other first: in one of its own, low priority would mean nothing."""
    child = Child("sleeper", {}, tmp_path, memory_limit=1 << 30, environment={"PYTHONPATH": os.pathsep.join(sys.path)})
    try:
        child.ask({}, 10.0)
        assert os.getsid(child.pid) == os.getsid(0)
        assert os.getpgid(child.pid) != os.getpgid(0)  # ctrl-C reaches the program only
    finally:
        child.stop()
