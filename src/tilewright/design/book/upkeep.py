"""The book in order: every entry checked, and old ones dropped."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from tilewright.design.book.record import Measurement, Quarantined, Record
from tilewright.design.book.subjects import key_of, machine_of, program_of

if TYPE_CHECKING:
    from tilewright.design.book.store import Book


# ---------------------------------------------------------------------------------------------------- verify
@dataclass(frozen=True)
class Findings:
    """What `verify` found: entries that are sound, what is wrong with the others, and how many were dropped."""

    sound: int
    problems: tuple[str, ...]
    dropped: int = 0


def verify(book: Book, *, drop: bool = False) -> Findings:
    """Check the file and every entry in it, designs for legality too; with `drop` remove those that are bad.

    A file that is damaged is then moved aside, and its whole rows are saved in a fresh one.

    It looks at what is written. Whether a design computes the right thing is found by running it: that is how
    imported designs come to be trusted.
    """
    problems = [f"the file: {line}" for (line,) in book.rows("PRAGMA integrity_check(20)") if line != "ok"]
    if problems and drop:
        book.database.renew(problems[0])
    bad: list[tuple[str, int]] = []
    sound = 0
    for table, check in _CHECKS.items():
        for number, *row in book.rows(f"SELECT rowid, * FROM {table}"):
            problem = _problem(check, book, row)
            if problem is None:
                sound += 1
            else:
                problems.append(f"{table}: {problem}")
                bad.append((table, number))
    return Findings(sound, tuple(problems), _drop(book, bad) if drop else 0)


def _problem(check: Callable[[Book, Sequence[Any]], str | None], book: Book, row: Sequence[Any]) -> str | None:
    try:
        return check(book, row)
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        return f"an entry is damaged ({error})"


def _key(book: Book, row: Sequence[Any]) -> str | None:
    key = key_of(row[2])
    return None if key is not None and (key.hash, key.operator) == (row[0], row[1]) else f"{row[0]} is another key"


def _program(book: Book, row: Sequence[Any]) -> str | None:
    return None if program_of(row[1], row[0]) is not None else f"{row[0]} is no program, or another one"


def _machine(book: Book, row: Sequence[Any]) -> str | None:
    return None if machine_of(row[1], row[0]) is not None else f"{row[0]} is no machine, or another one"


def _design(book: Book, row: Sequence[Any]) -> str | None:
    key, design, verified, data, total = row
    record = Record.from_dict(_unsealed(key, data, total))
    if (record.key.hash, record.design.hash, int(record.verified)) != (key, design, verified):
        return f"{design} for {record.key.label} is filed under another name"
    return (reason := book.objection(record.key, record.design)) and f"{design} for {record.key.label}: {reason}"


def _quarantined(book: Book, row: Sequence[Any]) -> str | None:
    key, design, data, total = row
    found = Quarantined.from_dict(_unsealed(key, data, total))
    return None if found.design.hash == design else f"{design} is filed under another name"


def _measurement(book: Book, row: Sequence[Any]) -> str | None:
    _, hash_, key, run, data, total = row
    found = Measurement.from_dict(_unsealed(key, data, total))
    return None if (found.hash, found.key, found.run) == (hash_, key, run) else f"{hash_} is filed under another name"


def _unsealed(key: str, data: str, total: str) -> Any:
    from tilewright.design.book.store import seal

    if seal(key, data) != total:
        raise ValueError("its sum does not fit")
    return json.loads(data)


_CHECKS: dict[str, Callable[[Book, Sequence[Any]], str | None]] = {
    "keys": _key,
    "programs": _program,
    "machines": _machine,
    "designs": _design,
    "quarantine": _quarantined,
    "measurements": _measurement,
}


def _drop(book: Book, rows: list[tuple[str, int]]) -> int:
    def work(c: sqlite3.Connection) -> int:
        return sum(c.execute(f"DELETE FROM {table} WHERE rowid = ?", (number,)).rowcount for table, number in rows)

    return book.database.write(work)


# ----------------------------------------------------------------------------------------------------- prune
@dataclass(frozen=True)
class Pruned:
    """What `prune` dropped."""

    records: int
    measurements: int
    quarantined: int


def prune(
    book: Book, *, days: float | None = None, keep: int | None = None, machines: Collection[str] | None = None
) -> Pruned:
    """Drop records and measurements older than `days`, all but the `keep` newest records, and all of `machines`.

    `machines` are fingerprints. What failed stays in quarantine, except on those machines; what a key is about goes
    with the last entry of the key.
    """
    old = None if days is None else datetime.now(UTC) - timedelta(days=days)
    gone = {k.hash for k in book.known_keys() if k.machine in (machines or ())}
    records = [
        r for number, r in enumerate(_newest(book)) if _past(r.created, old) or (keep is not None and number >= keep)
    ]
    measured = [m.hash for m in book.measurements() if _past(m.date, old)]

    def work(c: sqlite3.Connection) -> Pruned:
        found = Pruned(*(sum(_delete(c, table, "key = ?", k) for k in gone) for table in _OF_KEYS))
        rows = [(r.key.hash, r.design.hash, int(r.verified)) for r in records]
        designs = sum(_delete(c, "designs", "key = ? AND design = ? AND verified = ?", *row) for row in rows)
        samples = sum(_delete(c, "measurements", "hash = ?", hash_) for hash_ in measured)
        _forget_subjects(c)
        return Pruned(found.records + designs, found.measurements + samples, found.quarantined)

    pruned = book.database.write(work)
    book.database.compact()
    return pruned


_OF_KEYS = ("designs", "measurements", "quarantine")


def _newest(book: Book) -> list[Record]:
    return sorted(book.list(), key=lambda r: datetime.fromisoformat(r.created), reverse=True)


def _past(date: str, limit: datetime | None) -> bool:
    return limit is not None and datetime.fromisoformat(date) < limit


def _delete(connection: sqlite3.Connection, table: str, where: str, *values: Any) -> int:
    return connection.execute(f"DELETE FROM {table} WHERE {where}", values).rowcount


def _forget_subjects(connection: sqlite3.Connection) -> None:
    """Drop keys of which nothing is known any more, and the programs and machines of no key."""
    used = " UNION ".join(f"SELECT key FROM {table}" for table in _OF_KEYS)
    _delete(connection, "keys", f"hash NOT IN ({used})")
    keys = [k for (text,) in connection.execute("SELECT key FROM keys").fetchall() if (k := key_of(text)) is not None]
    for table, needed in (("programs", {k.semantics for k in keys}), ("machines", {k.machine for k in keys})):
        for hash_ in _hashes(connection, table):
            if hash_ not in needed:
                _delete(connection, table, "hash = ?", hash_)


def _hashes(connection: sqlite3.Connection, table: str) -> Iterator[str]:
    yield from [row[0] for row in connection.execute(f"SELECT hash FROM {table}").fetchall()]
