"""What DEBUG=1..7 prints to stderr of kernels on a GPU: how they came to be, their designs, stages and times."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

from tilewright.build.cuda_kernel import CudaBinary, CudaStages
from tilewright.build.kernel_cache import Request
from tilewright.knobs import knobs
from tilewright.machines.machine import Machine
from tilewright.runtime.cuda import driver
from tilewright.runtime.debug import design_table, say
from tilewright.runtime.work import work_of

# From which level on a stage is printed; nothing is printed of threads, which only the listing of x86 has.
_STAGES = (("cu", 4), ("tile", 5), ("sched", 5), ("sass", 7))


def built(request: Request, binary: CudaBinary, machine: Machine) -> None:
    """Tell of a kernel that was compiled or found on disk, as much as the level asks."""
    level = knobs().debug
    if level < 1:
        return
    _announce(machine)
    fixed = "".join(f" {d}={n}" for d, n in request.sizes)
    how = f"compiled in {binary.seconds * 1e3:.1f} ms" if binary.seconds else "found on disk"
    report = binary.report
    say(f"kernel {request.kernel.name}{fixed}: {how}; {report.registers} registers, {report.spills} bytes spilled")
    if level >= 3:
        say(design_table(request.design))
    stages = CudaStages(request, machine)
    for stage, least in _STAGES:
        if level >= least:
            say(f"---- {request.kernel.name}: stage {stage}\n{stages.text(stage)}")


@cache
def _announce(machine: Machine) -> None:
    memories = ", ".join(f"{m.name} {m.bytes >> 10} KiB" for m in machine.levels if m.bytes)
    say(f"machine {machine.name}: {machine.cores} SMs, {machine.architecture}, {memories}")


def times_are_wanted() -> bool:
    """Whether each kernel says how long it took: launches are then waited for one by one, and graphs are not used."""
    return knobs().debug >= 2


def run_timed(launches: Sequence[Any], stream: Any) -> None:
    """Launch each on `stream`, the context in use, and say how long it took."""
    cu = driver.driver()
    begin, end = (driver.checked(cu.cuEventCreate(0), "making an event") for _ in range(2))
    try:
        for launch in launches:
            driver.checked(cu.cuEventRecord(begin, stream), "recording an event")
            launch()
            driver.checked(cu.cuEventRecord(end, stream), "recording an event")
            driver.checked(cu.cuEventSynchronize(end), "waiting for a kernel")
            say(_line(launch, 1e-3 * driver.checked(cu.cuEventElapsedTime(begin, end), "reading a time")))
    finally:
        for event in (begin, end):
            cu.cuEventDestroy(event)


def _line(launch: Any, seconds: float) -> str:
    """Operator, type and sizes of a launch, its time and its rates."""
    kernel, sizes = launch.program.kernel, launch.sizes
    work, dtype = work_of(kernel, sizes), next(iter(launch.buffers.values())).dtype
    shape = " ".join(f"{d}={n}" for d, n in sizes.items())
    return f"{kernel.name} {dtype} {shape}: {seconds * 1e6:9.1f} us {work.rates(seconds)}"


__all__ = ["built", "run_timed", "times_are_wanted"]
