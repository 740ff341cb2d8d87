"""Which designs a GPU allows once they are compiled: rules on what the assembler alone knows.

They come after those of `legality`, which are checked before anything is emitted, and before a kernel is run.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from tilewright.design.cost.usage import Usage
from tilewright.design.design import Design
from tilewright.design.legality import Reason, Rule
from tilewright.machines.machine import Machine

MOST_SPILLED = 512
"""Bytes that the instructions of a thread may move to and from local memory; up to there the cost model judges. A
thread has 1020 bytes of registers: one that moves half of that has too large a tile. Chosen, not measured."""


@dataclass(frozen=True)
class Built:
    """A design, what its kernel takes, and where it is to run."""

    design: Design
    usage: Usage
    machine: Machine


def refused(design: Design, usage: Usage, machine: Machine) -> list[Reason]:
    """Every reason why a compiled design is not to be run on `machine`; empty for one that may be."""
    built = Built(design, usage, machine)
    return [Reason(rule.name, message, rule.reason) for rule in RULES for message in rule.check(built)]


def _registers(b: Built) -> Iterator[str]:
    """Registers are allotted to warps, 256 at a time."""
    warps = -(-b.usage.threads // 32)
    taken, room = -(-b.usage.registers * 32 // 256) * 256 * warps, int(b.machine.limit("registers_per_sm"))
    if taken > room:
        of = f"{b.usage.threads} threads of {b.usage.registers} registers"
        yield f"{of} take {taken}, and an SM has {room}; take smaller tiles or fewer warps"


def _shared(b: Built) -> Iterator[str]:
    room = int(b.machine.limit("shared_bytes_per_block"))
    if b.usage.shared > room:
        yield f"a block takes {b.usage.shared} bytes of shared memory, of {room}; take fewer stages or smaller tiles"


def _spills(b: Built) -> Iterator[str]:
    if b.usage.spills > MOST_SPILLED:
        moved = f"a thread moves {b.usage.spills} bytes to and from local memory"
        yield f"{moved}, of {MOST_SPILLED}; take smaller tiles, or more warps"


RULES: tuple[Rule[Built], ...] = (
    Rule("registers", "a block runs where all of its registers fit on one SM", _registers),
    Rule("shared", "a block runs where all of its shared memory fits on one SM", _shared),
    Rule("spills", "what does not fit in registers is stored and loaded again", _spills),
)

__all__ = ["MOST_SPILLED", "RULES", "Built", "refused"]
