"""While somebody captures a CUDA graph: calls are counted and not timed, and nothing is asked that ends the capture."""

from __future__ import annotations

from contextlib import nullcontext

import pytest
from capturing_driver import GLOBAL, CapturingDriver, Result

from tilewright.errors import LaunchError
from tilewright.runtime.cuda import capture, driver, memory, streams
from tilewright.runtime.cuda.stopwatch import Stopwatch
from tilewright.runtime.monitor import Tally

CAPTURED, FREE = 7, 8


@pytest.fixture
def gpu(monkeypatch):
    """A driver that is not there."""
    made = CapturingDriver()
    for module in (driver, capture):
        monkeypatch.setattr(module, "driver", lambda: made)
    monkeypatch.setattr(driver, "inside", lambda _: nullcontext())
    monkeypatch.setattr(driver, "use", lambda _: None)
    monkeypatch.setattr(memory, "_of_graphs", [])
    monkeypatch.setattr(streams, "stream_of", lambda _: CAPTURED)
    monkeypatch.setitem(memory.sys.modules, "torch", None)
    return made


def timed_once(gpu, watch):
    """A launch between two events, whose time nobody has read."""
    tally = Tally()
    watch.time(FREE, lambda: None, tally)
    gpu.passed |= set(range(200))
    gpu.done.clear()
    return tally


def test_a_launch_of_a_capture_is_made_and_not_timed(gpu):
    watch, ran = Stopwatch(0), []
    before = timed_once(gpu, watch)
    gpu.captured[CAPTURED] = 1
    tally = Tally()
    watch.time(CAPTURED, lambda: ran.append(1), tally)
    assert ran == [1]
    assert gpu.done == [] and not gpu.lost
    assert (tally.seconds, before.seconds) == (0.0, 0.0)


@pytest.mark.parametrize("elsewhere", [False, True])
def test_a_launch_beside_a_capture_is_timed_and_ends_none(gpu, elsewhere):
    """On another stream than the one that is captured, by this thread or another one."""
    watch, tally = Stopwatch(0), Tally()
    before = timed_once(gpu, watch)
    gpu.elsewhere = elsewhere
    gpu.captured = {} if elsewhere else {CAPTURED: 1}
    for _ in range(2):
        watch.time(FREE, lambda: None, tally)
    Stopwatch(0).time(FREE, lambda: None, Tally())
    assert {"query", "make", "record"} <= set(gpu.done)
    assert not gpu.lost and gpu.mode == GLOBAL
    assert before.seconds == tally.seconds == 0.25e-3


def test_a_launch_that_fails_leaves_the_thread_as_it_was(gpu):
    def fail():
        raise LaunchError("no")

    with pytest.raises(LaunchError):
        Stopwatch(0).time(FREE, fail, Tally())
    assert gpu.mode == GLOBAL


def test_kernels_are_loaded_and_memory_taken_and_given_back_beside_a_capture(gpu):
    gpu.captured[CAPTURED] = 1
    assert driver.load(b"", "f", 0, 32, 0, 1).resident == 1
    taken = memory.device_memory(100, 0, zeroed=True)
    memory.Allocation(100, 0)
    assert gpu.done == ["load", "allocate", "wait", "allocate", "free"]
    assert not gpu.lost
    assert memory._of_graphs == [taken]  # the graph has its address
    gpu.captured.clear()
    memory.device_memory(100, 0, zeroed=True)
    assert memory._of_graphs == [taken]


def test_what_this_guards_against_does_end_a_capture(gpu):
    gpu.captured[CAPTURED] = 1
    gpu.cuEventQuery(1)
    assert gpu.lost
    assert capture.capturing(CAPTURED)


def test_a_launch_into_a_lost_capture_says_what_loses_one():
    assert "read no value on the host" in capture.advice(Result.CUDA_ERROR_STREAM_CAPTURE_INVALIDATED)
    assert "doctor" in capture.advice(700)
