"""A folder of build artefacts, found by the content they were made from.

An entry is `<key[:2]>/<key>.<stage>`: one header line with the checksum of the rest, then the data as the stage made it
(so that a text stage can be read and edited). Entries appear by rename and are checked on every read: an entry cut
short by a kill, a full disk or another process is a miss with a warning, and is never used.
Nothing here waits for another process: two that build the same entry both write it, and either copy serves.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import time
import warnings
from contextlib import suppress
from pathlib import Path

from tilewright.errors import ArgumentError, CacheWarning
from tilewright.knobs import knobs

SCHEMA = 1
"""Raised whenever what a key means, or what an entry holds, changes."""

STAGES = ("tile", "sched", "ll", "asm", "o", "meta", "cu", "cubin")
"""The artefacts that can be kept, by file ending; binaries and what they were made from."""

_BINARY = frozenset({"o", "cubin"})
_COMMENT = {"ll": ";", "cu": "//"}
_STALE_SECONDS = 3600


def cache_key(text: str, target: str, compiler: str) -> str:
    """The key (64 hex digits) of what `compiler` makes of `text` for `target`; strings that name each in full."""
    digest = hashlib.sha256()
    for part in (f"tilewright cache {SCHEMA}", compiler, target, text):
        data = part.encode()
        digest.update(len(data).to_bytes(8, "little"))  # ("ab", "c") and ("a", "bc") are different keys
        digest.update(data)
    return digest.hexdigest()


class Cache:
    """The artefacts under `directory`, at most about `max_bytes` of them; the least recently used go first.

    Any number of processes may share the folder. If it cannot be written, a CacheWarning says so once and nothing is
    kept; if it cannot be read, every look-up misses. One that is `readonly` leaves the folder as it is.
    """

    def __init__(self, directory: str | os.PathLike[str], max_bytes: int = 1 << 30, *, readonly: bool = False) -> None:
        if max_bytes <= 0:
            raise ArgumentError(f"max_bytes must be positive, got {max_bytes}")
        self.directory = Path(directory)
        self.max_bytes = max_bytes
        self._readonly = readonly
        self._writable = not readonly
        self._unswept: int | None = None  # bytes written since the folder was last measured; None: never measured

    def get(self, key: str, stage: str) -> bytes | None:
        """The artefact, or None if there is none; a damaged one is removed with a CacheWarning."""
        path = self._path(key, stage)
        try:
            raw = path.read_bytes()
        except OSError:
            return None
        data = _checked(raw, key, stage)
        if data is None:
            warnings.warn(
                f"cache entry {path} is damaged; it was dropped and will be compiled again", CacheWarning, stacklevel=2
            )
        if not self._readonly:
            _touch(path) if data is not None else _remove(path)
        return data

    def put(self, key: str, stage: str, data: bytes) -> None:
        """Keep an artefact. A folder that cannot be written gives one CacheWarning, and no error."""
        path = self._path(key, stage)
        if not self._writable or len(data) > self.max_bytes:
            return
        try:
            self._write(path, _header(data, key, stage) + data)
        except OSError as error:
            self._writable = False
            warnings.warn(
                f"cannot write to the cache folder {self.directory} ({error.strerror}); kernels will be compiled again "
                "in every run. Free some space, or choose another folder",
                CacheWarning,
                stacklevel=2,
            )

    def override(self, key: str, stage: str) -> bytes | None:
        """What a user put in place of this artefact (the file `override_path` names), or None.

        Binaries have no override: nothing could vouch for them.
        """
        self._path(key, stage)
        if stage in _BINARY:
            return None
        try:
            raw = self.override_path(key, stage).read_bytes()
        except OSError:
            return None
        first, _, rest = raw.partition(b"\n")
        # A copy of an entry brings its header line along.
        return rest if _MAGIC in first else raw

    def overridden(self, key: str) -> bool:
        """Whether a user put something in place of any artefact of `key`."""
        return any(self.override_path(key, stage).exists() for stage in STAGES if stage not in _BINARY)

    def override_path(self, key: str, stage: str) -> Path:
        """Where to put an edited copy of a text stage."""
        return self._path(key, stage).with_name(f"{key}.override.{stage}")

    def _path(self, key: str, stage: str) -> Path:
        if len(key) != 64 or not set(key) <= set("0123456789abcdef"):
            raise ArgumentError(f"{key!r} is not a cache key; make one with cache_key()")
        if stage not in STAGES:
            raise ArgumentError(f"unknown stage {stage!r}; the stages are {', '.join(STAGES)}")
        return self.directory / key[:2] / f"{key}.{stage}"

    def _write(self, path: Path, data: bytes) -> None:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        temporary = path.with_name(f"{path.name}.{secrets.token_hex(8)}.tmp")
        try:
            temporary.write_bytes(data)
            os.replace(temporary, path)  # no fsync: a crash may lose or tear the entry, and the checksum tells
        except OSError:
            _remove(temporary)
            raise
        self._account(len(data))

    # ------------------------------------------------------------------------------------ bounding the folder
    def _account(self, written: int) -> None:
        """Measure the folder at the first write, and again whenever a sixteenth of the bound has been written."""
        if self._unswept is not None:
            self._unswept += written
            if self._unswept < self.max_bytes // 16:
                return
        self._unswept = 0
        self._sweep()

    def _sweep(self) -> None:
        """Remove the least recently used entries beyond 15/16 of the bound, and temporary files left by a kill."""
        entries = sorted(self._entries())
        excess = sum(size for _, size, _ in entries) - self.max_bytes * 15 // 16
        for _, size, path in entries:
            if excess <= 0:
                return
            _remove(path)
            excess -= size

    def _entries(self) -> list[tuple[float, int, str]]:
        """(last use, bytes, path) of every entry; removes stale temporary files on the way."""
        found = []
        for folder in _scan(self.directory):
            for file in _scan(folder.path) if len(folder.name) == 2 else ():
                stat = _stat(file)
                if stat is None or ".override." in file.name:
                    continue
                if not file.name.endswith(".tmp"):
                    found.append((stat.st_mtime, stat.st_size, file.path))
                elif stat.st_mtime < time.time() - _STALE_SECONDS:
                    _remove(file.path)
        return found


_caches: dict[tuple[str, int, bool], Cache] = {}


def disk_cache() -> Cache:
    """The cache of the folder that the knobs name."""
    settings = knobs()
    where = (str(settings.cache_dir), settings.cache_bytes, settings.mode == "frozen")
    if where not in _caches:
        _caches[where] = Cache(Path(where[0]) / "kernels", where[1], readonly=where[2])
    return _caches[where]


# ------------------------------------------------------------------------------------------ the header line
_MAGIC = b"tilewright-cache "


def _header(data: bytes, key: str, stage: str) -> bytes:
    comment = _COMMENT.get(stage, "#").encode()
    return b"%s %s%d %s\n" % (comment, _MAGIC, SCHEMA, _checksum(data, key, stage).encode())


def _checksum(data: bytes, key: str, stage: str) -> str:
    """Over the name too: an entry that was copied to another key is a damaged one."""
    return hashlib.sha256(f"{key}.{stage} {len(data)}\n".encode() + data).hexdigest()


def _checked(raw: bytes, key: str, stage: str) -> bytes | None:
    """The data behind the header line, if the header is that of this data."""
    first, _, data = raw.partition(b"\n")
    return data if first + b"\n" == _header(data, key, stage) else None


# ------------------------------------------------------------------------------------------ files that may go away
def _remove(path: str | Path) -> None:
    with suppress(OSError):  # another process removed it, or the folder is read-only
        os.unlink(path)


def _touch(path: Path) -> None:
    with suppress(OSError):  # a read-only folder keeps no order of use
        os.utime(path)


def _scan(folder: str | Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except OSError:
        return []


def _stat(entry: os.DirEntry[str]) -> os.stat_result | None:
    try:
        return entry.stat()
    except OSError:
        return None
