"""Dataflow arrays: the shipped ones add up, impossible ones are refused."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tilewright.errors import MachineError
from tilewright.machines import Machine
from tilewright.machines.dataflow import DataflowArray


@pytest.mark.parametrize("name, dtype", [("sn40l", "bf16"), ("plasticine", "f32")])
def test_units_and_clock_add_up_to_the_peak(name, dtype):
    machine = Machine.named(name)
    array = DataflowArray.of(machine)
    peak = 2 * array.macs_per_cycle * array.compute_units * array.clock_hz
    assert peak == pytest.approx(machine.peak(dtype), rel=0.002)
    assert machine.atoms[0].flops_per_cycle == 2 * array.macs_per_cycle


def test_sn40l_has_520_MB_on_chip():
    assert DataflowArray.of(Machine.named("sn40l")).on_chip_bytes == 520 * 2**20


@pytest.mark.parametrize("change", [{"compute_units": 0}, {"bandwidth": -1.0}, {"unit_bytes": 0}, {"latency": -1},
                                    {"clock_hz": float("nan")}])  # fmt: skip
def test_impossible_arrays_are_refused(change):
    with pytest.raises(MachineError, match=f"{next(iter(change))} is .* a dataflow array needs"):
        replace(DataflowArray.of(Machine.named("sn40l")), **change)


def test_other_machines_are_refused():
    with pytest.raises(MachineError, match="take a dataflow machine"):
        DataflowArray.of(Machine.named("h200"))
    with pytest.raises(MachineError, match="gives clock_hz"):
        DataflowArray.of(replace(Machine.named("sn40l"), clock_hz=None))
    with pytest.raises(MachineError, match="no limit 'compute_units'"):
        DataflowArray.of(replace(Machine.named("sn40l"), limits=()))
