"""Systolic arrays by name, and what no machine can be."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tilewright.errors import MachineError
from tilewright.machines import Machine
from tilewright.machines.systolic import stationary


def test_a_name_describes_an_array():
    array = Machine.named("systolic:32x64:os:bandwidth=10:buffers=2:clock=500")
    assert (array.limit("rows"), array.limit("columns"), array.limit("shadow_weight_tiles")) == (32, 64, 1)
    assert stationary(array) == "os" and array.clock_hz == 500e6
    assert array.memory.bandwidth == 10 * 500e6
    assert array.peak("i8") == 2 * 32 * 64 * 500e6
    assert Machine.from_json(array.to_json()) == array


def test_weights_stand_still_unless_said_otherwise():
    assert stationary(Machine.named("systolic:8x8")) == "ws"
    assert stationary(Machine.named("tpu-v1")) == "ws"


def test_hyphens_and_underscores_are_one():
    assert Machine.named("tpu-v1") == Machine.named("tpu_v1")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("systolic:0x32:ws", "rows is 0; a systolic machine has at least 1"),
        ("systolic:8x-1:ws", "columns is -1"),
        ("systolic:8:ws", "'8' is not ROWSxCOLUMNS"),
        ("systolic:8x8:xs", "'xs' is none of ws, os, is"),
        ("systolic:8x8:ws:bandwidth=-3", "bandwidth is -3; give more than 0"),
        ("systolic:8x8:ws:bandwidth=fast", "is not SETTING=NUMBER"),
        ("systolic:8x8:ws:speed=3", "no setting is called 'speed'; there are bandwidth"),
        ("tpu-v2", "the nearest are tpu_v1"),
        ("h20", "the nearest are h200"),
    ],
)
def test_impossible_and_unknown_machines_are_refused(name, message):
    with pytest.raises(MachineError, match=message):
        Machine.named(name)


def test_no_description_has_rates_or_sizes_below_zero():
    tpu = Machine.named("tpu-v1")
    weights = tpu.level("weights")
    for wrong in (replace(weights, bandwidth=-1.0), replace(weights, bytes=0)):
        with pytest.raises(MachineError, match="memory level weights has"):
            replace(tpu, levels=(wrong,))
    with pytest.raises(MachineError, match="rows is not given"):
        replace(tpu, limits=())
