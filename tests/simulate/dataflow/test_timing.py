"""The time of scheduled programs: stages from their statements, loops as pipelines, copies side by side."""

from __future__ import annotations

import pytest

from tilewright.language import ir
from tilewright.simulate.dataflow.timing import Timing, channels, is_access

from .machine import ARRAY, SCALED, SLOW, SUMMED, lowered


def whole(text, sizes, array=ARRAY, extra=None, **decisions):
    return Timing(lowered(text, **decisions), sizes, array, extra).whole()


def test_a_pipeline_takes_as_long_as_its_slowest_stage():
    """Tiles of 4 x 8: 128 bytes take 16 cycles of memory each way, exponentials 16; memory is asked twice a tile."""
    span = whole(SCALED, {"M": 64, "N": 8}, tile__m=4, tile__n=8)
    assert span.memory_cycles == 2 * 64 * 8 * 4 / 8
    assert span.flops == 64 * 8
    assert span.memory_cycles <= span.cycles <= span.memory_cycles + 3 * 16
    assert span.schedule.interval == pytest.approx(32)


def test_a_short_last_tile_takes_less():
    full, ragged = (whole(SCALED, {"M": m, "N": 8}, tile__m=4, tile__n=8) for m in (64, 61))
    assert ragged.memory_cycles == full.memory_cycles * 61 / 64
    assert ragged.cycles < full.cycles


def test_copies_work_side_by_side_and_share_main_memory():
    one, four = (whole(SUMMED, {"M": 64, "N": 32}, tile__m=4, tile__n=8, par__m=par) for par in (64, 16))
    assert four.memory_cycles == one.memory_cycles
    assert one.memory_cycles <= four.cycles <= one.cycles


def test_loads_that_run_ahead_hide_the_latency_of_memory():
    deep, shallow = (whole(SCALED, {"M": 256, "N": 8}, SLOW, tile__m=4, tile__n=8, stages__a=n) for n in (16, 1))
    assert shallow.cycles > 64 * 100
    assert deep.cycles < 64 * 40


def test_what_other_chips_take_is_added_to_the_stage_that_makes_a_value():
    sizes = {"M": 64, "N": 8}
    plain, told = (whole(SCALED, sizes, extra=extra, tile__m=4, tile__n=8) for extra in (None, {"e": 1000.0}))
    assert told.cycles - plain.cycles == pytest.approx(16 * 1000, rel=0.05)
    assert told.memory_cycles == plain.memory_cycles


def test_an_empty_loop_takes_no_time():
    assert whole(SCALED, {"M": 0, "N": 8}, tile__m=4, tile__n=8).cycles == 0


def roles(kernel):
    return {s.name: s for s in ir.walk(kernel.body) if isinstance(s, ir.Role)}


def test_stages_that_only_load_are_told_from_those_that_compute():
    found = roles(lowered(SCALED, tile__m=4, tile__n=8))
    tensors = frozenset({"x", "y"})
    access = {name for name, role in found.items() if is_access(role, tensors)}
    assert access and access < set(found)
    assert all("y" not in {s.ref.buffer for s in ir.walk(found[n].body) if isinstance(s, ir.Store)} for n in access)


def test_buffers_between_stages_have_credits_and_what_lies_outside_keeps_its_order():
    kernel = lowered(SUMMED, tile__m=4, tile__n=8, stages__a=3)
    loop = next(s for s in ir.walk(kernel.body) if isinstance(s, ir.Loop) and s.axes[0].name == "n")
    found = channels(loop.body, frozenset({"x", "y"}))
    ahead = next(c for c in found if c.depth == 3)
    carried = [c for c in found if c.lag]
    assert ahead.source < ahead.target
    assert all(c.depth is None and c.source > c.target for c in carried)
