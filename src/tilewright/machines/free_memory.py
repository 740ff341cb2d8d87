"""How much memory of this host a process may still take."""

from __future__ import annotations

import os
from pathlib import Path

_MEMINFO = Path("/proc/meminfo")
UNKNOWN = 2**32


def free_memory(meminfo: Path = _MEMINFO) -> int:
    """Bytes that are free, or that the kernel would free for a process; UNKNOWN, 4 GiB, where nothing tells.

    What `MemAvailable` says (proc(5)), else a half of what is installed: others use some.
    """
    try:
        found = dict(line.split(":", 1) for line in meminfo.read_text(encoding="ascii").splitlines())
        return int(found["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        pass
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
    except (AttributeError, OSError, ValueError):
        return UNKNOWN


__all__ = ["UNKNOWN", "free_memory"]
