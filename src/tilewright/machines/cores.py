"""How many cores this process may use: affinity, control groups, and hardware threads counted once."""

from __future__ import annotations

import os
import platform
from pathlib import Path

_PROC = Path("/proc")
_CGROUPS = Path("/sys/fs/cgroup")
_CPUS = Path("/sys/devices/system/cpu")


_KINDS = {"x86": ("x86_64", "amd64", "i386", "i686", "x86"), "arm": ("aarch64", "arm64")}


def host_kind() -> str:
    """The kind of Machine that this host is: x86, arm, or generic for any other processor."""
    family = platform.machine().lower()
    return next((kind for kind, names in _KINDS.items() if family in names), "generic")


def affinity() -> frozenset[int]:
    """The logical CPUs that the scheduler may place this process on."""
    if hasattr(os, "sched_getaffinity"):
        return frozenset(os.sched_getaffinity(0))
    return frozenset(range(os.cpu_count() or 1))


def physical_cores(cpus: frozenset[int], root: Path = _CPUS) -> int:
    """Physical cores behind the logical `cpus`: hardware threads of one core compete for its vector units."""
    return len({_siblings(cpu, root) for cpu in cpus})


def _siblings(cpu: int, root: Path) -> str:
    for name in ("core_cpus_list", "thread_siblings_list"):
        try:
            return (root / f"cpu{cpu}" / "topology" / name).read_text().strip()
        except OSError:
            continue
    return str(cpu)


def count_cpus(text: str) -> int:
    """How many CPUs a list such as 0-3,8,10-11 names."""
    total = 0
    for part in text.strip().split(","):
        first, _, last = part.partition("-")
        total += int(last or first) - int(first) + 1
    return total


def hardware_threads(cpu: int, root: Path = _CPUS) -> int:
    """Logical CPUs that share the physical core of `cpu`."""
    return count_cpus(_siblings(cpu, root))


def cores_available(cpus: frozenset[int] | None = None, proc: Path = _PROC, cgroups: Path = _CGROUPS) -> int:
    """Physical cores in the affinity mask, no more than the CPU quota of every enclosing control group; at least 1."""
    cores = physical_cores(affinity() if cpus is None else cpus)
    quota = cpu_quota(proc, cgroups)
    return cores if quota is None else max(1, min(cores, int(quota)))


def cpu_quota(proc: Path = _PROC, cgroups: Path = _CGROUPS) -> float | None:
    """CPUs' worth of time that control groups (version 1 or 2) allow this process, or None where unlimited."""
    try:
        lines = (proc / "self" / "cgroup").read_text().splitlines()
    except OSError:
        return None
    quotas: list[float] = []
    for line in lines:
        _, controllers, group = line.split(":", 2)
        if not controllers:
            for mount in (cgroups, cgroups / "unified"):
                quotas += [q for g in _upwards(mount, group) if (q := _quota_v2(g)) is not None]
        elif "cpu" in controllers.split(","):
            for mount in (cgroups / controllers, cgroups / "cpu"):
                quotas += [q for g in _upwards(mount, group) if (q := _quota_v1(g)) is not None]
    return min(quotas, default=None)


def _upwards(mount: Path, group: str) -> list[Path]:
    """The group's folder and its ancestors up to the mount: a limit anywhere on the way binds.

    Inside a container the group's own path may not exist below the mount; the mount itself then stands for it.
    """
    here = mount / group.strip("/")
    return [p for p in (here, *here.parents) if p == mount or mount in p.parents]


def _quota_v2(group: Path) -> float | None:
    try:
        quota, period = (group / "cpu.max").read_text().split()
        return None if quota == "max" else int(quota) / int(period)
    except (OSError, ValueError, ZeroDivisionError):
        return None


def _quota_v1(group: Path) -> float | None:
    try:
        quota = int((group / "cpu.cfs_quota_us").read_text())
        period = int((group / "cpu.cfs_period_us").read_text())
        return None if quota <= 0 else quota / period
    except (OSError, ValueError, ZeroDivisionError):
        return None
