"""Calls of the driver that keep the interpreter: how they are loaded, and what they answer. No GPU is needed."""

from __future__ import annotations

import ctypes
from types import SimpleNamespace

import pytest

from tilewright.errors import LaunchError
from tilewright.runtime.cuda import at_once, driver


class Status(int):
    name = "CUDA_ERROR_TEST"


@pytest.fixture
def calls(monkeypatch):
    """What was called, in a driver that refuses contexts of number 13."""
    made = []

    def function(name):
        def call(*arguments):
            made.append((name, *arguments[:1]))
            return 201 if arguments[0] == 13 else 0

        return call

    monkeypatch.setattr(at_once, "_function", function)
    monkeypatch.setattr(at_once, "driver", lambda: SimpleNamespace(CUresult=Status))
    monkeypatch.setattr(driver, "_handle", lambda device: device)
    return made


def test_a_context_is_left_whatever_happens_inside(calls):
    with pytest.raises(ZeroDivisionError), driver.inside(7):
        raise ZeroDivisionError
    assert [name for name, *_ in calls] == ["cuCtxPushCurrent_v2", "cuCtxPopCurrent_v2"]
    assert calls[0][1] == 7


def test_a_context_that_is_refused_is_not_left(calls):
    with pytest.raises(LaunchError, match="switching to GPU 13 failed with CUDA_ERROR_TEST"), driver.inside(13):
        pass
    assert len(calls) == 1


def test_functions_keep_the_interpreter_and_take_what_the_driver_does(monkeypatch):
    """64-bit handles and sizes are not cut to the 32 bits that ctypes assumes."""
    loaded = []

    def library(name):
        loaded.append(name)
        return SimpleNamespace(**{name: SimpleNamespace() for name in at_once._ARGUMENTS})

    monkeypatch.setattr(at_once, "driver", lambda: None)
    monkeypatch.setattr(ctypes, "PyDLL", library)
    for name in at_once._ARGUMENTS:
        found = at_once._function.__wrapped__(name)
        assert all(ctypes.sizeof(kind) == 8 for kind in found.argtypes)
    assert loaded == ["libcuda.so.1"] * len(at_once._ARGUMENTS)
