"""From the assembler's report to what the rules and the cost model of a GPU read, and people."""

from __future__ import annotations

from tilewright.build.ptxas import Report
from tilewright.design.cost.usage import Usage
from tilewright.emit.cuda_abi import CudaModule
from tilewright.machines.machine import Machine


def usage_of(module: CudaModule, report: Report) -> Usage:
    """What a block of the kernel takes: its launch says how many threads, the report what each of them does."""
    shared = module.shared_bytes + report.shared
    return Usage(module.threads, report.registers, report.spills, report.stack, shared)


def usage_text(usage: Usage, report: Report, machine: Machine) -> str:
    """A line for each number, and the assembler's warnings."""
    rows = (
        ("threads of a block", usage.threads),
        ("registers of a thread", usage.registers),
        ("bytes spilled, stored and loaded", usage.spills),
        ("bytes of stack", usage.stack),
        ("bytes of shared memory of a block", usage.shared),
        ("barriers", report.barriers),
        (f"blocks on an SM of {machine.name}", usage.resident(machine)),
    )
    width = max(len(name) for name, _ in rows)
    return "\n".join([*(f"{name:{width}} {value:>8,}" for name, value in rows), *report.warnings]) + "\n"


__all__ = ["usage_of", "usage_text"]
