"""Damaged files of a book: recognised, moved aside, and what is whole in them saved."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tilewright.design.book import schema

DAMAGED = frozenset({"SQLITE_CORRUPT", "SQLITE_NOTADB"})
"""SQLite's names of the errors that a damaged file causes."""

_SQLITE = b"SQLite format 3\0"
_PARTS = ("-wal", "-shm", "-journal")


class Damaged(sqlite3.DatabaseError):
    """The file is no book."""


def error_name(error: sqlite3.DatabaseError) -> str:
    """SQLite's name of an error, without what it is extended by (SQLITE_IOERR_WRITE is SQLITE_IOERR)."""
    if isinstance(error, Damaged):
        return "SQLITE_NOTADB"
    name = str(getattr(error, "sqlite_errorname", ""))
    return "_".join(name.split("_")[:2])


def connect(path: Path, patience: float, how: str = "mode=rwc") -> sqlite3.Connection:
    """A connection to a file that waits `patience` seconds for locks; transactions begin when they are told to."""
    uri = f"{path.absolute().as_uri()}?{how}"
    return sqlite3.connect(uri, timeout=patience, isolation_level=None, check_same_thread=False, uri=True)


@contextmanager
def alone(path: Path) -> Iterator[None]:
    """One process at a time, where the file system knows locks."""
    with open(path.with_name(f"{path.name}.lock"), "ab") as file:
        with suppress(ImportError, OSError):
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def is_book(path: Path, patience: float) -> bool:
    """Whether the file is whole."""
    connection = None
    try:
        connection = connect(path, patience, "mode=rw")
        if schema.state(connection) != "book":
            return False
        return bool(connection.execute("PRAGMA integrity_check(1)").fetchone()[0] == "ok")
    except sqlite3.DatabaseError as error:
        return error_name(error) not in DAMAGED
    finally:
        if connection is not None:
            connection.close()


def may_be_book(path: Path) -> bool:
    """Whether a file is a book by its mark, whole or damaged, or is empty and may become one.

    What anything else holds is somebody else's, and is not to be moved aside.
    """
    try:
        with open(path, "rb") as file:
            header = file.read(72)
    except FileNotFoundError:
        return True
    if not header or header[68:] == schema.APPLICATION.to_bytes(4, "big"):
        return True
    return header.startswith(_SQLITE) and _marked_in_its_log(path)


def _marked_in_its_log(path: Path) -> bool:
    """Whether a database is a book by what its log says, from which the header may not have been written yet."""
    connection = connect(path, 0.0, "mode=ro")
    try:
        return schema.state(connection) != "foreign"
    except sqlite3.DatabaseError as error:
        return error_name(error) not in DAMAGED  # busy: somebody who knows it works on it
    finally:
        connection.close()


def move_aside(path: Path) -> Path:
    """Rename the file and what belongs to it to the first `*.damaged-N` that is free."""
    number = 1
    while path.with_name(f"{path.name}.damaged-{number}").exists():
        number += 1
    aside = path.with_name(f"{path.name}.damaged-{number}")
    for part in (*_PARTS, ""):  # the log first: SQLite would replay it on whatever came to lie beside it
        with suppress(FileNotFoundError):
            os.rename(f"{path}{part}", f"{aside}{part}")
    return aside


def salvage(damaged: Path, fresh: sqlite3.Connection) -> int:
    """Copy the rows that can still be read; each carries a sum, by which it is judged when it is used."""
    old, saved = connect(damaged, 0.0, "mode=rw"), 0
    try:
        if schema.state(old) == "book":
            saved = sum(_rows_saved(old, fresh, table) for table in schema.TABLES)
    except sqlite3.DatabaseError:
        pass  # not even its list of tables can be read
    finally:
        old.close()
    return saved


def _rows_saved(old: sqlite3.Connection, fresh: sqlite3.Connection, table: str) -> int:
    saved = 0
    fresh.execute("BEGIN IMMEDIATE")
    with suppress(sqlite3.DatabaseError):
        for row in old.execute(f"SELECT * FROM {table} NOT INDEXED"):
            places = ", ".join("?" * len(row))
            saved += fresh.execute(f"INSERT OR IGNORE INTO {table} VALUES ({places})", row).rowcount
    fresh.execute("COMMIT")
    return saved
