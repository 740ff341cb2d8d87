"""The shipped starter book: readable, legal, for programs that ship, and used only after it was verified here."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tilewright.design.book import starter
from tilewright.design.book.document import Document
from tilewright.design.book.key import Key
from tilewright.design.book.record import Record, now
from tilewright.design.book.store import Book
from tilewright.design.default import default_design
from tilewright.design.legality import legal
from tilewright.machines.machine import Machine
from tilewright.operators import OPERATORS
from tilewright.runtime import pool
from tilewright.runtime.adopt import adopt, options_of, shipped
from tilewright.runtime.subject import Subject

FILES = sorted(starter.FOLDER.glob("*.json"))


def ship(folder: Path, key: Key, design, monkeypatch: pytest.MonkeyPatch) -> None:
    """A starter book of one design."""
    book = Book.in_memory()
    book.put(Record(key, design, 1e-6, 2e-6, 0.01, True, 0, now()))
    book.export(folder / "one.json", starter=True)
    monkeypatch.setattr(starter, "FOLDER", folder)
    starter._shipped.cache_clear()


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_what_ships_is_legal_for_programs_that_ship(path: Path):
    document = Document.load(path)
    records = document.hints("starter")
    machines = {h: Machine.from_json(text) for h, text in document.machines.items()}
    machines = {h: m for h, m in machines.items() if not m.is_cpu}
    assert records
    for record in records:
        key = record.key
        subject = Subject.of(
            key.operator, dict(record.sizes), dict(key.dtypes), options=options_of(key),
            present=[t for t, _ in key.layouts], machine=machines.get(key.machine), threads=1,
        )  # fmt: skip
        assert key.semantics == subject.key().semantics, key.label
        assert key.machine not in machines or key == subject.key()
        assert not record.verified and record.key.operator in OPERATORS
        assert not legal(subject.kernel, record.design, subject.facts), record.key.label


def test_something_ships():
    assert FILES


def test_a_shipped_design_is_verified_before_it_is_used(tmp_path, monkeypatch):
    subject = Subject.of("silu", {"M": 8, "D": 96}, "f32", threads=pool.available_threads())
    design = default_design(subject.kernel, subject.facts).with_(unroll__d=2)
    design = (
        design if not legal(subject.kernel, design, subject.facts) else default_design(subject.kernel, subject.facts)
    )
    ship(tmp_path, subject.key(), design, monkeypatch)
    assert list(shipped(subject.machine, subject.threads)) == [subject.key()] and not shipped(subject.machine, 77)
    book = Book.in_memory()
    assert book.get(subject.key()) is None
    (found,) = adopt(book)
    assert found.found == "hint"
    record = book.get(subject.key())
    assert record is not None and record.verified
    (again,) = adopt(book)
    assert again.found == "book"


def test_designs_for_another_machine_are_left_alone(tmp_path, monkeypatch):
    subject = Subject.of("silu", {"M": 8, "D": 96}, "f32", threads=pool.available_threads())
    design = default_design(subject.kernel, subject.facts)
    ship(tmp_path, replace(subject.key(), machine="0" * 32, kernel=None, facts=None), design, monkeypatch)
    assert adopt(Book.in_memory()) == []
