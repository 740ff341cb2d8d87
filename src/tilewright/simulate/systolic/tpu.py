"""What bounds an application on an array by the weights it reads, and what its occupancy and stalls leave of that."""

from __future__ import annotations

from dataclasses import dataclass

from tilewright.machines.machine import Machine


@dataclass(frozen=True)
class Application:
    """An application as counters describe it.

    `macs_per_byte` are multiplications for each byte of weights; `occupancy` is the share of the cells that hold
    useful weights while the array is active, `stalls` the share of the time in which it waits for other reasons than
    weights (results of the layer before, data from the host).
    """

    name: str
    macs_per_byte: float
    occupancy: float = 1.0
    stalls: float = 0.0


def bound(machine: Machine, macs_per_byte: float) -> float:
    """Operations a second that the roofline allows: by the multipliers, or by the memory that the weights come from."""
    clock, bandwidth = machine.clock_hz or 0.0, machine.level("weights").bandwidth
    peak = 2.0 * machine.limit("rows") * machine.limit("columns") * clock
    return peak if bandwidth is None else min(peak, 2.0 * macs_per_byte * bandwidth)


def predicted(machine: Machine, application: Application) -> float:
    """Operations a second: the roofline's, times what occupancy and stalls leave.

    It takes weights to be fetched without a break wherever they bound. What it lacks: layers of one application that
    are bound by different things, and weights of a ragged tile, which are fetched but multiply nothing useful.
    """
    left = application.occupancy * (1.0 - application.stalls)
    return bound(machine, application.macs_per_byte) * left
