"""Temporary folders: what a killed process left of them, the next one that needs some removes.

Whether the owner of a folder lives is told by a lock, not by a process id: the system frees the lock of whoever dies,
however that is, and no other process can be taken for the owner. Where a lock may not be seen by all (network file
systems), nothing is removed but by the owner.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import stat
import tempfile
from contextlib import suppress
from pathlib import Path

from tilewright.design.book.filesystem import is_local
from tilewright.errors import ArgumentError

_PREFIX = "tilewright-"
_OWNER, _UNFINISHED = ".owner", ".owner-to-be"
_KINDS = ("trial", "crew", "background")


class Scratch:
    """A new temporary folder, `tilewright-<kind>-...` at `path`, until `remove()`.

    `kind` is trial, crew or background. Once nobody holds this object the folder counts as left. ArgumentError where no
    folder can be made.
    """

    _lock: int | None = None

    def __init__(self, kind: str) -> None:
        assert kind in _KINDS, kind
        sweep()
        try:
            self.path = Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{kind}-"))
        except OSError as error:
            raise ArgumentError(
                f"no temporary folder can be made ({error}); make room, or set TMPDIR to a folder that has it"
            ) from None
        self._lock = _owned(self.path)

    def remove(self) -> None:
        """Remove the folder with all that is in it."""
        shutil.rmtree(self.path, ignore_errors=True)
        self._leave()

    def _leave(self) -> None:
        lock, self._lock = self._lock, None
        if lock is not None:
            os.close(lock)

    def __del__(self) -> None:
        self._leave()  # nothing is removed: this may be the copy of a fork, whose parent goes on


def sweep() -> None:
    """Remove what dead processes of this user left in the folder for temporary files."""
    with suppress(OSError), os.scandir(tempfile.gettempdir()) as entries:
        for entry in entries:
            if entry.name.startswith(tuple(f"{_PREFIX}{kind}-" for kind in _KINDS)):
                with suppress(OSError):
                    _sweep(entry.path)


def _owned(folder: Path) -> int | None:
    """The lock that says that this process uses a folder; None where the file system has none that all can see.

    The file has its name only once it is locked: who finds it free finds it left.
    """
    lock = None
    if not is_local(folder):
        return None
    try:
        lock = os.open(folder / _UNFINISHED, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.rename(folder / _UNFINISHED, folder / _OWNER)
    except OSError:
        if lock is not None:
            os.close(lock)
        return None
    return lock


def _sweep(folder: str) -> None:
    """Remove a folder of this user's whose owner is dead; one that never had a lock is somebody else's to judge."""
    found = os.lstat(folder)
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
        return
    lock = os.open(os.path.join(folder, _OWNER), os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(folder, ignore_errors=True)
    finally:
        os.close(lock)


__all__ = ["Scratch", "sweep"]
