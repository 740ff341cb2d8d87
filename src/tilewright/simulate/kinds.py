"""Which module simulates which kind of machine, imported when it is asked for; a sweep asks for each of its points."""

from __future__ import annotations

from dataclasses import replace
from importlib import import_module
from importlib.util import find_spec
from typing import Protocol, cast

from tilewright.errors import ArgumentError
from tilewright.operators.names import operator_name
from tilewright.simulate.simulation import Job, Simulation
from tilewright.simulate.sweep import each, swept

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
    """The job on the simulator of its machine's kind, or a sweep of it over lists of batches and contexts.

    ArgumentError where there is no such simulator.
    """
    job = replace(job, program=operator_name(job.program))
    simulator, jobs = _simulator(job), each(job)
    made = [simulator.simulate(one) for one in jobs]
    return made[0] if len(made) == 1 else swept(job, jobs, made)


def _simulator(job: Job) -> Simulator:
    name = SIMULATORS.get(job.machine.kind)
    if name is None or not _exists(name):
        those = ", ".join(kind for kind, module in SIMULATORS.items() if _exists(module))
        raise ArgumentError(
            f"{job.machine.name} is of kind {job.machine.kind}, which no simulator runs ({those} are); "
            f"run and time its kernels with `tilewright design` and `tilewright bench`"
        )
    return cast(Simulator, import_module(name))


def _exists(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:
        return False
