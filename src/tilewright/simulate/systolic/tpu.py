"""What bounds an application on an array, by the weights that it reads."""

from __future__ import annotations

from tilewright.machines.machine import Machine


def bound(machine: Machine, macs_per_byte: float) -> float:
    """Operations a second that the roofline allows: by the multipliers, or by the memory that the weights come from."""
    clock, bandwidth = machine.clock_hz or 0.0, machine.level("weights").bandwidth
    peak = 2.0 * machine.limit("rows") * machine.limit("columns") * clock
    return peak if bandwidth is None else min(peak, 2.0 * macs_per_byte * bandwidth)
