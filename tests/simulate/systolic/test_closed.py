"""Cycles in closed form: SCALE-Sim's runs, the formulas of the documentation, and the controller cycle by cycle."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tilewright.simulate.systolic.closed import account, closed_form, starts
from tilewright.simulate.systolic.control import Control
from tilewright.simulate.systolic.plan import Array, Plan

from .arrays import SCALESIM, spent

UNLIMITED = [r for r in SCALESIM if r["mode"] == "CALC"]


@pytest.mark.parametrize(
    "row", UNLIMITED, ids=lambda r: "-".join((r["df"], *(r[x] for x in ("R", "C", "M", "N", "K"))))
)
def test_every_run_of_scalesim_without_limits(row):
    m, n, k, r, c = (int(row[x]) for x in ("M", "N", "K", "R", "C"))
    found = spent(f"systolic:{r}x{c}:{row['df']}", m, n, k)
    assert found.cycles == int(row["total_cycles"])
    assert 100 * m * n * k / (found.cycles * r * c) == pytest.approx(float(row["overall_util"]), abs=0.01)


@st.composite
def plans(draw):
    flow = draw(st.sampled_from(["ws", "is", "os"]))
    rate = st.one_of(st.just(Fraction(0)), st.fractions(Fraction(1, 9), 9, max_denominator=9))
    rows, columns = draw(st.integers(1, 5)), draw(st.integers(1, 5))
    sizes = tuple(draw(st.integers(1, 12)) for _ in range(3))
    streamed = sizes[2] if flow == "os" else draw(st.integers(1, 12))
    array = Array(rows, columns, 1.0, draw(rate), draw(rate), 32)
    stages = (draw(st.integers(1, 4)), draw(st.integers(1, 2)), draw(st.integers(1, 2)))
    return Plan(array, flow, ("a", "b", "c"), sizes, (rows, columns, streamed), *stages, 1)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(plans())
def test_the_closed_form_and_the_controller_agree(plan):
    control = Control(plan)
    times = control.run()
    assert control.cycles == closed_form(plan)
    assert [(t.start, t.steps) for t in times] == list(starts(plan))
    found = account(plan)
    assert sum(cycles for _, cycles in found.parts()) == pytest.approx(found.cycles)
    assert min(cycles for _, cycles in found.parts()) >= -1  # SCALE-Sim's count may leave out the only cycle of a wave


@pytest.mark.parametrize(
    ("m", "k", "n", "fetch"), [(2048, 512, 512, 1350), (100, 600, 600, 1350), (700, 512, 256, 300)]
)
def test_double_buffered_weights_take_what_the_formula_says(m, k, n, fetch):
    """R + (F - 1) max(T, R, D) + T + R + C - 2."""
    array = Array(256, 256, 7e8, Fraction(fetch, 65536), Fraction(0), 32)
    plan = Plan(array, "ws", ("k", "n", "m"), (k, n, m), (256, 256, m), 4, 2, 2, 1)
    folds = -(-k // 256) * -(-n // 256)
    assert closed_form(plan) == 256 + (folds - 1) * max(m, 256, fetch) + m + 510


def test_without_a_shadow_nothing_overlaps():
    assert spent("tpu-v1", 2048, 512, 512).cycles == 8_958
    assert spent("tpu-v1", 2048, 512, 512, stages__array=1).cycles == 11_255


def test_less_bandwidth_means_more_stalls_and_nothing_else():
    free, fast, slow = (spent(f"systolic:32x32:ws{b}", 256, 128, 256) for b in ("", ":bandwidth=64", ":bandwidth=2"))
    assert free.stalls == 0 and free.stalls < fast.stalls < slow.stalls
    assert [x.cycles - x.stalls for x in (fast, slow)] == [free.cycles] * 2


def test_a_queue_hides_what_a_single_tile_cannot():
    alone, queued = (spent(f"systolic:32x32:os:bandwidth=64:fifo={n}", 256, 128, 256) for n in (1, 4))
    assert queued.stalls < alone.stalls
