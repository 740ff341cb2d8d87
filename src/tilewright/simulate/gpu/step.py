"""A step of a model on a GPU by the cost model: each operator's time, bound, bytes and operations, and the launches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tilewright.design.cost import estimate
from tilewright.design.cost.gpu_rates import rates_of
from tilewright.design.cost.roofline import Roofline
from tilewright.design.cost.term import Estimate, largest
from tilewright.design.default import Facts, default_design
from tilewright.design.design import Design
from tilewright.design.legality import check
from tilewright.errors import ArgumentError
from tilewright.language import ir
from tilewright.machines.machine import Machine
from tilewright.operators import OPERATORS
from tilewright.runtime.work import Work, work_of
from tilewright.simulate.gpu.calls import Call

LAUNCHES = ("graph", "alone")
"""One replay of a graph of all kernels, or each kernel launched by itself on an idle GPU."""


@dataclass(frozen=True)
class Timed:
    """A call with its design; `seconds` of one call without its launch, `bound` what takes most of them."""

    call: Call
    design: Design
    estimate: Estimate
    work: Work
    seconds: float
    bound: str
    roofline: float

    @property
    def total(self) -> float:
        """Seconds of all calls of the step, without launches."""
        return self.call.count * self.seconds


def timed(call: Call, machine: Machine) -> Timed:
    """One call of an operator under its default design; operands not in L2."""
    return call_timed(call, OPERATORS[call.operator].kernel.trace(call.dtypes, options=call.options), machine)


def call_timed(call: Call, kernel: ir.Kernel, machine: Machine, design: Design | None = None) -> Timed:
    """One call of any program, as `timed`, or under `design`; IllegalDesign where that is not legal."""
    tensors = [p for p in kernel.params if p.dims]
    facts = Facts(
        call.sizes, {p.name: (len(p.dims or ()) - 1,) for p in tensors}, machine,
        frozenset(p.name for p in tensors), frozenset(kernel.dims),
    )  # fmt: skip
    design = default_design(kernel, facts) if design is None else check(kernel, design, facts)
    found = estimate(kernel, design, facts)
    work = work_of(kernel, call.sizes)
    seconds = found.seconds - found.value("launch")
    terms = tuple(t for t in found.terms if t.unit == "s" and t.name != "launch")
    return Timed(call, design, found, work, seconds, largest(terms), _roofline(work, machine, call))


def _roofline(work: Work, machine: Machine, call: Call) -> float:
    """The least seconds by the vendor's peak and the memory's read rate."""
    dtype = next(iter(call.dtypes.values())) if call.operator in ("matmul", "gate_up", "attention") else "f32"
    peak = machine.peak(dtype) or machine.peak("f32") or 1.0
    return Roofline(work.flops, work.bytes, peak, rates_of(machine).read).seconds


def launch_seconds(machine: Machine, kernels: int, how: str) -> float:
    """What `kernels` launches take together, beyond the work. ArgumentError for an unknown `how`."""
    if how not in LAUNCHES:
        raise ArgumentError(f"launch={how!r} is unknown; set it to one of {', '.join(LAUNCHES)}")
    rates = rates_of(machine)
    if how == "alone":
        return kernels * rates.launch_s
    return rates.launch_s + (kernels - 1) * rates.next_launch_s


def step_seconds(ops: Sequence[Timed], machine: Machine, how: str) -> tuple[float, float, float]:
    """(work, launches, synchronisation) of a step; the host waits once, for the token."""
    kernels = sum(op.call.count for op in ops)
    return sum(op.total for op in ops), launch_seconds(machine, kernels, how), rates_of(machine).sync_s


__all__ = ["LAUNCHES", "Timed", "call_timed", "launch_seconds", "step_seconds", "timed"]
