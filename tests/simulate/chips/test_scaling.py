"""How far plans scale: the split of a step to 16 chips, and tokens a second to thousands."""

from __future__ import annotations

import pytest

from tilewright.simulate.chips.collectives import Link
from tilewright.simulate.chips.plan import PLANS, Chip
from tilewright.simulate.chips.scaling import COUNTS, PAPER_COUNTS, scaling
from tilewright.simulate.decoder import decoder

CHIP, LINK = Chip(638e12, 1.6e12, 64e9, 1e-6), Link(200e9, 1e-6, 2e-6)


@pytest.fixture(scope="module")
def grown():
    return scaling(decoder("llama-3.1-8b"), CHIP, LINK, batch=64, context=4096, kernels=0)


def test_every_plan_has_its_time_split_and_a_line_to_thousands(grown):
    *bars, lines = grown.charts()
    assert [c.title.split()[0] for c in bars] == list(PLANS)
    assert all([s.name for s in c.series] == ["GEMM", "attention", "all-reduce", "sync"] for c in bars)
    assert all(s.x == tuple(map(str, COUNTS)) for c in bars for s in c.series)
    assert [s.x for s in lines.series] == [tuple(map(float, PAPER_COUNTS))] * 3 and max(PAPER_COUNTS) > 1000


def test_bars_are_microseconds_of_a_step(grown):
    bars = grown.charts()[0]
    on_one = sum(s.y[0] for s in bars.series)
    assert on_one == pytest.approx(1e6 * grown.splits["tensor"][0].seconds)


def test_where_plans_stop_and_what_holds_the_model(grown):
    found = {name: value for name, value, _ in grown.numbers()}
    for plan in PLANS:
        assert 1 <= found[f"{plan} parallel gains little beyond"] <= 4096
    assert found["data parallel fits from"] <= found["tensor parallel fits from"] <= 4
    small = scaling(decoder("llama-3.1-70b"), CHIP, LINK, batch=1, context=4096, kernels=0)
    assert {n: v for n, v, _ in small.numbers()}["data parallel fits from"] == "no number of"
