"""Verify and prune: what they find, what they drop, and what they leave."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from entries import default, key, record, trial

from tilewright.design.book.store import Book, seal
from tilewright.machines.machine import Machine


def ago(days: float) -> str:
    return (datetime.now(UTC) - timedelta(days=days)).isoformat(timespec="seconds")


@pytest.fixture
def book(tmp_path) -> Book:
    """Winners for M = 1, 2, 3 (of which 1 is the oldest) and for another machine."""
    found = Book.open(tmp_path / "book.sqlite")
    for n in (1, 2, 3):
        found.put(record(key(M=n), created=ago(10 * (4 - n))))
        found.add_trials(key(M=n), "run", [trial(default(key(M=n)))])
    found.put(record(key("sapphire-rapids", M=4), created=ago(0)))
    found.quarantine(key("sapphire-rapids", M=4), default(key()).with_(threads=1), "hang", "5 s")
    return found


def edit(book: Book, sql: str, *values: object) -> None:
    book.database.write(lambda c: c.execute(sql, values))


def test_a_sound_book(book: Book):
    findings = book.verify()
    assert findings.problems == ()
    assert findings.sound == 4 + 4 + 3 + 1 + 1 + 2  # keys, designs, measurements, quarantine, programs, machines


BAD = {
    "its sum does not fit": "UPDATE designs SET data = replace(data, '0.01', '0.02') WHERE rowid = 1",
    "is damaged": "UPDATE designs SET data = '[' WHERE rowid = 1",
    "filed under another name": "UPDATE quarantine SET design = 'other'",
    "is another key": "UPDATE keys SET key = replace(key, '2048', '2049') WHERE rowid = 1",
    "is no program": "UPDATE programs SET text = replace(text, 'add', 'sub')",
    "is no machine": "UPDATE machines SET text = '{}' WHERE rowid = 1",
    "measurements: ": "UPDATE measurements SET run = 'other' WHERE rowid = 1",
}


@pytest.mark.parametrize("says", BAD)
def test_each_kind_of_damage_is_found_and_dropped(book: Book, says: str):
    edit(book, BAD[says])
    findings = book.verify()
    assert any(says in p for p in findings.problems)
    assert findings.dropped == 0
    assert book.verify(drop=True).dropped >= 1
    book.verify(drop=True)  # designs of a program that was dropped are the next to go
    assert book.verify().problems == ()


def test_an_illegal_design_is_found(book: Book):
    import json

    illegal = record(key(M=1), default(key()).with_(tile__m=7), created=ago(1))
    text = json.dumps(illegal.to_dict())
    values = (illegal.design.hash, text, seal(key(M=1).hash, text), key(M=1).hash)
    edit(book, "UPDATE designs SET design = ?, data = ?, sum = ? WHERE key = ?", *values)
    (problem,) = book.verify().problems
    assert "not a multiple of tile.m=7" in problem


def sizes(book: Book) -> list[int]:
    return sorted(r.sizes["M"] for r in book.list())


def test_prune_by_age(book: Book):
    pruned = book.prune(days=15)
    assert (pruned.records, pruned.measurements, pruned.quarantined) == (2, 0, 0)
    assert sizes(book) == [3, 4]
    assert len(book.measurements()) == 3
    assert book.prune(days=0).measurements == 3
    assert book.quarantined(key("sapphire-rapids", M=4))


def test_prune_by_count(book: Book):
    assert book.prune(keep=2).records == 2
    assert sizes(book) == [3, 4]
    assert book.prune(keep=2).records == 0


def test_prune_by_machine_takes_all_that_belongs_to_it(book: Book):
    pruned = book.prune(machines=[Machine.named("sapphire-rapids").fingerprint])
    assert (pruned.records, pruned.measurements, pruned.quarantined) == (1, 0, 1)
    assert sizes(book) == [1, 2, 3]
    assert len(book.rows("SELECT 1 FROM machines")) == 1
    assert len(book.known_keys()) == 3
    assert book.verify().problems == ()


def test_prune_of_nothing(book: Book):
    pruned = book.prune()
    assert (pruned.records, pruned.measurements, pruned.quarantined) == (0, 0, 0)
    assert sizes(book) == [1, 2, 3, 4]
