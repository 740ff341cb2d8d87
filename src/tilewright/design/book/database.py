"""The file of a book: opened, healed where it is damaged, and given up for memory where it cannot be used.

Reads and writes come as functions of a connection, so that they can be done again: after a damaged file was moved
aside, or on the copy in memory that takes the place of a file that cannot be written.
"""

from __future__ import annotations

import os
import sqlite3
import threading
import warnings
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from tilewright.design.book import filesystem, schema
from tilewright.design.book.healing import (
    DAMAGED,
    Damaged,
    alone,
    connect,
    error_name,
    is_book,
    may_be_book,
    move_aside,
    salvage,
)
from tilewright.errors import BookWarning

T = TypeVar("T")

PATIENCE = 20.0
"""Seconds to wait for another process that is writing."""

_UNUSABLE = frozenset(
    f"SQLITE_{name}"
    for name in ("AUTH", "BUSY", "CANTOPEN", "FULL", "IOERR", "LOCKED", "NOLFS", "PERM", "PROTOCOL", "READONLY")
)
_ATTEMPTS = 4
_FIXED = "mode=ro&immutable=1"


def _read_only(path: Path) -> str:
    """How SQLite is to open a book that is only read: such that it writes nothing, the index of its log included.

    A log that has lost its index cannot be read so: SQLite then makes one, which is no loss to anybody.
    """
    log, index = (path.with_name(f"{path.name}-{part}") for part in ("wal", "shm"))
    if not _has_log(path):
        return "mode=ro"
    if not filesystem.is_local(path):
        return _FIXED
    if index.exists():
        return "mode=ro&readonly_shm=1"
    return "mode=ro" if log.exists() else _FIXED


