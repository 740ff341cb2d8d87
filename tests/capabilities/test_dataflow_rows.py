"""Rows D5 to D9: the dataflow machine, programs on it, kernel looping, and many chips."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from tilewright.simulate.chips import collectives
from tilewright.simulate.dataflow.pipeline import Channel, Pipeline, Stage, chain, nested, sequential, undrained
from tilewright.simulate.dataflow.schedule import simulate

DATA = Path(__file__).parents[1] / "data"


# ------------------------------------------------------------------------------------------------- D5
def test_D5_golden_metapipelines():
    times = [3, 5, 2, 4]
    assert sequential(times, 10) == 140
    assert [simulate(chain(times, 10, b)).makespan for b in (1, 2)] == [86, 59]
    assert [simulate(chain([4, [2, 8], 5], 8, b)).makespan for b in (1, 2, 3, 4)] == [84, 60, 51, 51]


def test_D5_golden_nested_metapipeline():
    """A tiles outside, B tiles inside; loading with one row at a time; nothing overlapped; never drained."""
    assert simulate(inner(64)).makespan == 896
    assert simulate(outer(64)).makespan == 3984
    assert simulate(outer(256)).makespan == 9120
    assert sequential([400, sequential([64, 100, 32], 8)], 4) == 7872
    assert simulate(undrained(outer(64), 1, inner(64))).makespan == 3696


def inner(load):
    return chain([load, 100, 32], 8, names=("b", "dot", "store"))


def outer(load):
    stages = (Stage("a", (400,) * 4), nested(inner(load), simulate(inner(load)).makespan, 4))
    return Pipeline(stages, (Channel(0, 1, 2),))


# ------------------------------------------------------------------------------------------------- D8
def test_D8_all_reduce_of_eight_h200():
    with (DATA / "allreduce_8xh200.csv").open() as file:
        rows = [(float(r["payload_bytes"]), float(r["busbw_GBps"]) * 1e9) for r in csv.DictReader(file)]
    found = collectives.fit(8, [s for s, _ in rows], [2 * 7 / 8 * s / b for s, b in rows])
    assert found.error <= 0.09
    assert found.latency == pytest.approx(41e-6, rel=0.1)
    assert found.bandwidth == pytest.approx(444e9, rel=0.1)
