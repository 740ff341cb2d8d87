"""The x86 processor that this process runs on."""

from __future__ import annotations

import hashlib
import math
import platform
from functools import cache
from pathlib import Path
from typing import Any

from tilewright.machines import _store, isa, trial
from tilewright.machines.caches import host_levels
from tilewright.machines.machine import Atom, Machine, VectorISA

_RECORD_VERSION = 2  # raise it when the trials or the record change: older records are then misses
_MODALIAS = Path("/sys/devices/system/cpu/modalias")
_CPUINFO = Path("/proc/cpuinfo")


@cache
def request_amx() -> bool:
    """Ask the kernel to let this process use AMX tiles: once in each process, before the first AMX instruction.

    False where the processor or the kernel refuses; an AMX instruction would then end the process.
    """
    return trial.request_amx()


HABITS = {"amd": (("prefetches_across_pages", 1.0),)}
"""What was found out of processors, by their maker: that prefetchers go on where a page of memory ends, while those of
Intel begin anew with each page."""


def detect(available_cores: int) -> Machine:
    """The host as a Machine with `available_cores`; features are those that executed."""
    record = isa_record()
    features = tuple(record["features"])
    cpu = record["cpu"]
    family = "-".join(str(cpu[k]) for k in ("vendor", "family", "model"))
    return Machine(
        name=cpu["brand"] or family,
        kind="x86",
        architecture=family,
        cores=available_cores,
        levels=host_levels(),
        atoms=atoms(features, record["per_cycle"]),
        clock_hz=record["clock_hz"],
        vector=vector_isa(features),
        habits=HABITS.get(cpu["vendor"], ()),
    )


def vector_isa(features: tuple[str, ...]) -> VectorISA:
    """The vector registers that `features` give."""
    wide = "avx512f" in features
    return VectorISA(isa.vector_bits(features), 32 if wide else 16, features, masks=wide)


def atoms(features: tuple[str, ...], per_cycle: dict[str, float]) -> tuple[Atom, ...]:
    """The compute instructions that `features` give; `per_cycle` says how many of each vector atom one core retires."""
    lanes = isa.vector_bits(features) // 32
    wide = {
        "fma": ("f32", "f32", (1, lanes, 1)),
        "vdpbf16ps": ("bf16", "f32", (1, lanes, 2)),
        "vpdpbusd": ("i8", "i32", (1, lanes, 4)),
        "tdpbf16ps": ("bf16", "f32", (16, 16, 32)),
        "tdpbssd": ("i8", "i32", (16, 16, 64)),
    }
    # A tile product issues every 16 cycles (Intel's optimisation manual, 248966, chapter 20).
    rates = {"tdpbf16ps": 1 / 16, "tdpbssd": 1 / 16, **per_cycle}
    pipes = rates.get("fma")
    found = [Atom("scalar", "f32", "f32", (1, 1, 1), None if pipes is None else 2.0 * pipes)]
    for name, (dtype, accumulator, shape) in wide.items():
        if isa.has_atom(name, features):
            flops = 2.0 * math.prod(shape) * rates[name] if name in rates else None
            found.append(Atom(name, dtype, accumulator, shape, flops))
    return tuple(found)


# --------------------------------------------------------------------------- what executes, remembered
def isa_record(refresh: bool = False) -> dict[str, Any]:
    """Features that execute here, the processor's identity and speed; tried once, then read from the cache folder.

    Keys: features, failed, cpu (vendor, family, model, brand), per_cycle, clock_hz, by ("trial" or "report").
    """
    name = f"isa-{cpu_identity()}"
    record = None if refresh else _store.load(name)
    if record is None or not _is_complete(record):
        record = _find_record()
        _store.save(name, record)
    return record


def cpu_identity() -> str:
    """16 hex digits that change with the processor, its enabled features, and the trials."""
    try:
        facts = _MODALIAS.read_text()
    except OSError:
        try:
            with _CPUINFO.open() as file:  # the first processor only, without what varies from second to second
                lines = file.read(8192).split("\n\n")[0].splitlines()
            facts = "\n".join(x for x in lines if not x.startswith(("cpu MHz", "bogomips", "apicid", "core id")))
        except OSError:
            facts = " ".join((platform.system(), platform.machine(), platform.processor()))
    return hashlib.sha256(f"{_RECORD_VERSION} {facts}".encode()).hexdigest()[:16]


def _is_complete(record: dict[str, Any]) -> bool:
    try:
        known = all(f in isa.FEATURES for f in record["features"])
        return (
            known
            and {"vendor", "family", "model", "brand"} <= set(record["cpu"])
            and isinstance(record["per_cycle"], dict)
        )
    except (KeyError, TypeError):
        return False


def _find_record() -> dict[str, Any]:
    outcome = trial.try_features()
    if outcome is None:
        return _reported_record()
    return {
        "features": list(outcome.features),
        "failed": list(outcome.failed),
        "cpu": outcome.cpu,
        "per_cycle": outcome.per_cycle,
        "clock_hz": outcome.clock_hz,
        "by": "trial",
    }


def _reported_record() -> dict[str, Any]:
    """Where no child process can run: what the processor reports, less AMX, whose permission is unknown."""
    from llvmlite.binding import get_host_cpu_features

    reported = [f for f, on in get_host_cpu_features().items() if on]
    cpu = {"vendor": "unknown", "family": 0, "model": 0, "brand": platform.processor()}
    return {
        "features": list(isa.without(reported, ["amx-tile"])),
        "failed": [],
        "cpu": cpu,
        "per_cycle": {},
        "clock_hz": None,
        "by": "report",
    }
