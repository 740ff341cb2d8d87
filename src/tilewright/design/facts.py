"""What a design may depend on besides its program: sizes, layouts, threads and the machine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from tilewright.language import ir, structure
from tilewright.machines.machine import Machine


@dataclass(frozen=True)
class Facts:
    """What a design may depend on besides the program: sizes, unit-stride dimensions of each tensor, the machine.

    A kernel also serves other sizes than these, unless they are `fixed`.
    """

    sizes: Mapping[str, int]
    unit: Mapping[str, tuple[int, ...]]
    machine: Machine
    aligned: frozenset[str] = frozenset()  # tensors of which every row starts at a cache line
    fixed: frozenset[str] = frozenset()  # dims whose size is part of the kernel
    threads: int = 0  # that a kernel may have; 0: one for each core
    filled: tuple[float, ...] = ()  # of its room, by each sequence of a ragged batch, where an estimate asks for that

    @property
    def team(self) -> int:
        """Threads that a kernel may have."""
        return min(self.threads, self.machine.cores) or self.machine.cores

    @property
    def lanes(self) -> int:
        """f32 elements in a vector register."""
        return self.machine.vector_bits // 32

    @property
    def registers(self) -> int:
        """Vector registers."""
        return self.machine.vector_registers

    def size(self, kernel: ir.Kernel, axis: ir.Axis) -> int:
        """How long an axis is."""
        known = structure.axes(kernel)
        while axis.over in known:
            axis = known[axis.over]
        return self.sizes[axis.over]


__all__ = ["Facts"]
