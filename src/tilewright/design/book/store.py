"""The book: which design is best for a key, what that rests on, and what must not be tried."""

from __future__ import annotations

import hashlib
import json
import sqlite3
import warnings
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import replace as replace_fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from tilewright.design.book import starter
from tilewright.design.book.database import PATIENCE, Database
from tilewright.design.book.key import Key, differences, distance
from tilewright.design.book.record import HERE, Measurement, Quarantined, Record, now, versions
from tilewright.design.book.subjects import Subjects, key_of
from tilewright.design.design import Design
from tilewright.design.legality import legal
from tilewright.design.trial import Trial
from tilewright.errors import ArgumentError, BookWarning
from tilewright.knobs import knobs

if TYPE_CHECKING:
    from tilewright.design.book.exchange import Taken
    from tilewright.design.book.upkeep import Findings, Pruned

T = TypeVar("T")
FILE = "book.sqlite"


class Book:
    """The lasting store of designs; any number of processes may share one file.

    Nothing in it can stop a program: what is damaged, foreign or illegal is a miss with a BookWarning, and a file that
    cannot be used is replaced by memory. `get` gives only designs that were verified on this host.
    """

    def __init__(self, database: Database) -> None:
        self.database = database
        self.subjects = Subjects(database)

    @classmethod
    def open(cls, path: Path | str | None = None, *, patience: float = PATIENCE) -> Book:
        """The book at `path` (a Path or its text), by default the one that the knobs name; frozen, it is only read.

        `patience`: seconds to wait for another process that writes.
        """
        settings = knobs()
        where = Path(path) if path else settings.book or settings.cache_dir / FILE
        if path is None and settings.book is False:
            return cls.in_memory()
        chosen = path is None and settings.book is not None
        return cls(Database(where, readonly=settings.mode == "frozen", chosen=chosen, patience=patience))

    @classmethod
    def in_memory(cls) -> Book:
        """A book without a file."""
        return cls(Database(None))

    @property
    def path(self) -> Path | None:
        """Where it is kept; None for memory."""
        return None if self.database.in_memory else self.database.path

    def close(self) -> None:
        """Let go of the file; the next use opens it again."""
        self.database.close()

    # ----------------------------------------------------------------------------------------- designs
    def get(self, key: Key) -> Record | None:
        """The design to use for `key`: found or confirmed here, verified, legal and not in quarantine."""
        return next(self._designs(key, verified=True), None)

    def put(self, record: Record, *, replace: bool = False) -> bool:
        """Keep a verified record as the design to use for its key, or an unverified one as a hint.

        A verified design that is held already and was faster, beyond the noise of both, stays unless `replace`: of
        two processes that search at once, neither can spoil what the other found. Whether `record` was kept.
        """

        def work(c: sqlite3.Connection) -> bool:
            held = self.get(record.key) if record.verified and not replace else None
            if held is not None and held.design != record.design and _clearly_faster(held, record):
                return False
            self.subjects.put(c, record.key)
            _put(c, record)
            return True

        return self.database.write(work)

    def trust(self, key: Key, record: Record) -> Record:
        """Keep what was a hint as the design to use, now that it is verified and measured here; the record to use.

        The hints of the key have served, and go.
        """
        if not record.verified or record.key != key:
            raise ArgumentError("only a record of this key that was verified here can be trusted")
        self.put(record)
        self.database.write(lambda c: c.execute("DELETE FROM designs WHERE key = ? AND verified = 0", (key.hash,)))
        return self.get(key) or record

    def untrusted(self, key: Key) -> Sequence[Record]:
        """Designs to verify and measure here before they are used: imported for this key, then shipped ones.

        Among these are designs for other machines and thread counts, as far as they are legal for `key`.
        """
        kin = [r for r in self._of_operator(key.operator) if _same_work(r.key, key)]
        shipped = [r for r in starter.records(key.operator) if r.key == key or _same_work(r.key, key)]
        bad = self.quarantined(key)
        found: dict[Design, Record] = {}
        for record in (*self._designs(key, verified=False), *kin, *shipped):
            if record.design.hash not in bad and self.objection(key, record.design) is None:
                found.setdefault(record.design, record)
        return [*found.values()]

    def nearest(self, key: Key) -> tuple[Record, tuple[str, ...]] | None:
        """The record of the same operator whose key is most like `key`, and the fields in which they differ."""
        others = [r for r in self._of_operator(key.operator) if r.key.hash != key.hash]
        best = min(others, key=lambda r: (distance(key, r.key), not r.verified, r.key.hash), default=None)
        return None if best is None else (best, differences(key, best.key))

    def list(self) -> Sequence[Record]:
        """Every record that can be read, verified or not, by operator and sizes."""
        rows = self.rows("SELECT key, data, sum FROM designs")
        return sorted(_whole(rows, Record.from_dict), key=lambda r: (r.key.label, r.key.hash, not r.verified))

    def known_keys(self, prefix: str = "") -> Sequence[Key]:
        """Every key of which anything is known and whose hash starts with `prefix`."""
        rows = self.rows("SELECT key FROM keys WHERE substr(hash, 1, ?) = ?", len(prefix), prefix)
        return [k for k in (key_of(row[0]) for row in rows) if k is not None]

    # -------------------------------------------------------------------------------------- quarantine
    def quarantine(self, key: Key, design: Design, status: str, reason: str) -> None:
        """Keep a design that failed for `key` from being used or tried again; it is no record of the key any more."""
        entry = json.dumps(Quarantined(design, status, reason, now()).to_dict())

        def work(c: sqlite3.Connection) -> None:
            self.subjects.put(c, key)
            c.execute("DELETE FROM designs WHERE key = ? AND design = ?", (key.hash, design.hash))
            c.execute(
                "INSERT OR REPLACE INTO quarantine VALUES (?, ?, ?, ?)",
                (key.hash, design.hash, entry, seal(key.hash, entry)),
            )

        self.database.write(work)

    def quarantined(self, key: Key) -> dict[str, str]:
        """The designs in quarantine for `key`: hash -> why."""
        return {hash_: f"{q.status}: {q.reason}" for hash_, q in self.quarantine_of(key).items()}

    def quarantine_of(self, key: Key) -> dict[str, Quarantined]:
        """The designs in quarantine for `key`, by hash; one whose entry is damaged stays out of use all the same."""
        rows = self.rows("SELECT design, key, data, sum FROM quarantine WHERE key = ?", key.hash)
        lost = Quarantined(Design(), "unknown", "its entry is damaged", "")
        return {row[0]: next(iter(_whole([row[1:]], Quarantined.from_dict)), lost) for row in rows}

    def release(self, key: Key, design_hash: str) -> bool:
        """Let a design be tried again; whether it was in quarantine."""
        sql = "DELETE FROM quarantine WHERE key = ? AND design = ?"
        return bool(self.database.write(lambda c: c.execute(sql, (key.hash, design_hash)).rowcount))

    # ------------------------------------------------------------------------------------ measurements
    def add_trials(self, key: Key, run: str, trials: Iterable[Trial], *, seed: int = 0) -> None:
        """Append what was measured in a run; nothing that was added is ever changed."""
        date = now()
        made = [Measurement(key.hash, run, t, seed, date, versions()) for t in trials]

        def work(c: sqlite3.Connection) -> None:
            self.subjects.put(c, key)
            for m in made:
                _append(c, m)

        self.database.write(work)

    def add_measurements(self, measurements: Sequence[Measurement]) -> int:
        """Append measurements, each once however often it is added; how many are new."""
        return self.database.write(lambda c: sum(_append(c, m) for m in measurements))

    def trials(self, key: Key, run: str | None = None) -> Sequence[Trial]:
        """What was measured here for `key`, in order; of one run, or of all."""
        return [m.trial for m in self.measurements(key, run) if m.origin == HERE]

    def measurements(self, key: Key | None = None, run: str | None = None) -> Sequence[Measurement]:
        """Measurements in order, with what they were made by; of a key (or all) and a run (or all), imported too."""
        wanted = [("key", None if key is None else key.hash), ("run", run)]
        used = [(column, value) for column, value in wanted if value is not None]
        where = " AND ".join(f"{column} = ?" for column, _ in used) or "1"
        sql = f"SELECT key, data, sum FROM measurements WHERE {where} ORDER BY number"
        return list(_whole(self.rows(sql, *(value for _, value in used)), Measurement.from_dict))

    # ------------------------------------------------------------------------------- other files' work
    def explain(self, key: Key) -> str:
        """What is known of `key` and why, to be read by people."""
        from tilewright.design.book.explain import explain

        return explain(self, key)

    def export(self, path: Path, *, starter: bool = False) -> int:
        """Write all of it (or, for a `starter` book, its verified designs) as JSON; the number of records."""
        from tilewright.design.book.exchange import export

        return export(self, path, starter=starter)

    def import_(self, path: Path) -> Taken:
        """Take in what `export` wrote: its designs as hints, until they are verified here."""
        from tilewright.design.book.exchange import import_

        return import_(self, path)

    def merge(self, path: Path) -> Taken:
        """Take in another book, a SQLite file or exported: its designs as hints, until they are verified here."""
        from tilewright.design.book.exchange import merge

        return merge(self, path)

    def prune(
        self, *, days: float | None = None, keep: int | None = None, machines: Collection[str] | None = None
    ) -> Pruned:
        """Drop what is older than `days`, all but the `keep` newest records, and all of some machines."""
        from tilewright.design.book.upkeep import prune

        return prune(self, days=days, keep=keep, machines=machines)

    def verify(self, *, drop: bool = False) -> Findings:
        """Check the file and the legality of every entry; with `drop` remove those that are bad."""
        from tilewright.design.book.upkeep import verify

        return verify(self, drop=drop)

    # ---------------------------------------------------------------------------------------- internals
    def rows(self, sql: str, *values: Any) -> Sequence[tuple[Any, ...]]:
        """The rows that a query gives."""
        return self.database.read(lambda c: c.execute(sql, values).fetchall())

    def _designs(self, key: Key, *, verified: bool) -> Iterator[Record]:
        rows = self.rows("SELECT key, data, sum FROM designs WHERE key = ? AND verified = ?", key.hash, int(verified))
        bad = self.quarantined(key) if rows else {}
        for record in _whole(rows, Record.from_dict):
            if record.key != key or record.verified != verified:
                damaged(f"the design for {key.label} belongs to another key")
            elif record.design.hash in bad:
                damaged(f"design {record.design.hash} for {key.label} is in quarantine ({bad[record.design.hash]})")
            elif reason := self.objection(key, record.design):
                damaged(f"design {record.design.hash} for {key.label} is not legal ({reason})")
            else:
                yield replace_fields(record, key=key)  # a key that knows its program

    def objection(self, key: Key, design: Design) -> str | None:
        """Why a design may not be used for a key: it is illegal, or what the key is about is not known."""
        subject = self.subjects.of(key)
        if subject is None:
            return "its program or its machine is not known"
        return next((str(reason) for reason in legal(subject.kernel, design, subject.facts)), None)

    def _of_operator(self, operator: str) -> Sequence[Record]:
        sql = "SELECT d.key, d.data, d.sum FROM designs d JOIN keys k ON d.key = k.hash WHERE k.operator = ?"
        return list(_whole(self.rows(sql, operator), Record.from_dict))


