"""How long a block lives by itself: ways to memory, sums that are joined, loads that wait for one another."""

from __future__ import annotations

import pytest
from programs import facts, traced

from tilewright.design.cost.gpu_life import life_of_products, life_of_rows
from tilewright.design.cost.gpu_rates import rates_of
from tilewright.design.cost.program import program_of
from tilewright.design.default import default_design
from tilewright.design.design import Design
from tilewright.machines.machine import Machine

RATES = rates_of(Machine.named("h200"))
SOFTMAX, GRADIENT = traced("softmax", "bf16"), traced("rmsnorm_weight_backward", "bf16")
ATTENTION = traced("attention", "bf16", causal=True)
PARTS = {"part.t": 1024, "tile.t": 16, "tile.g": 4, "tile.s": 1, "warps": 4}
SIZES = {"B": 1, "H": 8, "G": 4, "S": 1, "T": 32768, "D": 128, "E": 128}


def life(kernel, design, **sizes):
    return life_of_rows(program_of(kernel, design), design, facts(kernel, "h200", **sizes), RATES)


def row(**more):
    axes = ("d", "d1", "d2")
    tiles = {f"tile.{d}": 1024 for d in axes} | {f"split.{d}": more["split"] for d in axes if "split" in more}
    return Design.of({**tiles, "tile.m": 1, "keep.x1": True, "keep.x2": True, "warps": more.get("warps", 4)})


def test_a_softmax_joins_two_sums_and_loads_a_row_that_stays_at_once():
    found = life(SOFTMAX, row(), M=8, D=4096)
    assert (found.fill, found.walk, found.steps) == (RATES.latency_s, 0.0, 1)
    assert found.meets == pytest.approx(2 * RATES.meet_s)


def test_a_warp_meets_nobody_and_a_cluster_its_blocks_too():
    assert life(SOFTMAX, row(warps=1), M=8, D=4096).meets == 0.0
    shared = life(SOFTMAX, row(split=4), M=8, D=4096)
    assert shared.meets == pytest.approx(2 * (RATES.meet_s + RATES.cluster_meet_s))


def test_rows_of_an_unknown_number_are_added_one_by_one():
    """64 rows a step by 16 at once: four that wait for each other, in each of 8192 / 64 / 8 steps."""
    design = Design.of({"tile.d": 128, "tile.m": 64, "split.m": 8, "vec.x": 8, "vec.dy": 8, "warps": 8})
    found = life(GRADIENT, design, M=8192, D=4096)
    assert found.steps == 1 + (16 * 4 - 1)
    assert found.walk == pytest.approx((16 * 4 - 1) * RATES.step_s)


def test_rounds_join_their_sums_each_time():
    topk = traced("topk", "bf16")
    known = facts(topk, "h200", M=1, D=32768, K=8)
    design = default_design(topk, known)
    two, eight = (life(topk, design, M=1, D=32768, K=k) for k in (2, 8))
    assert eight.meets == pytest.approx(4 * two.meets)


def test_steps_of_a_part_follow_one_another_and_a_ring_asks_ahead():
    program, known = program_of(ATTENTION), facts(ATTENTION, "h200", **SIZES)
    plain, ahead = (Design.of(PARTS | more) for more in ({}, {"stages": 2}))
    found = life_of_products(program, plain, known, RATES)
    steps = 1024 // (16 * 4)
    assert found.walk == pytest.approx(steps * (2 * RATES.step_s + RATES.chain_s))
    assert life_of_products(program, ahead, known, RATES).walk == pytest.approx(steps * (RATES.step_s + RATES.chain_s))
    assert (found.shows, life_of_products(program, ahead, known, RATES).shows) == (RATES.walk_shows, 0.0)
    assert found.meets >= RATES.latency_s  # what the second product reads is asked for behind the first one's
    groups = life_of_products(program, Design.of({"warpgroups": 2, "tile.t": 128}), known, RATES)
    assert (groups.walk, groups.meets) == (0.0, 0.0)
