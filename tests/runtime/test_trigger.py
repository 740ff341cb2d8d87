"""Triggers fire when they say, by a clock of the test's own, and once for each key."""

from __future__ import annotations

import pytest
from fake_background import Clock

from tilewright.errors import ArgumentError
from tilewright.runtime.trigger import Evidence, Trigger, Watch


def test_a_count_fires_at_that_call_and_not_before():
    watch = Watch(Trigger(count=10, payback=None), Clock())
    assert watch.fires("a", Evidence(9)) is None
    assert watch.fires("a", Evidence(10)) == "10 calls, 10 are enough"


def test_a_key_fires_once_whatever_comes_after():
    watch = Watch(Trigger(count=1, interval=5.0, payback=1.0, cost=1.0), Clock())
    assert watch.fires("a", Evidence(1))
    assert watch.fires("a", Evidence(10**6, 1.0, 1.0), True) is None
    assert watch.fires("b", Evidence(1))


def test_an_interval_fires_what_was_called_and_begins_again():
    clock = Clock()
    watch = Watch(Trigger(count=None, interval=60.0, payback=None), clock)
    assert not watch.tick()
    clock.now += 59.9
    assert not watch.tick()
    clock.now += 0.2
    over = watch.tick()
    assert watch.fires("called", Evidence(1), over)
    assert watch.fires("never called", Evidence(0), over) is None
    assert not watch.tick()


def test_a_clock_that_is_set_back_fires_nothing():
    clock = Clock()
    watch = Watch(Trigger(count=None, interval=60.0, payback=None), clock)
    watch.tick()
    clock.now -= 1e6
    assert not watch.tick()


@pytest.mark.parametrize(("calls", "fires"), [(99, False), (100, True)])
def test_payback_fires_when_the_calls_so_far_would_have_paid_for_the_search(calls, fires):
    watch = Watch(Trigger(count=None, payback=2.0, cost=5.0), Clock())
    assert bool(watch.fires("a", Evidence(calls, seconds=0.4, saving=0.1))) is fires


@pytest.mark.parametrize("how", [{"count": 0}, {"interval": -1.0}, {"payback": float("nan")}, {"cost": 0.0}])
def test_a_trigger_that_would_always_fire_is_refused(how):
    with pytest.raises(ArgumentError, match=next(iter(how))):
        Trigger(**how)
