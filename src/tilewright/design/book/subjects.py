"""What keys are about: the book keeps the programs and the machines that their hashes stand for."""

from __future__ import annotations

import json
import sqlite3
from dataclasses import dataclass

from tilewright.design.book.database import Database
from tilewright.design.book.key import Key
from tilewright.design.book.semantics import semantics
from tilewright.design.default import Facts
from tilewright.errors import MachineError, ParseError
from tilewright.language import ir
from tilewright.language.parser import parse
from tilewright.language.printer import show
from tilewright.language.verifier import verify
from tilewright.machines.machine import Machine

# A row that is there already, and whole, is not written again.
_PUT_KEY = (
    "INSERT INTO keys VALUES (?, ?, ?) ON CONFLICT (hash) DO UPDATE "
    "SET operator = excluded.operator, key = excluded.key WHERE operator <> excluded.operator OR key <> excluded.key"
)
_PUT_TEXT = (
    "INSERT INTO {} VALUES (?, ?) ON CONFLICT (hash) DO UPDATE SET text = excluded.text WHERE text <> excluded.text"
)


@dataclass(frozen=True)
class Subject:
    """What legality is judged against."""

    kernel: ir.Kernel
    facts: Facts


class Subjects:
    """The keys of a book, with their programs and machines."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self._found: dict[str, Subject] = {}

    def put(self, connection: sqlite3.Connection, key: Key) -> None:
        """Keep a key, and what it is about as far as it came along."""
        connection.execute(_PUT_KEY, (key.hash, key.operator, key.text))
        if key.kernel is not None:
            put_program(connection, key.semantics, show(key.kernel))
        if key.facts is not None:
            put_machine(connection, key.machine, key.facts.machine.to_json())

    def of(self, key: Key) -> Subject | None:
        """What a key is about: as it came along, else as the book knows it; None where neither does."""
        if key.kernel is not None and key.facts is not None:
            return Subject(key.kernel, key.facts)
        if key.hash not in self._found:
            kernel, machine = key.kernel or self.program(key.semantics), self.machine(key.machine)
            if kernel is None or machine is None:
                return None
            self._found[key.hash] = Subject(kernel, key.facts_on(machine))
        return self._found[key.hash]

    def program(self, hash_: str) -> ir.Kernel | None:
        """The program with these semantics; None where it is unknown or damaged."""
        text = self.text("programs", hash_)
        return None if text is None else program_of(text, hash_)

    def machine(self, fingerprint: str) -> Machine | None:
        """The machine with this fingerprint; None where it is unknown or damaged."""
        text = self.text("machines", fingerprint)
        return None if text is None else machine_of(text, fingerprint)

    def text(self, table: str, hash_: str) -> str | None:
        """What the book holds under a hash in `programs` or `machines`."""
        rows = self.database.read(lambda c: c.execute(f"SELECT text FROM {table} WHERE hash = ?", (hash_,)).fetchall())
        return str(rows[0][0]) if rows else None


def put_program(connection: sqlite3.Connection, hash_: str, text: str) -> None:
    """Keep the text of a program."""
    connection.execute(_PUT_TEXT.format("programs"), (hash_, text))


def put_machine(connection: sqlite3.Connection, fingerprint: str, text: str) -> None:
    """Keep the description of a machine."""
    connection.execute(_PUT_TEXT.format("machines"), (fingerprint, text))


def program_of(text: str, hash_: str) -> ir.Kernel | None:
    """The program, if the text is one, keeps the rules of the IR and has these semantics."""
    try:
        kernel = parse(text)
    except (ParseError, RecursionError):
        return None
    return kernel if not verify(kernel) and semantics(kernel) == hash_ else None


def machine_of(text: str, fingerprint: str) -> Machine | None:
    """The machine, if the text describes one with this fingerprint."""
    try:
        machine = Machine.from_json(text)
        return machine if machine.fingerprint == fingerprint else None
    except (MachineError, TypeError, ValueError, AttributeError, RecursionError):
        return None


def key_of(text: str) -> Key | None:
    """The key that `Key.text` wrote; None for anything else."""
    try:
        return Key.from_dict(json.loads(text))
    except (ValueError, RecursionError):
        return None
