"""Politeness: the switch interval is short within, and as it was afterwards."""

from __future__ import annotations

import sys
import threading
from types import SimpleNamespace

import pytest

from tilewright.runtime import polite as module
from tilewright.runtime.polite import INTERVAL, PIECE, SLEEP, breathe, polite


@pytest.fixture(autouse=True)
def interval():
    before = sys.getswitchinterval()
    sys.setswitchinterval(0.005)
    yield
    sys.setswitchinterval(before)


def test_it_is_short_within_and_as_before_afterwards_whatever_happens():
    with polite():
        assert sys.getswitchinterval() == pytest.approx(INTERVAL)
        with polite():
            assert sys.getswitchinterval() == pytest.approx(INTERVAL)
        assert sys.getswitchinterval() == pytest.approx(INTERVAL)
    assert sys.getswitchinterval() == pytest.approx(0.005)
    with pytest.raises(ZeroDivisionError), polite():
        raise ZeroDivisionError
    assert sys.getswitchinterval() == pytest.approx(0.005)


def test_a_shorter_one_is_left_and_so_is_what_somebody_sets_meanwhile():
    sys.setswitchinterval(1e-6)
    with polite():
        assert sys.getswitchinterval() == pytest.approx(1e-6)
        sys.setswitchinterval(0.001)
    assert sys.getswitchinterval() == pytest.approx(0.001)


def test_a_polite_thread_sleeps_between_pieces_of_its_work_and_others_never_do(monkeypatch):
    now, slept = [100.0], []
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: now[0], sleep=slept.append))
    now[0] += 1.0
    breathe()
    assert slept == []
    with polite():
        breathe()
        now[0] += 0.9 * PIECE
        breathe()
        assert slept == []
        now[0] += 0.2 * PIECE
        breathe()
        breathe()
        assert slept == [SLEEP]
        now[0] += 1.0
        other = threading.Thread(target=breathe)
        other.start()
        other.join()
        assert slept == [SLEEP]
    breathe()
    assert slept == [SLEEP]
