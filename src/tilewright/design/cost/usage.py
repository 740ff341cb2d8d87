"""What a built kernel takes of an SM, as the assembler says: known once a design is compiled, before it is timed."""

from __future__ import annotations

from dataclasses import dataclass

from tilewright.design.cost.occupancy import blocks_per_sm, limits_of
from tilewright.machines.machine import Machine


@dataclass(frozen=True)
class Usage:
    """`threads` and bytes of `shared` memory of a block; of a thread its `registers`, bytes of `stack`, and `spills`.

    Spills are bytes stored to and loaded from local memory by the instructions of one thread, each counted once.
    """

    threads: int
    registers: int
    spills: int = 0
    stack: int = 0
    shared: int = 0

    def resident(self, machine: Machine) -> int:
        """Blocks that an SM of `machine` holds at once; 0 where not even one fits. MachineError without its limits."""
        return blocks_per_sm(limits_of(machine), self.threads, self.registers, self.shared)


__all__ = ["Usage"]
