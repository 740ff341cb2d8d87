"""The tables of a book, and how a file is known to be one."""

from __future__ import annotations

import sqlite3

VERSION = 1
"""Raised whenever tables change. A book of a later version is left alone, and nothing is read from it."""

APPLICATION = 0x54574231
"""Marks a SQLite file as a book ("TWB1")."""

TABLES = {
    "keys": "CREATE TABLE keys (hash TEXT PRIMARY KEY, operator TEXT NOT NULL, key TEXT NOT NULL)",
    "programs": "CREATE TABLE programs (hash TEXT PRIMARY KEY, text TEXT NOT NULL)",
    "machines": "CREATE TABLE machines (hash TEXT PRIMARY KEY, text TEXT NOT NULL)",
    "designs": (
        "CREATE TABLE designs (key TEXT NOT NULL, design TEXT NOT NULL, verified INTEGER NOT NULL, "
        "data TEXT NOT NULL, sum TEXT NOT NULL, PRIMARY KEY (key, design, verified))"
    ),
    "quarantine": (
        "CREATE TABLE quarantine (key TEXT NOT NULL, design TEXT NOT NULL, "
        "data TEXT NOT NULL, sum TEXT NOT NULL, PRIMARY KEY (key, design))"
    ),
    "measurements": (
        "CREATE TABLE measurements (number INTEGER PRIMARY KEY, hash TEXT NOT NULL UNIQUE, key TEXT NOT NULL, "
        "run TEXT NOT NULL, data TEXT NOT NULL, sum TEXT NOT NULL)"
    ),
}
INDEXES = {"runs": "CREATE INDEX runs ON measurements (key, run)"}


def create(connection: sqlite3.Connection) -> None:
    """Make an empty file a book, in one transaction; another process may have done so meanwhile."""
    connection.execute("BEGIN IMMEDIATE")
    if state(connection) == "empty":
        for statement in (*TABLES.values(), *INDEXES.values()):
            connection.execute(statement)
        connection.execute(f"PRAGMA application_id = {APPLICATION}")
        connection.execute(f"PRAGMA user_version = {VERSION}")
    connection.execute("COMMIT")


def state(connection: sqlite3.Connection) -> str:
    """What a SQLite file is: a `book`, `newer` (of a later version), `empty`, or `foreign`."""
    application = connection.execute("PRAGMA application_id").fetchone()[0]
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    held = dict(connection.execute("SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL"))
    if application == 0 and version == 0 and not held:
        return "empty"
    if application != APPLICATION:
        return "foreign"
    if version > VERSION:
        return "newer"
    return "book" if held == {**TABLES, **INDEXES} else "foreign"  # nor are triggers or views part of a book
