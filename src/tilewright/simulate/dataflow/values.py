"""The values of a program on a dataflow machine: executed in the order of its schedule, and checked."""

from __future__ import annotations

from tilewright.language import ir
from tilewright.runtime import tolerance
from tilewright.runtime.checks import expected
from tilewright.runtime.inputs import draw
from tilewright.runtime.subject import Subject
from tilewright.simulate.dataflow.execute import execute
from tilewright.simulate.dataflow.timing import Lengths, Timing

MOST_FIRINGS, MOST_WORK = 4096, 3 << 29
"""Firings of stages and operations of a run with values that is quick."""


def quick(timing: Timing, flops: float) -> bool:
    """Whether a run with values takes no more than some seconds."""
    return flops <= MOST_WORK and firings(timing, timing.kernel.body, {}) <= MOST_FIRINGS


def firings(timing: Timing, body: tuple[ir.Stmt, ...], lengths: Lengths) -> int:
    """How often the stages of a body fire, all loops counted as if every tile were a whole one."""
    count = sum(isinstance(s, ir.Role) for s in body)
    for stmt in body:
        trips = timing.trips(stmt, lengths) if isinstance(stmt, ir.Loop) else [lengths]
        if trips:
            count += len(trips) * firings(timing, ir.blocks(stmt), trips[0])
    return count


def verified(subject: Subject, timing: Timing, seed: int = 0) -> None:
    """Run the scheduled program with the slots of its buffers; VerificationError where a result is wrong."""
    operands = draw(subject.kernel, subject.sizes, seed=seed, updates=subject.updates)
    exact = expected(subject, operands)
    execute(timing, operands.tensors, operands.scalars)
    for name, value in exact.items():
        tolerance.check(name, operands.tensors[name], value)


__all__ = ["firings", "quick", "verified"]
