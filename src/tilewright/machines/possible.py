"""What no machine can be: sizes, rates and counts that are zero or negative where something has to pass through."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tilewright.machines.machine import Machine, MemoryLevel

NEEDED: dict[str, tuple[str, ...]] = {"systolic": ("rows", "columns")}
"""Limits that the description of a kind of machine must give."""

COUNTS = ("rows", "columns", "compute_units", "memory_units")
"""Limits that are at least 1 where they are given: without them nothing is computed."""


def impossible(machine: Machine) -> Iterator[str]:
    """Every reason why there cannot be such a machine: what is wrong, and what to give instead."""
    if machine.cores < 1:
        yield f"cores is {machine.cores}; a machine has at least one"
    if machine.clock_hz is not None and machine.clock_hz <= 0:
        yield f"clock_hz is {machine.clock_hz:g}; give cycles per second, more than 0"
    limits = dict(machine.limits)
    needed = NEEDED.get(machine.kind, ())
    for name in COUNTS:
        if limits.get(name, 0 if name in needed else 1) < 1:
            yield f"{name} is {limits.get(name, 'not given')}; a {machine.kind} machine has at least 1"
    for name, value in limits.items():
        if value < 0:
            yield f"limit {name} is {value}; give 0 or more"
    for level in machine.levels:
        yield from _level(level)


def _level(level: MemoryLevel) -> Iterator[str]:
    if level.bytes is not None and level.bytes < 1:
        yield f"memory level {level.name} has {level.bytes} bytes; give at least 1, or leave it out"
    if level.shared_by < 1:
        yield f"memory level {level.name} is shared by {level.shared_by} cores; give at least 1"
    for rate in ("bandwidth", "read", "copy", "copy_nontemporal"):
        value = getattr(level, rate)
        if value is not None and value <= 0:
            yield f"memory level {level.name} has a {rate} of {value:g} bytes/s; give more than 0, or leave it out"