def seal(*parts: str) -> str:
    """A sum over what a row holds: a row that a damaged disk or an edit has changed is not believed."""
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


def damaged(what: str) -> None:
    """Warn of an entry that counts as a miss."""
    warnings.warn(f"{what}; the entry is not used", BookWarning, stacklevel=3)


def _whole(rows: Iterable[tuple[Any, ...]], read: Callable[[Any], T]) -> Iterator[T]:
    """What rows of (key, JSON, sum) hold; a warning for each that is damaged."""
    for key, data, total in rows:
        try:
            if seal(key, data) != total:
                raise ValueError("its sum does not fit")
            yield read(json.loads(data))
        except (ValueError, TypeError, AttributeError, RecursionError) as error:
            damaged(f"an entry of the book is damaged ({error})")


def _put(connection: sqlite3.Connection, record: Record) -> None:
    key, data = record.key.hash, json.dumps(record.to_dict(), sort_keys=True)
    if record.verified:
        connection.execute("DELETE FROM designs WHERE key = ? AND verified = 1", (key,))
    row = (key, record.design.hash, int(record.verified), data, seal(key, data))
    connection.execute("INSERT OR REPLACE INTO designs VALUES (?, ?, ?, ?, ?)", row)


def _append(connection: sqlite3.Connection, m: Measurement) -> int:
    data = json.dumps(m.to_dict(), sort_keys=True)
    sql = "INSERT OR IGNORE INTO measurements (hash, key, run, data, sum) VALUES (?, ?, ?, ?, ?)"
    return connection.execute(sql, (m.hash, m.key, m.run, data, seal(m.key, data))).rowcount


def _clearly_faster(one: Record, other: Record) -> bool:
    """Whether the times of two runs differ by more than the noise of both."""
    return one.seconds * (1 + one.noise + other.noise) < other.seconds


def _same_work(one: Key, other: Key) -> bool:
    """Whether two keys are of the same work, on whatever machine and threads."""
    return one.hash != other.hash and set(differences(one, other)) <= {"machine", "threads", "aligned"}
