"""Politeness: the switch interval is short within, and as it was afterwards."""

from __future__ import annotations

import sys

import pytest

from tilewright.runtime.polite import INTERVAL, polite


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
        1 / 0  # noqa: B018
    assert sys.getswitchinterval() == pytest.approx(0.005)


def test_a_shorter_one_is_left_and_so_is_what_somebody_sets_meanwhile():
    sys.setswitchinterval(1e-6)
    with polite():
        assert sys.getswitchinterval() == pytest.approx(1e-6)
        sys.setswitchinterval(0.001)
    assert sys.getswitchinterval() == pytest.approx(0.001)
