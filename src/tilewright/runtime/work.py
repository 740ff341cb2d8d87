"""How much a program has to do, whatever its design: arithmetic, and the bytes that must move at least once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from tilewright.design.cost.work import bytes_of, flops_of
from tilewright.language import ir
from tilewright.machines import bandwidth
from tilewright.machines.machine import Machine


@dataclass(frozen=True)
class Work:
    """Floating-point operations, and bytes of operands read and written, each once.

    Not `exact` where loops begin or end by data (lengths, a causal mask): then it is the most that may be.
    """

    flops: float
    bytes: int
    exact: bool = True

    @property
    def intensity(self) -> float:
        """Operations a byte."""
        return self.flops / self.bytes if self.bytes else 0.0

    def rates(self, seconds: float) -> str:
        """What was done in so many seconds, for people."""
        said = f"{self.flops / seconds / 1e9:8.1f} GFLOP/s {self.bytes / seconds / 1e9:7.1f} GB/s"
        return said if self.exact else f"{said} at most"

    def bound(self, machine: Machine, dtype: str = "f32") -> tuple[float | None, str]:
        """(least seconds, what bounds them) by the roofline of `machine`; (None, "unknown") where it has no rates.

        Williams, Waterman and Patterson, "Roofline", CACM 52(4), 2009. Rates are those stated by the machine, or
        measured before on this host; nothing is measured here.
        """
        known = bandwidth.remembered(machine) if machine.is_cpu else None
        rate = known.read if known is not None else machine.memory.read or machine.memory.bandwidth
        peak = machine.peak(dtype) or machine.peak("f32")
        if not rate or not peak:
            return None, "unknown"
        times = {"memory": self.bytes / rate, "compute": self.flops / peak}
        what = max(times, key=lambda name: times[name])
        return times[what], what


def work_of(program: ir.Kernel, sizes: Mapping[str, int]) -> Work:
    """The work of an authored program at these sizes, counted as in `design.cost.work`."""
    loops = (s for s in ir.walk(program.body) if isinstance(s, ir.Loop))
    exact = all(a.start is None and a.stop is None for loop in loops for a in loop.axes)
    return Work(flops_of(program, sizes), bytes_of(program, sizes), exact)


__all__ = ["Work", "work_of"]
