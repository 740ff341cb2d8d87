"""Which module simulates which kind of machine; each is imported when it is asked for."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from typing import Protocol, cast

from tilewright.errors import ArgumentError
from tilewright.simulate.simulation import Job, Simulation

SIMULATORS: dict[str, str] = {
    "systolic": "tilewright.simulate.systolic.run",
    "dataflow": "tilewright.simulate.dataflow.run",
    "nvidia": "tilewright.simulate.gpu.run",
}
"""Kind of machine -> module with `simulate(job)`."""


class Simulator(Protocol):
    """What such a module is."""

    def simulate(self, job: Job) -> Simulation:
        """The job's account. ArgumentError, MachineError or IllegalDesign, naming the fix, for what cannot be run."""
        ...


def simulate(job: Job) -> Simulation:
    """The job on the simulator of its machine's kind; ArgumentError where there is none."""
    name = SIMULATORS.get(job.machine.kind)
    if name is None or not _exists(name):
        those = ", ".join(kind for kind, module in SIMULATORS.items() if _exists(module))
        raise ArgumentError(
            f"{job.machine.name} is of kind {job.machine.kind}, which no simulator runs ({those} are); "
            f"run and time its kernels with `tilewright design` and `tilewright bench`"
        )
    return cast(Simulator, import_module(name)).simulate(job)


def _exists(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:
        return False
