"""The NVIDIA GPUs of this host as machines: what the driver reports, over the shipped description of that model."""

from __future__ import annotations

import re
from dataclasses import replace
from functools import cache
from typing import Any

from tilewright.errors import MachineError
from tilewright.machines import _store
from tilewright.machines.machine import Machine, MemoryLevel
from tilewright.machines.nvidia_driver import asked, driver

# Descriptions by what the driver calls the model; the first that matches serves.
_MODELS = (
    (re.compile(r"\bH200\b"), "h200"), (re.compile(r"\bH100\b"), "h100"), (re.compile(r"\bB200\b"), "b200"),
    (re.compile(r"\bA100\b"), "a100"), (re.compile(r"\bL40S\b"), "l40s"), (re.compile(r"\bRTX 4090\b"), "rtx4090"),
)  # fmt: skip
# Of a model that no description knows, the one of the nearest capability stands in.
_FAMILIES = ((100, "b200"), (90, "h100"), (89, "l40s"), (0, "a100"))
# Limits that the driver reports, by its names for them.
_LIMITS = {
    "max_threads_per_block": "MAX_THREADS_PER_BLOCK",
    "registers_per_sm": "MAX_REGISTERS_PER_MULTIPROCESSOR",
    "max_blocks_per_sm": "MAX_BLOCKS_PER_MULTIPROCESSOR",
    "shared_bytes_per_sm": "MAX_SHARED_MEMORY_PER_MULTIPROCESSOR",
    "shared_bytes_per_block": "MAX_SHARED_MEMORY_PER_BLOCK_OPTIN",
}


LEAST = 80
"""The least compute capability that kernels are made for: bf16 on matrix units, copies that run by themselves."""


def unsupported(name: str, capability: int) -> str:
    """Why no kernels are made for a GPU of such a capability (80 for 8.0), with what to do; empty if they are."""
    if capability >= LEAST:
        return ""
    least, own = (f"{n // 10}.{n % 10}" for n in (LEAST, capability))
    return f"{name} has compute capability {own}, and {least} (Ampere) is the least; take device cpu, or a newer GPU"


def devices() -> list[str]:
    """Names of the GPUs, by device number; MachineError where there is no driver."""
    cu = driver()
    count = asked(cu.cuDeviceGetCount(), "counting GPUs")
    return [_name(cu, n) for n in range(count)]


def driver_version() -> str:
    """The newest CUDA that the driver speaks ("13.0"); MachineError where there is no driver."""
    number = int(asked(driver().cuDriverGetVersion(), "asking the driver for its version"))
    return f"{number // 1000}.{number % 1000 // 10}"


@cache
def detect(device: int = 0) -> Machine:
    """GPU `device` of this host, with its measured bandwidths where they are known (see `nvidia_bandwidth`).

    Raises MachineError where there is no driver, or no GPU of that number.
    """
    cu = driver()
    names = devices()
    if not 0 <= device < len(names):
        raise MachineError(f"there is no GPU {device}; this host has {len(names)}: {', '.join(names) or 'none'}")
    handle = asked(cu.cuDeviceGet(device), f"opening GPU {device}")
    known = Machine.named(model_of(names[device], _capability(cu, handle)))
    return with_rates(_as_reported(known, names[device], cu, handle))


def model_of(name: str, capability: int) -> str:
    """The shipped description for a GPU by its name, or by its compute capability (90 for 9.0)."""
    for pattern, model in _MODELS:
        if pattern.search(name):
            return model
    return next(model for least, model in _FAMILIES if capability >= least)


def with_rates(machine: Machine) -> Machine:
    """`machine` with the bandwidths that were measured on this host before, if any."""
    known = _store.load(record_name(machine))
    if known is None or not all(isinstance(known.get(k), float) and known[k] > 0 for k in ("read", "copy")):
        return machine
    return machine.with_memory_rates(known["read"], known["copy"], known["copy"])


def record_name(machine: Machine) -> str:
    """Where measured bandwidths are remembered."""
    return f"bandwidth-{machine.fingerprint}-gpu"


def _as_reported(known: Machine, name: str, cu: Any, handle: Any) -> Machine:
    """The description, with what the driver says of this very card in the place of what the data sheet says."""
    attribute = cu.CUdevice_attribute
    limits = dict(known.limits)
    for limit, word in _LIMITS.items():
        limits[limit] = _attribute(cu, handle, getattr(attribute, f"CU_DEVICE_ATTRIBUTE_{word}"))
    capability = _capability(cu, handle)
    limits["compute_capability"] = capability
    limits["max_warps_per_sm"] = (
        _attribute(cu, handle, attribute.CU_DEVICE_ATTRIBUTE_MAX_THREADS_PER_MULTIPROCESSOR) // 32
    )
    cores = _attribute(cu, handle, attribute.CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)
    l2 = _attribute(cu, handle, attribute.CU_DEVICE_ATTRIBUTE_L2_CACHE_SIZE)
    memory = int(asked(cu.cuDeviceTotalMem(handle), "asking a GPU for its memory"))
    levels = tuple(_sized(level, {"l2": l2, known.memory.name: memory}) for level in known.levels)
    architecture = f"sm_{capability}a" if capability >= 90 else f"sm_{capability}"
    return replace(
        known, name=f"{known.name} ({name})", architecture=architecture, cores=cores, levels=levels,
        limits=tuple(sorted(limits.items())),
    )  # fmt: skip


def _sized(level: MemoryLevel, sizes: dict[str, int]) -> MemoryLevel:
    return replace(level, bytes=sizes[level.name]) if level.name in sizes else level


def _name(cu: Any, device: int) -> str:
    handle = asked(cu.cuDeviceGet(device), f"opening GPU {device}")
    raw = asked(cu.cuDeviceGetName(128, handle), f"naming GPU {device}")
    return bytes(raw).partition(b"\0")[0].decode(errors="replace").strip()


def _capability(cu: Any, handle: Any) -> int:
    attribute = cu.CUdevice_attribute
    major = _attribute(cu, handle, attribute.CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)
    return 10 * major + _attribute(cu, handle, attribute.CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)


def _attribute(cu: Any, handle: Any, attribute: Any) -> int:
    return int(asked(cu.cuDeviceGetAttribute(attribute, handle), f"asking a GPU for {attribute.name}"))


__all__ = ["LEAST", "detect", "devices", "driver_version", "model_of", "record_name", "unsupported", "with_rates"]
