"""What DEBUG=1..7 prints to stderr: machine and phases, times, decisions, source, IR, listing, machine code."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from functools import cache
from typing import TYPE_CHECKING, Protocol

from tilewright.build.kernel_cache import Binary, Observer, disk_cache
from tilewright.design.design import Design
from tilewright.knobs import knobs
from tilewright.machines.machine import Machine
from tilewright.runtime.work import Work, work_of

if TYPE_CHECKING:
    from tilewright.build.stages import Stages
    from tilewright.runtime.buffer import Buffer
    from tilewright.runtime.dispatch import Kernel

# From which level on a stage is printed. Each level includes those below.
_STAGES = (("ll", 4), ("tile", 5), ("sched", 5), ("thread", 6), ("asm", 7))


class _Launch(Protocol):
    kernel: Kernel

    def __call__(self) -> None: ...


def say(text: str) -> None:
    """One message, in one write so that threads do not mix."""
    sys.stderr.write(text.rstrip("\n") + "\n")


# ------------------------------------------------------------------------------------------------ builds
def observer(machine: Machine) -> Observer | None:
    """What `kernel_cache.build` tells of each kernel goes to stderr, as much as the level asks; None at level 0."""
    if knobs().debug < 1:
        return None
    _announce(machine)
    return _built


@cache
def _announce(machine: Machine) -> None:
    caches = ", ".join(f"{m.name} {m.bytes >> 10} KiB" for m in machine.levels if m.bytes)
    say(f"machine {machine.name}: {machine.cores} cores, {machine.vector_bits}-bit vectors, {caches}")


def _built(key: str, stages: Stages, binary: Binary) -> None:
    level, request = knobs().debug, stages.request
    fixed = "".join(f" {d}={n}" for d, n in request.sizes)
    how = f"compiled in {binary.seconds * 1e3:.1f} ms" if binary.seconds else "found on disk"
    say(f"kernel {request.kernel.name}{fixed}: {how}")
    if level >= 3:
        say(design_table(request.design))
    for stage, least in _STAGES:
        if level >= least:
            say(f"---- {request.kernel.name}: stage {stage}\n{stages.text(stage)}")
    if level >= 4:
        where = stages.keep(disk_cache(), key)
        say(f"stages kept beside {where}: an edited copy of stage sched there is used instead")


def design_table(design: Design) -> str:
    """The decisions of a design, one a line: `tile.m  14`."""
    width = max((len(name) for name, _ in design.decisions), default=0)
    lines = [f"design {design.hash}"]
    for name, choice in design.decisions:
        lines.append(f"  {name:{width}}  {' '.join(choice) if isinstance(choice, tuple) else choice}")
    return "\n".join(lines)


# ------------------------------------------------------------------------------------------------ launches
class Timed:
    """A launch that says how long it took, and at what rates: arithmetic, and bytes that must move."""

    __slots__ = ("_title", "_work", "kernel", "launch")

    def __init__(self, launch: _Launch, work: Work, title: str) -> None:
        self.kernel = launch.kernel
        self.launch, self._work, self._title = launch, work, title

    def __call__(self) -> None:
        begun = time.perf_counter()
        self.launch()
        seconds = time.perf_counter() - begun
        say(f"{self._title}: {seconds * 1e6:9.1f} us {self._work.rates(seconds)}")


def timed(launch: _Launch, buffers: Mapping[str, Buffer], sizes: Mapping[str, int]) -> Timed:
    """`launch`, reporting each of its runs."""
    shape = " ".join(f"{d}={n}" for d, n in sizes.items())
    dtype = next(iter(buffers.values())).dtype
    return Timed(launch, work_of(launch.kernel.program, sizes), f"{launch.kernel.name} {dtype} {shape}")


__all__ = ["Timed", "design_table", "observer", "say", "timed"]
