"""The rates of an NVIDIA GPU that no data sheet states: as its description has them measured, else those of an H200.

An H200 is what this project measured kernels on; its numbers stand in where a machine's own are unknown, those that
depend on a clock as cycles. How they were found: `docs/notes/0014-simulated-machines.md`.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

from tilewright.machines.machine import Machine

OVERLAP = 4.0  # the power of the norm that joins what overlaps
_CLOCK, _READ = 1.7e9, 2.0e12


@dataclass(frozen=True)
class GpuRates:
    """Seconds, bytes a second and shares of stated peaks, of one GPU; `clock` in Hz, `read` and `copy` in bytes/s."""

    clock: float
    read: float
    copy: float
    launch_s: float = 4.2e-6  # a kernel alone, from event to event around the replay of its graph, without any work
    next_launch_s: float = 1.08e-6  # a kernel that does nothing, in a chain: each starts as the last ends
    sync_s: float = 10e-6  # until the host has seen that a step is done and has started the next; not measured
    latency_s: float = 0.68e-6  # from asking memory to having it, the translation of a cold address included
    drain_s: float = 1.11e-6  # the last results from registers to memory, where nothing overlaps them
    l2_bytes_per_cycle: float = 52.6  # that L2 delivers to an SM with all of them asking
    in_flight_bytes: float = 200e3  # that an SM can have under way
    tensor_burst: float = 0.855  # share of the stated tensor rate that lasts for `burst_s`
    tensor_sustained: float = 0.737  # and after that, on random data, when power is what bounds
    burst_s: float = 6.6e-4
    partial_stores_per_s: float = 57.1e9  # requests of all SMs that leave words written in part, which L2 reads first
    cluster_wait_s: float = 0.046e-6  # until whoever joins the parts of a sum knows that they are there
    grid_wait_s: float = 1.4e-6
    join_bytes_per_s: float = 42.1e9  # of f32 parts that one block takes in from its cluster
    grid_join_bytes_per_s: float = 54.1e9  # and from L2
    block_s: float = 1.2e-9  # from the start of a block to that of the next, on whichever SM
    meet_s: float = 0.1e-6  # until the threads of a block have joined a sum
    cluster_meet_s: float = 0.3e-6  # and the blocks of a cluster
    chain_s: float = 0.25e-6  # from keys to sums: two products, a maximum and powers, each waiting for the one before
    walk_shows: float = 0.5  # share of the walk of a part that memory is not busy in, of one block on an SM
    in_step: float = 1.6  # blocks of an SM that compute and wait at the same times, as they began together
    step_s: float = 0.53e-6  # of a loop whose loads wait for the step before
    l2_latency_s: float = 0.17e-6  # of a load that L2 has
    beside_cycles: float = 0.8  # of L1 for a request of a warp to a row that starts beside 16 bytes
    cluster_coupling: float = 0.0139  # share of its time that a block waits for each further block of its cluster


_KNOWN = frozenset(f.name for f in fields(GpuRates)) - {"clock", "read", "copy"}


def rates_of(machine: Machine) -> GpuRates:
    """The rates of `machine`; those it states under `ceilings` come first."""
    memory = machine.memory
    read = memory.read or memory.bandwidth or _READ
    stated = {name: float(value) for name, value in machine.ceilings if name in _KNOWN}
    return GpuRates(machine.clock_hz or _CLOCK, read, memory.copy or read, **stated)


def joined(*times: float) -> float:
    """The time of streams that overlap."""
    return float(sum(t**OVERLAP for t in times) ** (1 / OVERLAP))


def powered(seconds: float, rates: GpuRates) -> float:
    """Seconds of the tensor cores that would take `seconds` at their stated rate.

    They keep up the burst rate while the budget of power lasts. What is over that is slower than the sustained rate,
    until the whole has come down to it.
    """
    burst, sustained = seconds / rates.tensor_burst, seconds / rates.tensor_sustained
    return min(sustained, burst + max(0.0, burst - rates.burst_s))


def as_link(seconds: float, machine: Machine) -> float:
    """Seconds of a lone call that is a link of a chain instead: its launch and its first way to memory pass beside the
    link before it."""
    rates = rates_of(machine)
    return rates.next_launch_s + max(0.0, seconds - rates.launch_s - rates.latency_s)


def has_wgmma(machine: Machine) -> bool:
    """Whether warpgroups multiply from shared memory (Hopper)."""
    return any(a.name.startswith("wgmma") for a in machine.atoms)


def flops_per_cycle(machine: Machine, atom: str, itemsize: int = 2) -> float:
    """Flop a cycle and SM: of tensor cores, as many times those on bf16 as operands are smaller; or of scalar FMA."""
    atoms = machine.atoms
    if atom != "fma":
        rates = [a.flops_per_cycle for a in atoms if a.dtype in ("bf16", "f16") and a.flops_per_cycle]
        if rates:
            on_hopper = 1.0 if atom == "wgmma" or not has_wgmma(machine) else 0.62  # mma.sync there
            return max(rates) * 2 / itemsize * on_hopper
    return next((a.flops_per_cycle for a in atoms if a.dtype == "f32" and a.flops_per_cycle), 256.0)


__all__ = ["GpuRates", "as_link", "flops_per_cycle", "has_wgmma", "joined", "powered", "rates_of"]
