"""Whether the book may use a write-ahead log where it lies: on local file systems it may, on network ones never.

The log's index is memory that all processes map, which hosts of a network file system cannot share (SQLite,
"Write-Ahead Logging", section 1). A file system that nobody vouches for is taken for a network one: a rollback
journal is slower, and right everywhere.
"""

from __future__ import annotations

import os
from pathlib import Path

LOCAL = frozenset(
    {"apfs", "bcachefs", "bfs", "btrfs", "exfat", "ext2", "ext3", "ext4", "f2fs", "hfs", "jfs", "ntfs3", "overlay",
     "ramfs", "reiserfs", "rootfs", "tmpfs", "ufs", "vfat", "xfs", "zfs"}
)  # fmt: skip
"""Types of file systems on which processes of one host, and no others, see a file."""

_MOUNTS = Path("/proc/self/mountinfo")


def is_local(path: Path) -> bool:
    """Whether all that may use the file at `path` run on this host, as far as that is known."""
    return kind_of(path) in LOCAL


def kind_of(path: Path) -> str:
    """The type of the file system of `path` (which need not exist yet), as mount tables name it; `unknown`."""
    found = _existing(path)
    try:
        device = os.stat(found).st_dev
        table = _MOUNTS.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return "unknown"
    mounts = [m for m in map(_mount, table) if m is not None]
    around = [m for m in mounts if found.is_relative_to(m[1])]
    # The innermost mount point; of several on one point the last covers the others. The device confirms it.
    best = max(enumerate(around), key=lambda m: (len(m[1][1]), m[0]), default=None)
    if best is not None and best[1][0] == device:
        return best[1][2]
    return next((kind for number, _, kind in mounts if number == device), best[1][2] if best else "unknown")


def _existing(path: Path) -> Path:
    """`path`, or the nearest folder above it that exists, without links."""
    here = Path(os.path.realpath(path))
    while not here.exists() and here != here.parent:
        here = here.parent
    return here


def _mount(line: str) -> tuple[int, str, str] | None:
    """(device, mount point, type) of a line of mountinfo (proc_pid_mountinfo(5))."""
    left, _, right = line.partition(" - ")
    words = left.split()
    if len(words) < 5 or not right:
        return None
    major, _, minor = words[2].partition(":")
    point = words[4].replace("\\040", " ").replace("\\011", "\t").replace("\\012", "\n").replace("\\134", "\\")
    return os.makedev(int(major), int(minor)), point, right.split()[0]
