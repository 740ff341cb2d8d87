"""The six applications of the TPU v1: rates and stalls predicted from what was published, beside what was measured."""

from __future__ import annotations

import statistics
from dataclasses import replace

import pytest

from tilewright.machines import Machine
from tilewright.simulate.systolic.applications import (
    APPLICATIONS,
    Application,
    awaited,
    by_causes,
    by_counters,
    by_machine,
)

TPU = Machine.named("tpu-v1")
WHOLE = [a for a in APPLICATIONS if not a.lacks]
GOOGLE = 0.08
"""The mean error that Google's own model has, as published."""


def off(predict, app: Application) -> float:
    return abs(predict(TPU, app) / 1e12 / app.tops - 1)


def test_the_shares_of_cycles_are_those_of_table_3():
    assert [a.name for a in APPLICATIONS] == ["MLP0", "MLP1", "LSTM0", "LSTM1", "CNN0", "CNN1"]
    for app in APPLICATIONS:
        assert app.active + app.weights + app.idle == pytest.approx(1, abs=0.0015)
        assert 0 < app.occupancy <= 1
    assert statistics.fmean(a.error for a in APPLICATIONS) == pytest.approx(GOOGLE, abs=0.005)


def test_rates_with_occupancy_and_stalls_given_are_nearer_than_googles_own_model():
    errors = {a.name: off(by_causes, a) for a in WHOLE}
    assert len(errors) == 5
    assert statistics.fmean(errors.values()) < 0.025 < GOOGLE
    assert max(errors.values()) < 0.04


def test_idle_cycles_without_a_cause_are_what_parts_counters_from_rates():
    """With them CNN0 could not be as fast as it is; where causes explain all idle cycles, nothing changes."""
    assert {a.name for a in APPLICATIONS if a.unexplained} == {"MLP0", "MLP1", "CNN0"}
    for app in APPLICATIONS:
        assert by_causes(TPU, app) >= by_counters(TPU, app)
        assert (by_causes(TPU, app) == by_counters(TPU, app)) == (not app.unexplained)
    cnn = next(a for a in WHOLE if a.name == "CNN0")
    assert off(by_counters, cnn) > 0.16 and off(by_causes, cnn) < 0.021
    assert 0.08 < statistics.fmean(off(by_counters, a) for a in WHOLE) < 0.081


def hidden(machine: Machine, app: Application) -> float:
    """As by_machine, if tiles of weights went on arriving through every idle cycle."""
    busy = replace(app, hazards=0.0, inputs=0.0)
    return min(by_machine(machine, busy), by_machine(machine, replace(app, rows=1 << 20)))


def test_memory_does_not_hide_idle_cycles():
    assert statistics.fmean(off(hidden, a) for a in WHOLE) > 0.14


def test_the_memory_of_the_machine_says_how_long_weights_are_awaited():
    """Within 2.5 points of all cycles; the rates that follow are off by 9% in the mean."""
    assert all(abs(awaited(TPU, a) - a.weights) < 0.025 for a in WHOLE)
    assert statistics.fmean(off(by_machine, a) for a in WHOLE) < 0.09


def test_one_application_cannot_be_predicted_and_says_why():
    (app,) = (a for a in APPLICATIONS if a.lacks)
    assert app.name == "CNN1" and "not published" in app.lacks
    assert off(by_counters, app) > 0.4 and awaited(TPU, app) == 0


def test_at_full_speed_the_lstms_would_beat_their_memory():
    lstm = next(a for a in APPLICATIONS if a.name == "LSTM0")
    assert by_counters(TPU, replace(lstm, passes=1)) / 1e12 > 1.7 * 4.35


def test_a_faster_memory_is_awaited_less():
    levels = tuple(replace(m, bandwidth=4 * m.bandwidth) if m.name == "weights" else m for m in TPU.levels)
    fast = replace(TPU, levels=levels)
    assert awaited(fast, APPLICATIONS[0]) < 0.5 * awaited(TPU, APPLICATIONS[0])
    assert by_machine(fast, APPLICATIONS[0]) == pytest.approx(4 * by_machine(TPU, APPLICATIONS[0]))
