"""The machine that this process runs on."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import lru_cache

from tilewright.errors import MachineError
from tilewright.knobs import knobs
from tilewright.machines import arm, bandwidth, cores, generic, x86
from tilewright.machines.bandwidth import Bandwidth
from tilewright.machines.machine import Machine

_DETECTORS = {"x86": x86.detect, "arm": arm.detect, "generic": generic.detect}


def detect() -> Machine:
    """The machine to run on: the host, or what TILEWRIGHT_MACHINE makes of it.

    The name of a CPU restricts the host to that machine's instruction set; MachineError where the host
    lacks a feature of it. The name of an accelerator is taken as it is. TILEWRIGHT_THREADS bounds
    `cores`. Bandwidths that were measured before are attached to the main memory.
    """
    settings = knobs()
    key = (settings.machine, settings.threads, cores.affinity(), str(settings.cache_dir))
    machine = _detect(*key)
    return _with_rates(*key, bandwidth.remembered(machine)) if machine.is_cpu else machine


@lru_cache(maxsize=8)
def _detect(name: str | None, threads: int | None, cpus: frozenset[int], cache_dir: str) -> Machine:
    """All arguments are part of the key: a change of any is a new detection."""
    available = cores.cores_available(cpus)
    host = _DETECTORS[cores.host_kind()](min(available, threads or available))
    if name is None:
        return host
    wanted = Machine.named(name)
    return restrict(host, wanted) if wanted.is_cpu else wanted


@lru_cache(maxsize=8)
def _with_rates(
    name: str | None, threads: int | None, cpus: frozenset[int], cache_dir: str, known: Bandwidth | None
) -> Machine:
    machine = _detect(name, threads, cpus, cache_dir)
    return machine if known is None else machine.with_memory_rates(known.read, known.copy, known.copy_nontemporal)


def restrict(host: Machine, wanted: Machine) -> Machine:
    """`host` with no more than the instruction set of `wanted`; MachineError where `host` lacks a feature of it."""
    assert host.vector is not None and wanted.vector is not None
    missing = [f for f in wanted.vector.features if not host.has(f)]
    if host.kind != wanted.kind or missing:
        why = f"it is of kind {host.kind}" if host.kind != wanted.kind else f"it lacks {', '.join(missing)}"
        raise MachineError(
            f"TILEWRIGHT_MACHINE={wanted.name}: this host cannot execute code for {wanted.name} ({why}); "
            "unset the variable, or name a machine whose instruction set the host has"
        )
    atoms = host.atoms
    if host.kind == "x86":
        per_cycle = {a.name: a.flops_per_cycle / (2 * math.prod(a.shape)) for a in atoms if a.flops_per_cycle}
        atoms = x86.atoms(wanted.vector.features, per_cycle)  # as many narrower instructions per cycle
    return replace(host, name=f"{host.name} as {wanted.name}", vector=wanted.vector, atoms=atoms)
