"""Timelines: a row for every stage, bars where its firings are, cut off where an inner loop's are."""

from __future__ import annotations

import pytest

from tilewright.machines import Machine
from tilewright.simulate.dataflow.gantt import FEW, FIRINGS, gantt
from tilewright.simulate.dataflow.pipeline import Pipeline, Stage, chain, nested
from tilewright.simulate.dataflow.schedule import simulate
from tilewright.simulate.kinds import simulate as simulate_job
from tilewright.simulate.simulation import Job


def bars(chart, row):
    return [(s.start, s.length) for s in chart.spans if s.row == row]


def test_every_firing_stands_where_it_is_scheduled():
    schedule = simulate(chain([3, 5], 4, names=("load", "use")))
    chart = gantt(schedule, "two")
    assert chart.kind == "timeline" and {s.row for s in chart.spans} == {"load", "use"}
    assert bars(chart, "use") == [(start, 5) for start in schedule.start[1]]


def test_only_the_first_firings_are_drawn():
    chart = gantt(simulate(chain([1, 1], 100)), "many")
    assert len(bars(chart, "stage0")) == FIRINGS
    assert len(bars(gantt(simulate(chain([1, 1], 100)), "few", firings=5), "stage0")) == 5


def test_an_inner_pipeline_lies_below_its_stage_and_begins_with_it():
    inner = chain([2, 4], 3, names=("a", "b"))
    outer = Pipeline((Stage("first", (10,)), nested(inner, simulate(inner).makespan, 1, "loop")), ())
    chart = gantt(simulate(outer), "nested")
    begins = simulate(outer).start[1][0]
    assert [s for s, _ in bars(chart, "loop/a")] == [begins + s for s in simulate(inner).start[0]]
    assert list(dict.fromkeys(s.row for s in chart.spans)) == ["first", "loop", "loop/a", "loop/b"]


def test_the_picture_ends_where_a_long_inner_loop_is_cut_off():
    inner = chain([2, 4], 1000, names=("a", "b"))
    outer = Pipeline((nested(inner, simulate(inner).makespan, 1, "loop"), Stage("last", (1,))), ())
    chart = gantt(simulate(outer), "long")
    end = max(s.start + s.length for s in chart.spans)
    assert end == simulate(inner).finish[1][FIRINGS - 1] < simulate(inner).makespan
    assert {s.row for s in chart.spans} == {"loop", "loop/a", "loop/b", "last"}  # even of what comes later


def test_all_stages_of_a_decoder_are_on_one_picture():
    chart = simulate_job(Job("llama-3.1-8b", Machine.named("sn40l"), chips=8)).charts[-1]
    rows = {s.row for s in chart.spans}
    assert {"l/w1", "l/w3", "l/w2", "l/down", "l/i/qk1", "l/i/pnv", "y"} <= rows
    assert len([s for s in chart.spans if s.row == "l/w1"]) == FEW
    assert all(s.length >= 0 for s in chart.spans)


@pytest.mark.parametrize("firings", [1, 7])
def test_the_number_of_firings_can_be_asked_for(firings):
    assert len(bars(gantt(simulate(chain([1], 9)), "x", firings), "stage0")) == firings
