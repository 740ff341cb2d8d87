"""A dataflow array: grids of compute and memory units, as the numbers that bound what is placed on them."""

from __future__ import annotations

from dataclasses import dataclass, fields

from tilewright.errors import MachineError
from tilewright.machines.machine import Machine


@dataclass(frozen=True)
class DataflowArray:
    """Pattern compute units (PCU) and pattern memory units (PMU) of one chip, and the memory behind them.

    A PCU takes `lanes` elements a cycle through `simd_stages` operations. `unit_bytes` is one PMU, `port_bytes` what
    a port of a unit moves in a cycle. `bandwidth` is bytes/s of main memory, `latency` the cycles until it answers.
    """

    name: str
    compute_units: int
    memory_units: int
    unit_bytes: int
    lanes: int
    simd_stages: int
    port_bytes: int
    clock_hz: float
    bandwidth: float
    memory_bytes: int
    latency: int = 0

    def __post_init__(self) -> None:
        for each in fields(self):
            value = getattr(self, each.name)
            least = 0 if each.name == "latency" else 1
            if not isinstance(value, str) and not value >= least:
                raise MachineError(
                    f"machine {self.name!r}: {each.name} is {value}; a dataflow array needs {least} or more"
                )

    @classmethod
    def of(cls, machine: Machine) -> DataflowArray:
        """The array of a machine of kind "dataflow"; MachineError names what is missing or impossible."""
        if machine.kind != "dataflow":
            raise MachineError(
                f"machine {machine.name!r} is of kind {machine.kind}; take a dataflow machine such as sn40l"
            )
        memory = machine.levels[1] if len(machine.levels) > 1 else None
        unit = machine.levels[0].bytes if machine.levels else None
        if memory is None or not unit or not memory.bandwidth or not memory.bytes or not machine.clock_hz:
            raise MachineError(
                f"machine {machine.name!r}: a dataflow machine gives clock_hz, the bytes of a memory unit as its first "
                "level, and bytes and bandwidth of its memory as its second"
            )
        limit = {name: int(machine.limit(name)) for name in _LIMITS}
        latency = int(dict(machine.limits).get("memory_latency_cycles", 0))
        return cls(machine.name, **limit, unit_bytes=unit, clock_hz=machine.clock_hz, bandwidth=memory.bandwidth,
                   memory_bytes=memory.bytes, latency=latency)  # fmt: skip

    @property
    def on_chip_bytes(self) -> int:
        """All memory units together."""
        return self.memory_units * self.unit_bytes

    @property
    def macs_per_cycle(self) -> int:
        """Multiplications with addition that one PCU does in a cycle."""
        return self.lanes * self.simd_stages

    @property
    def bytes_per_cycle(self) -> float:
        """What main memory moves in a cycle."""
        return self.bandwidth / self.clock_hz


_LIMITS = ("compute_units", "memory_units", "lanes", "simd_stages", "port_bytes")
