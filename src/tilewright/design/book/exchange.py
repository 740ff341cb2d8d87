"""Books that meet: export to a file, import of a file, and the merge of another book.

What comes from elsewhere is a hint, whatever it says of itself: `Book.get` does not give it before it was verified and
measured on this host.
"""

from __future__ import annotations

import sqlite3
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from tilewright.design.book.database import Database
from tilewright.design.book.document import Document, write
from tilewright.design.book.record import Measurement, Record
from tilewright.design.book.subjects import key_of, machine_of, program_of, put_machine, put_program
from tilewright.errors import BookError, BookWarning, in_words

if TYPE_CHECKING:
    from tilewright.design.book.store import Book


@dataclass(frozen=True)
class Taken:
    """What an import did: entries that are new, records that were known already, and what was refused and why."""

    records: int
    known: int
    quarantined: int
    measurements: int
    refused: tuple[str, ...]


def export(book: Book, path: Path, *, starter: bool = False) -> int:
    """Write the book as readable JSON, in one atomic step; the number of records written.

    For a `starter` book just the designs that were verified here, with what they are about. Raises BookError where
    the file cannot be written.
    """
    found = starter_document(book) if starter else document(book)
    write(path, found.to_text())
    return len(found.records)


def document(book: Book) -> Document:
    """All that the book holds."""
    programs, machines = (dict(book.rows(f"SELECT hash, text FROM {table}")) for table in ("programs", "machines"))
    keys = {k.hash: k for k in book.known_keys()}
    quarantine = tuple((h, q) for h, k in keys.items() for q in book.quarantine_of(k).values() if q.date)
    bare = {h: k.text for h, k in keys.items()}
    return Document(tuple(book.list()), quarantine, tuple(book.measurements()), bare, programs, machines)


def starter_document(book: Book) -> Document:
    """The verified designs, as hints for other hosts; not those that only a model of a machine stands behind."""
    kept = (r for r in book.list() if r.verified and not _by_model(book, r))
    records = tuple(replace(r, verified=False, origin="starter") for r in kept)
    programs = _texts(book, "programs", {r.key.semantics for r in records})
    return Document(records, programs=programs, machines=_texts(book, "machines", {r.key.machine for r in records}))


def _by_model(book: Book, record: Record) -> bool:
    machine = book.subjects.machine(record.key.machine)
    return machine is not None and machine.simulated


def _texts(book: Book, table: str, hashes: set[str]) -> dict[str, str]:
    found = {hash_: book.subjects.text(table, hash_) for hash_ in hashes}
    return {hash_: text for hash_, text in found.items() if text is not None}


def import_(book: Book, path: Path) -> Taken:
    """Take in what `export` wrote; BookError for a file that holds no document that can be read."""
    return take(book, Document.load(path))


def merge(book: Book, path: Path) -> Taken:
    """Take in another book: a SQLite file, or one that `export` wrote; BookError for anything else."""
    try:
        with open(path, "rb") as file:
            is_database = file.read(15) == b"SQLite format 3"
    except OSError as error:
        raise BookError(f"{path} cannot be read ({in_words(error)}); give the file of a book") from None
    return take(book, _document_in(path) if is_database else Document.load(path))


def _document_in(path: Path) -> Document:
    from tilewright.design.book.store import Book

    other = Book(Database(path, readonly=True))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", BookWarning)
        if other.path is None:
            raise BookError(f"{path} is no book that this version of Tilewright can read")
    found = document(other)
    other.close()
    return found


def take(book: Book, document: Document) -> Taken:
    """Add what a document holds to the book."""
    _take_subjects(book, document)
    refused = [*document.refused]
    fresh = [r for r in document.hints("import") if _sound(book, r, refused)]
    held = {(r.key.hash, r.design) for r in book.list()}
    new = {(r.key.hash, r.design): r for r in fresh if (r.key.hash, r.design) not in held}
    for record in new.values():
        book.put(record)
    quarantined = _take_quarantine(book, document, refused)
    known = {k.hash for k in book.known_keys()}
    measured = [_elsewhere(m) for m in document.measurements if m.key in known]
    if len(measured) < len(document.measurements):
        refused.append(f"{len(document.measurements) - len(measured)} measurements: their keys are not in the file")
    added = book.add_measurements(measured)
    return Taken(len(new), len(fresh) - len(new), quarantined, added, tuple(refused))


def _sound(book: Book, record: Record, refused: list[str]) -> bool:
    if reason := book.objection(record.key, record.design):
        refused.append(f"design {record.design.hash} for {record.key.label}: {reason}")
    return not reason


def _take_subjects(book: Book, document: Document) -> None:
    """Programs and machines that the book does not know yet, and the keys."""
    programs = {h: t for h, t in document.programs.items() if book.subjects.program(h) is None and program_of(t, h)}
    machines = {h: t for h, t in document.machines.items() if book.subjects.machine(h) is None and machine_of(t, h)}
    keys = [k for h, text in document.keys.items() if (k := key_of(text)) is not None and k.hash == h]

    def work(c: sqlite3.Connection) -> None:
        _each(c, put_program, programs)
        _each(c, put_machine, machines)
        for key in keys:
            book.subjects.put(c, key)

    book.database.write(work)


def _each(c: sqlite3.Connection, put: Callable[[sqlite3.Connection, str, str], None], texts: dict[str, str]) -> None:
    for hash_, text in texts.items():
        put(c, hash_, text)


def _take_quarantine(book: Book, document: Document, refused: list[str]) -> int:
    """What failed elsewhere is not tried here, unless it is what this host verified and uses."""
    keys, count = {k.hash: k for k in book.known_keys()}, 0
    for hash_, entry in document.quarantine:
        key = keys.get(hash_)
        if key is None:
            refused.append(f"quarantine of {entry.design.hash}: its key is not in the file")
        elif entry.design.hash not in book.quarantined(key) and not _in_use(book.get(key), entry.design.hash):
            book.quarantine(key, entry.design, entry.status, f"elsewhere: {entry.reason}")
            count += 1
    return count


def _in_use(record: Record | None, design_hash: str) -> bool:
    return record is not None and record.design.hash == design_hash


def _elsewhere(measurement: Measurement) -> Measurement:
    return replace(measurement, origin="import")
