"""Plans for many chips, against sums made by hand: what each chip reads, what it sends, and where a plan stops."""

from __future__ import annotations

from itertools import pairwise

import pytest

from tilewright.errors import ArgumentError
from tilewright.simulate.chips.collectives import Link, best
from tilewright.simulate.chips.plan import PLANS, Chip, decode, stops_at, sweep
from tilewright.simulate.decoder import Decoder

MODEL = Decoder(layers=4, hidden=64, intermediate=128, heads=8, kv_heads=2, head_dim=8, vocab=100)
CHIP = Chip(flops=1e12, bandwidth=1e9, memory=1e9, sync=1e-6)
LINK = Link(bandwidth=1e9, alpha=1e-7)
WEIGHTS = MODEL.layers * MODEL.layer_weights + MODEL.head_weights
CACHE = MODEL.layers * MODEL.cache_bytes(100)


def plan(name: str, chips: int, chip: Chip = CHIP, **how: int):
    return decode(MODEL, chip, LINK, name, chips, **{"context": 100, "batch": 1, **how})


@pytest.mark.parametrize("name", PLANS)
def test_one_chip_reads_everything_whatever_the_plan(name):
    found = plan(name, 1)
    assert found.gemm == pytest.approx(2 * WEIGHTS / 1e9)
    assert found.attention == pytest.approx(CACHE / 1e9)
    assert (found.all_reduce, found.sync) == (0, pytest.approx(4e-6))
    assert found.tokens_per_second == pytest.approx(1 / found.seconds)


def test_tensor_parallel_cuts_matrices_and_heads_and_pays_two_all_reduces_a_layer():
    found = plan("tensor", 4, batch=3)
    assert found.gemm == pytest.approx(2 * WEIGHTS / 4 / 1e9)
    assert found.attention == pytest.approx(3 * CACHE / 2 / 1e9)  # two heads of keys: the cache is copied beyond
    assert found.all_reduce == pytest.approx(8 * best(4, 3 * 64 * 2, LINK)[1])


def test_a_pipeline_has_a_group_in_each_stage_and_sends_it_on():
    found = plan("pipeline", 4, batch=8)
    assert found.gemm == pytest.approx(2 * WEIGHTS / 1e9)
    assert found.all_reduce == pytest.approx(4 * (1e-7 + 2 * 64 * 2 / 1e9))
    assert found.tokens_per_second == pytest.approx(8 / found.seconds)
    assert plan("pipeline", 16, batch=8).gemm == found.gemm  # no more stages than layers


def test_data_parallel_deals_sequences():
    found = plan("data", 4, batch=8)
    assert found.attention == pytest.approx(2 * CACHE / 1e9)
    assert found.tokens_per_second == pytest.approx(8 / found.seconds)


def test_products_of_many_rows_are_bound_by_arithmetic():
    few, many = (plan("data", 1, batch=b).gemm for b in (1, 4096))
    assert few == pytest.approx(2 * WEIGHTS / 1e9)
    assert many == pytest.approx(2 * WEIGHTS * 4096 / 1e12)


def test_one_kernel_for_the_whole_step_is_one_call():
    assert plan("tensor", 2, kernels=0).sync == pytest.approx(1e-6)
    assert plan("tensor", 2, kernels=10).sync == pytest.approx(40e-6)


def test_whether_the_chips_hold_it():
    small = Chip(1e12, 1e9, memory=2 * WEIGHTS * 0.6, sync=0)
    assert [plan(p, 2, small).fits for p in PLANS] == [True, True, False]


def test_a_plan_stops_where_the_next_count_gains_less_than_a_tenth():
    splits = sweep(MODEL, CHIP, LINK, "data", (1, 2, 4, 8), batch=4, context=1000)
    gains = [b.tokens_per_second / a.tokens_per_second for a, b in pairwise(splits)]
    assert gains[0] > 1.1 and gains[1] > 1.1 and gains[2] == 1  # four sequences are dealt to four chips
    assert stops_at(splits) == 4
    assert stops_at(splits[:2]) == 2  # the last one that was asked about


@pytest.mark.parametrize("name, chips, how", [("star", 2, {}), ("data", 0, {}), ("data", 2, {"batch": 0}),
                                              ("data", 2, {"context": 0})])  # fmt: skip
def test_impossible_plans_are_refused(name, chips, how):
    with pytest.raises(ArgumentError, match=r"tensor, pipeline, data|1 or more"):
        plan(name, chips, **how)
