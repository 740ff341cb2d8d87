"""One model on several GPUs: shares of the work, and what the GPUs tell each other."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import pytest

from tilewright.errors import ArgumentError
from tilewright.machines.machine import Machine
from tilewright.simulate.chips import collectives
from tilewright.simulate.chips.plan import PLANS
from tilewright.simulate.decoder import decoder
from tilewright.simulate.gpu.calls import Step
from tilewright.simulate.gpu.parallel import (
    MEASURED_BANDWIDTH,
    MEASURED_CHIPS,
    MEASURED_LATENCY,
    collective_seconds,
    link_of,
)
from tilewright.simulate.gpu.run import simulate
from tilewright.simulate.simulation import Job

H200, MODEL = Machine.named("h200"), decoder("llama-3.1-8b")
SWEEP = Path(__file__).parents[2] / "data" / "allreduce_8xh200.csv"


def test_the_link_is_the_measured_one():
    with SWEEP.open() as file:
        rows = [(float(r["payload_bytes"]), float(r["busbw_GBps"]) * 1e9) for r in csv.DictReader(file)]
    times = [2 * 7 / 8 * size / bus for size, bus in rows]
    found = collectives.fit(8, [size for size, _ in rows], times)
    assert (found.latency, found.bandwidth) == pytest.approx((MEASURED_LATENCY, MEASURED_BANDWIDTH), rel=0.01)
    link = link_of(H200)
    errors = [abs(collectives.seconds("ring", 8, size, link) / t - 1) for (size, _), t in zip(rows, times, strict=True)]
    assert sum(errors) / len(errors) <= 0.09


def test_other_gpus_have_their_own_nvlink_and_some_have_none():
    assert link_of(Machine.named("a100")).bandwidth == pytest.approx(MEASURED_BANDWIDTH * 600 / 900)
    assert collectives.seconds("ring", MEASURED_CHIPS, 0, link_of(H200, 15e-6)) == pytest.approx(15e-6)
    with pytest.raises(ArgumentError, match="link_bytes_per_s among its limits"):
        link_of(Machine.named("l40s"))


def test_collectives_of_a_step():
    link = link_of(H200)
    assert collective_seconds(MODEL, Step(1, 1, 1024), 1, link) == 0
    one = collective_seconds(MODEL, Step(1, 1, 1024), 8, link)
    reduce = collectives.seconds("ring", 8, 2 * 4096, link)
    gather = collectives.all_gather_seconds(8, 4 * 128256, link)
    assert one == pytest.approx(64 * reduce + gather)
    prompt = collective_seconds(MODEL, Step(1, 2048, 2048), 8, link)
    assert prompt == pytest.approx(62 * collectives.seconds("ring", 8, 2 * 4096 * 2048, link) + 2 * reduce + gather)


def step(chips: int, **options: str):
    return simulate(Job("llama-3.1-8b", H200, chips=chips, options=options))


def test_eight_gpus_hold_an_eighth_and_wait_for_each_other():
    one, eight = step(1, context="4096"), step(8, context="4096")
    assert eight.number("bytes") == pytest.approx(one.number("bytes") / 8, rel=0.02)
    assert eight.number("weights") == pytest.approx(one.number("weights") / 8, rel=0.01)
    parts = {p.name: p.seconds for p in eight.parts}
    assert sum(parts.values()) == pytest.approx(eight.seconds)
    assert parts["collectives"] > 64 * 39e-6
    assert "collectives" not in {p.name for p in one.parts}
    assert dict(eight.sizes)["chips"] == 8
    assert any("measured on 8 H200s" in text for text in eight.assumptions)


def test_in_a_graph_collectives_take_less_and_eight_gpus_pay():
    slow, fast = step(8), step(8, all_reduce_us="15")
    assert fast.seconds < slow.seconds
    assert fast.number("tokens per second") > step(1).number("tokens per second")


def test_how_the_plans_scale_is_told_and_drawn():
    found = step(8, batch="64")
    assert [c.title.split()[0] for c in found.charts[1:]] == [*PLANS, "scaling"]
    assert found.number("data parallel gains little beyond") >= 1


def test_a_share_of_a_model():
    share = MODEL.share(3)
    assert (share.kv_heads, share.heads, share.intermediate) == (3, 12, -(-14336 // 3))
    assert MODEL.share(1) == MODEL
    assert MODEL.share(32) == replace(MODEL, heads=1, kv_heads=1, intermediate=448, vocab=4008)
    with pytest.raises(ArgumentError, match="1 or more"):
        MODEL.share(0)


@pytest.mark.parametrize("value", ["fast", "-1"])
def test_bad_latencies_are_refused(value):
    with pytest.raises(ArgumentError, match="all_reduce_us"):
        step(8, all_reduce_us=value)
