"""Metapipelines: golden examples, closed forms, and the recurrence that event simulation must agree with."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tilewright.errors import ArgumentError
from tilewright.simulate.dataflow.pipeline import (
    Channel,
    Pipeline,
    Stage,
    chain,
    nested,
    pipelined,
    sequential,
    undrained,
)
from tilewright.simulate.dataflow.schedule import simulate

from .recurrence import makespan

SLOW = settings(max_examples=60, deadline=None)
TIMES = st.lists(st.integers(1, 20), min_size=1, max_size=6)


@given(data=st.data(), stages=st.integers(1, 5), trips=st.integers(1, 14))
@SLOW
def test_random_pipelines_equal_the_recurrence(data, stages, trips):
    times = data.draw(st.lists(st.lists(st.integers(0, 30), min_size=trips, max_size=trips), min_size=stages,
                               max_size=stages))  # fmt: skip
    depths = data.draw(st.lists(st.integers(1, 4), min_size=stages - 1, max_size=stages - 1))
    assert simulate(chain(times, trips, depths)).makespan == makespan(times, depths)


@given(times=TIMES, trips=st.integers(1, 30), depth=st.integers(1, 4))
@SLOW
def test_constant_times_equal_the_closed_forms(times, trips, depth):
    assert simulate(chain(times, trips, depth)).makespan == pipelined(times, trips, depth)


@given(times=TIMES, trips=st.integers(1, 20))
@SLOW
def test_what_shares_one_resource_takes_turns(times, trips):
    """Stages that hold one resource all the time are no faster together than one after the other."""
    stages = tuple(Stage(f"s{j}", (t,) * trips, resource="memory", hold=t) for j, t in enumerate(times))
    free = Pipeline(stages, tuple(Channel(j, j + 1, 2) for j in range(len(times) - 1)))
    assert simulate(free).makespan == sequential(times, trips)


def test_interval_critical_stage_and_occupancy():
    schedule = simulate(chain([3, 5, 2, 4], 200, 2))
    assert schedule.interval == 5
    assert schedule.critical == "stage1"
    assert schedule.busy[1] == pytest.approx(1000 / (14 + 199 * 5))
    most, mean = schedule.occupancy(schedule.pipeline.channels[0])
    assert most == 2  # the slow stage behind it keeps its buffer full
    assert 1.9 < mean <= 2
    most, mean = schedule.occupancy(schedule.pipeline.channels[1])
    assert mean == pytest.approx(7 / 5, abs=0.02)  # filled in 5, emptied in 2, one for every 5


def test_a_buffer_is_as_deep_as_its_stages_are_apart_plus_one():
    """A value that skips stages stops the pipeline where its buffer is shallower than that."""

    def skipping(depth):
        stages = tuple(Stage(f"s{j}", (10,) * 20) for j in range(4))
        neighbours = [Channel(j, j + 1, 2) for j in range(3)]
        return simulate(Pipeline(stages, (*neighbours, Channel(0, 3, depth)))).makespan

    assert [skipping(d) for d in (4, 5)] == [pipelined([10] * 4, 20)] * 2
    assert skipping(3) > skipping(4)


def test_results_that_come_late_do_not_stop_who_asked():
    """Loads take 2 and answer after 100: as many in flight as there are buffers, and none where the address loads."""

    def streamed(depth, chased=False):
        load, use = Stage("load", (2,) * 100, latency=100), Stage("use", (3,) * 100)
        chase = (Channel(1, 0, None, lag=1),) if chased else ()
        return simulate(Pipeline((load, use), (Channel(0, 1, depth), *chase))).makespan

    assert streamed(64) == 102 + 100 * 3
    assert streamed(1) == 100 * 105
    assert [streamed(d, chased=True) for d in (1, 64)] == [100 * 105] * 2


def test_a_pipeline_that_never_drains_keeps_a_tile_until_its_last_use():
    outer = Pipeline((Stage("a", (1, 1, 1)), nested(chain([1, 5], 4), 21, 3)), (Channel(0, 1, 1),))
    flat = simulate(undrained(outer, 1, chain([1, 5], 4)))
    assert flat.start[0][1] == flat.finish[2][3]  # one buffer: the second tile waits for the last dot of the first


@pytest.mark.parametrize(
    "make, says",
    [
        (lambda: chain([1, 2], 3, 0), "a slot or more"),
        (lambda: chain([1, -2], 3), "negative time"),
        (lambda: chain([], 3), "at least one stage"),
        (lambda: Pipeline((Stage("a", (1,)),), (Channel(0, 1),)), "names no two of 1 stages"),
        (lambda: simulate(Pipeline((Stage("a", (1,)),), (Channel(0, 0),))), "deadlocks: a wait"),
    ],
)  # fmt: skip
def test_impossible_pipelines_are_refused(make, says):
    with pytest.raises(ArgumentError, match=says):
        make()