class Database:
    """A book's file, or memory where `path` is None; safe with threads, forks and any number of processes.

    Where a user named the path (`chosen`), a file that is no book is left alone: a damaged one in a folder of our own
    is moved aside.
    """

    def __init__(
        self, path: Path | None, *, readonly: bool = False, chosen: bool = False, patience: float = PATIENCE
    ) -> None:
        self.path = path
        self.readonly = readonly
        self.chosen = chosen
        self.patience = patience
        self._lock = threading.RLock()
        self._connection: sqlite3.Connection | None = None
        self._file: tuple[int, int] | None = None  # device and inode of what is open; None: memory
        self._process = os.getpid()
        self._abandoned: list[sqlite3.Connection] = []  # a parent's: to close them would be to touch its locks

    @property
    def in_memory(self) -> bool:
        """Whether what is written now is lost when the process ends."""
        with self._lock:
            self._ready()
            return self._file is None

    def read(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """`work(connection)`."""
        return self._attempt(work)

    def write(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """`work(connection)` in one transaction: all of it is committed, or none."""

        def transaction(connection: sqlite3.Connection) -> T:
            if self.readonly and self._file is not None:
                raise _Unusable("it is only read in frozen mode")
            connection.execute("BEGIN IMMEDIATE")
            try:
                result = work(connection)
                connection.execute("COMMIT")
            except BaseException:
                with suppress(sqlite3.Error):
                    connection.rollback()
                raise
            return result

        return self._attempt(transaction)

    def compact(self) -> None:
        """Give back space that is free, unless another process is at work: it is used again later in any case."""
        with self._lock, suppress(sqlite3.Error):
            self._ready().execute("VACUUM")

    def close(self) -> None:
        """Let go of the file; the next use opens it again. What is only in memory is lost."""
        with self._lock:
            if self._connection is not None:
                with suppress(sqlite3.Error):
                    self._connection.close()
            self._connection = None

    # ------------------------------------------------------------------------------------------ attempts
    def _attempt(self, work: Callable[[sqlite3.Connection], T]) -> T:
        with self._lock:
            for number in range(_ATTEMPTS):
                try:
                    return work(self._ready())
                except _Unusable as error:
                    self._leave_for_memory(str(error))
                except sqlite3.DatabaseError as error:
                    self._mend(error, number + 2 >= _ATTEMPTS)
            raise AssertionError("the attempt in memory is the last")

    def _mend(self, error: sqlite3.DatabaseError, last: bool) -> None:
        """Make another attempt worth while; an error that is no fault of the file is raised again."""
        name = error_name(error)
        if self._file is None or name not in DAMAGED | _UNUSABLE:
            raise error
        if name in DAMAGED and not self.readonly and not last:
            self.renew(str(error))
        else:
            self._leave_for_memory(str(error))

    def _ready(self) -> sqlite3.Connection:
        """The open connection: of this process, to the file that is at the path now."""
        if self._process != os.getpid() and self._file is not None and self._connection is not None:
            self._abandoned.append(self._connection)
            self._connection = None
        self._process = os.getpid()
        if self._connection is not None and self._file is not None and _identity(self.path) != self._file:
            self.close()
        if self._connection is None:
            self._connection = self._open()
        return self._connection

    # ------------------------------------------------------------------------------------------- opening
    def _open(self) -> sqlite3.Connection:
        if self.path is None:
            return self._memory()
        try:
            return self._open_file(self.path)
        except (OSError, sqlite3.DatabaseError, _Unusable) as error:
            return self._open_unwritable(self.path, error)

    def _open_file(self, path: Path) -> sqlite3.Connection:
        if self.chosen and not may_be_book(path):
            raise _Unusable("it is no book; name another file, or one that is not there yet")
        if self.readonly:
            return self._checked(path, connect(path, self.patience, _read_only(path)))
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            return self._checked(path, connect(path, self.patience))
        except sqlite3.DatabaseError as error:
            if error_name(error) not in DAMAGED | {"SQLITE_ERROR"}:  # the last: a file format of another day
                raise
            self.renew(str(error))
            return self._checked(path, connect(path, self.patience))

    def _checked(self, path: Path, connection: sqlite3.Connection) -> sqlite3.Connection:
        """The connection, if what it is connected to is a book of this version; an empty file becomes one."""
        try:
            self._file = _identity(path)
            _prepare(connection, path, self.readonly)
            found = schema.state(connection)
            if found == "empty" and not self.readonly:
                _log_ahead(connection, path)
                schema.create(connection)
                found = schema.state(connection)
            if found == "newer":
                raise _Unusable("a later version of Tilewright wrote it")
            if found != "book":
                raise Damaged("it is a database, but no book")
        except BaseException:
            connection.close()
            raise
        return connection

    def _open_unwritable(self, path: Path, error: Exception) -> sqlite3.Connection:
        """What can be read is read, as long as nothing is written; else memory."""
        if not isinstance(error, _Unusable | Damaged) and path.exists():
            with suppress(OSError, sqlite3.DatabaseError, _Unusable):
                return self._checked(path, connect(path, self.patience, _FIXED))
        if not (self.readonly and not path.exists()):
            _warn(f"the book {path} cannot be used ({error}); what is found is kept for this process only")
        return self._memory()

    def _memory(self) -> sqlite3.Connection:
        connection = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
        schema.create(connection)
        self._file = None
        return connection

    def _leave_for_memory(self, why: str) -> None:
        """Go on with a copy in memory: the file cannot be written."""
        old, memory = self._connection, self._memory()
        if old is not None:
            with suppress(sqlite3.Error):
                _copy(old, memory)
            self._connection = None
            with suppress(sqlite3.Error):
                old.close()
        self._connection = memory
        if not self.readonly:
            fix = "free some space, or set TILEWRIGHT_CACHE_DIR to a folder that can be written"
            _warn(f"the book {self.path} cannot be written ({why}); new entries last for this process only: {fix}")

    # ------------------------------------------------------------------------------------------- healing
    def renew(self, why: str) -> None:
        """Move a damaged file aside, unless another process has just done so, and save what is whole in it."""
        if self.path is None or self.readonly:
            return
        with self._lock, alone(self.path):
            self.close()
            if is_book(self.path, self.patience):
                return
            aside = move_aside(self.path)
            fresh = self._checked(self.path, connect(self.path, self.patience))
            saved = salvage(aside, fresh)
            fresh.close()
        _warn(f"the book {self.path} is damaged ({why}); it is now {aside.name}, and {saved} of its rows were saved")


class _Unusable(Exception):
    """The file is to be left alone."""


def _warn(message: str) -> None:
    warnings.warn(message, BookWarning, stacklevel=2)


def _identity(path: Path | None) -> tuple[int, int] | None:
    try:
        found = os.stat(path) if path is not None else None
    except OSError:
        return None
    return None if found is None else (found.st_dev, found.st_ino)


# ------------------------------------------------------------------------------------------------ connections
def _prepare(connection: sqlite3.Connection, path: Path, readonly: bool) -> None:
    if not readonly and _has_log(path) and not filesystem.is_local(path):
        _without_log(connection)
    connection.execute("PRAGMA trusted_schema = OFF")
    connection.execute("PRAGMA synchronous = FULL")


def _log_ahead(connection: sqlite3.Connection, path: Path) -> None:
    """Let readers and a writer of a new book work at once, where the file system allows it."""
    if filesystem.is_local(path):
        with suppress(sqlite3.OperationalError):  # another process has it open: a rollback journal does as well
            connection.execute("PRAGMA journal_mode = WAL")


def _has_log(path: Path) -> bool:
    """Whether a file is in WAL mode, by its header: asking SQLite would map the shared index already."""
    with suppress(OSError), open(path, "rb") as file:
        header = file.read(20)
        return len(header) == 20 and header[18:20] == b"\2\2"
    return False


def _without_log(connection: sqlite3.Connection) -> None:
    """Back to a rollback journal; a connection that is alone needs no shared memory for that."""
    connection.execute("PRAGMA locking_mode = EXCLUSIVE")
    connection.execute("PRAGMA journal_mode = DELETE")
    connection.execute("PRAGMA locking_mode = NORMAL")
    connection.execute("SELECT count(*) FROM sqlite_master").fetchone()  # the exclusive lock goes with the next read


def _copy(source: sqlite3.Connection, target: sqlite3.Connection) -> None:
    """Every row of a book into an empty one, which is left empty if that cannot be."""
    target.execute("BEGIN IMMEDIATE")
    try:
        for table in schema.TABLES:
            rows = source.execute(f"SELECT * FROM {table}").fetchall()
            for row in rows:
                target.execute(f"INSERT INTO {table} VALUES ({', '.join('?' * len(row))})", row)
        target.execute("COMMIT")
    except sqlite3.Error:
        target.rollback()
        raise
