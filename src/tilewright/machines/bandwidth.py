"""Main-memory bandwidth as the best of several streaming kernels reaches it on this host.

Measuring takes some seconds, once: the result lies in the cache folder, by the machine's fingerprint
and the number of threads. `_streaming.py` says how it is measured.

On a virtual machine the bandwidth can change twofold from one minute to the next, with the load of its
neighbours and the cores it is given: a benchmark takes `probe(...)` and times it in turns with its kernel.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from tilewright.errors import MachineError
from tilewright.knobs import knobs
from tilewright.machines import _store, x86
from tilewright.machines.cores import host_kind
from tilewright.machines.machine import Machine

if TYPE_CHECKING:
    from tilewright.machines._streaming import Probe

OPERATIONS = ("read", "copy", "copy_nontemporal")


@dataclass(frozen=True)
class Bandwidth:
    """Bytes/s of main memory with `threads` threads; a copy counts the bytes read plus the bytes written."""

    read: float
    copy: float
    copy_nontemporal: float
    threads: int


def measured_bandwidth(machine: Machine, threads: int | None = None, *, refresh: bool = False) -> Bandwidth:
    """The bandwidth of this host's main memory with `threads` threads (default: all of `machine.cores`).

    Measured on the first call (some seconds, up to 512 MiB of memory), then remembered on disk.
    Raises MachineError where `machine` is not one that this host executes.
    """
    threads = machine.cores if threads is None else threads
    if threads < 1:
        raise MachineError(f"bandwidth with {threads} threads cannot be measured; ask for at least 1")
    _check_runs_here(machine)
    known = None if refresh else remembered(machine, threads)
    if known is None:
        from tilewright.machines._streaming import measure  # NumPy and LLVM: not for a mere look-up

        rates, samples = measure(machine, threads)
        known = Bandwidth(rates["read"], rates["copy"], rates["copy_nontemporal"], threads)
        key = _key(machine, threads)
        _remembered[key] = known
        _store.save(key[1], {**asdict(known), "samples": samples})
    return known


def probe(machine: Machine, threads: int | None = None) -> Probe:
    """The best streams, to be timed beside other work: `with probe(machine) as p: p.rate("read")` is bytes/s now.

    Entering the context takes about a second. Raises MachineError where `machine` is not one that this host executes.
    """
    from tilewright.machines._streaming import Probe

    _check_runs_here(machine)
    return Probe(machine, machine.cores if threads is None else threads)


_remembered: dict[tuple[str, str], Bandwidth | None] = {}


def remembered(machine: Machine, threads: int | None = None) -> Bandwidth | None:
    """What was measured before, by this process or by another with the same cache folder; None if nothing was."""
    key = _key(machine, machine.cores if threads is None else threads)
    if key not in _remembered:
        _remembered[key] = _from_record(_store.load(key[1]))
    return _remembered[key]


def _key(machine: Machine, threads: int) -> tuple[str, str]:
    return str(knobs().cache_dir), f"bandwidth-{machine.fingerprint}-{threads}"


def _from_record(record: dict[str, Any] | None) -> Bandwidth | None:
    if record is None:
        return None
    try:
        rates = [float(record[operation]) for operation in OPERATIONS]
        found = Bandwidth(rates[0], rates[1], rates[2], int(record["threads"]))
    except (KeyError, TypeError, ValueError):
        return None
    return found if all(0 < rate < math.inf for rate in rates) else None


def _check_runs_here(machine: Machine) -> None:
    missing: list[str] = []
    if machine.kind == "x86" == host_kind() and machine.vector is not None:
        missing = sorted(set(machine.vector.features) - set(x86.isa_record()["features"]))
    if machine.kind != host_kind() or missing:
        why = f"this host lacks {', '.join(missing)}" if missing else f"this host is of kind {host_kind()}"
        raise MachineError(
            f"the bandwidth of {machine.name!r} cannot be measured: {why}; measure Machine.detect(), "
            "or read the description's own `bandwidth`"
        )
