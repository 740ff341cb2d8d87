"""Sizes of the host's caches: from sysfs, else from the C library or the system, else common values."""

from __future__ import annotations

import ctypes
import os
import platform
from pathlib import Path
from typing import NamedTuple

from tilewright.machines.cores import affinity, count_cpus, hardware_threads
from tilewright.machines.machine import MemoryLevel

_CPUS = Path("/sys/devices/system/cpu")
_UNITS = {"K": 2**10, "M": 2**20, "G": 2**30}
_COMMON = {1: 32 * 2**10, 2: 2**20}  # what nearly every core since 2019 has at least, or half of it
_SYSCONF = {1: 188, 2: 194, 3: 197}  # glibc's _SC_LEVELn_[D]CACHE_SIZE, which it takes from CPUID
_SYSCTL = {1: "hw.l1dcachesize", 2: "hw.l2cachesize", 3: "hw.l3cachesize"}


class Cache(NamedTuple):
    """One data or unified cache: `bytes` of one instance, `shared_by` logical CPUs."""

    level: int
    bytes: int
    shared_by: int


def host_caches(cpu: int = 0, root: Path = _CPUS) -> tuple[Cache, ...]:
    """The data caches that logical CPU `cpu` reads through, nearest first; never empty."""
    found = _from_sysfs(cpu, root) or _from_sysconf() or _from_sysctl()
    levels = {c.level for c in found}
    return tuple(sorted([*found, *(Cache(n, size, 1) for n, size in _COMMON.items() if n not in levels)]))


def host_levels() -> tuple[MemoryLevel, ...]:
    """The caches of the host, as shared by physical cores, and its DRAM (of a size that bounds no design)."""
    cpu = min(affinity())
    threads = hardware_threads(cpu)
    caches = [MemoryLevel(f"l{c.level}", c.bytes, max(1, c.shared_by // threads)) for c in host_caches(cpu)]
    return (*caches, MemoryLevel("dram"))


def _from_sysfs(cpu: int, root: Path) -> list[Cache]:
    caches = []
    for folder in sorted((root / f"cpu{cpu}" / "cache").glob("index*")):
        try:
            if (folder / "type").read_text().strip() == "Instruction":
                continue
            level = int((folder / "level").read_text())
            size = parse_size((folder / "size").read_text())
            shared = count_cpus((folder / "shared_cpu_list").read_text())
        except (OSError, ValueError):
            continue
        caches.append(Cache(level, size, shared))
    return caches


def parse_size(text: str) -> int:
    """Bytes of a size as sysfs writes it: 48K, 1024K, 32M."""
    text = text.strip()
    return int(text[:-1]) * _UNITS[text[-1]] if text[-1:] in _UNITS else int(text)


def _from_sysconf() -> list[Cache]:
    if platform.system() != "Linux":
        return []
    caches = []
    for level, name in _SYSCONF.items():
        try:
            size = os.sysconf(name)
        except (OSError, ValueError):
            return []
        if size > 0:
            caches.append(Cache(level, size, 1 if level < 3 else os.cpu_count() or 1))
    return caches


def _from_sysctl() -> list[Cache]:
    if platform.system() != "Darwin":
        return []
    caches = []
    for level, name in _SYSCTL.items():
        size, length = ctypes.c_uint64(0), ctypes.c_size_t(8)
        failed = ctypes.CDLL(None).sysctlbyname(name.encode(), ctypes.byref(size), ctypes.byref(length), None, 0)
        if not failed and size.value:
            caches.append(Cache(level, size.value, 1 if level < 3 else os.cpu_count() or 1))
    return caches
