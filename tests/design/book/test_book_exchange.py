"""Export, import and merge: all of it comes along, and none of it is believed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from entries import default, key, record, standing, trial

from tilewright.design.book.document import Document
from tilewright.design.book.store import Book
from tilewright.errors import BookError, BookWarning


@pytest.fixture
def full(tmp_path: Path) -> Book:
    """A book with two winners, what they rest on, and a design in quarantine for a key without a winner."""
    book = Book.open(tmp_path / "full" / "book.sqlite")
    book.put(record(runner_up=standing(default(key()).with_(threads=1))))
    book.put(record(key("sapphire-rapids")))
    book.add_trials(key(), "run", [trial(default(key())), trial(default(key()).with_(threads=1), None)], seed=5)
    book.quarantine(key(M=3), default(key(M=3)), "crash", "signal 11")
    return book


def test_an_export_is_readable_and_comes_back_as_hints(full: Book, tmp_path: Path):
    path = tmp_path / "out.json"
    assert full.export(path) == 2
    data = json.loads(path.read_text())
    assert (data["format"], data["schema"]) == ("tilewright-book", 1)
    assert path.read_text().count("\n") > 100
    assert str(tmp_path) not in path.read_text()
    assert [p.name for p in tmp_path.glob("*out*")] == ["out.json"]

    new = Book.open(tmp_path / "new" / "book.sqlite")
    taken = new.import_(path)
    assert (taken.records, taken.known, taken.quarantined, taken.measurements, taken.refused) == (2, 0, 1, 2, ())
    assert new.get(key()) is None
    (hint,) = new.untrusted(key())
    assert (hint.verified, hint.origin, hint.design) == (False, "import", default(key()))
    assert new.quarantined(key(M=3)) == {default(key(M=3)).hash: "crash: elsewhere: signal 11"}
    assert new.trials(key()) == []  # measured elsewhere: nothing that a search may resume from
    assert [(m.origin, m.seed, m.run) for m in new.measurements(key())] == [("import", 5, "run")] * 2
    assert new.verify().problems == ()


def test_a_second_import_changes_nothing(full: Book, tmp_path: Path):
    path = tmp_path / "out.json"
    full.export(path)
    before = full.list()
    taken = full.import_(path)
    assert (taken.records, taken.known, taken.quarantined, taken.measurements) == (0, 2, 0, 0)
    assert full.list() == before
    assert full.get(key()) is not None


@pytest.mark.parametrize("kind", ["book.sqlite", "out.json"])
def test_the_merge_of_another_book(full: Book, tmp_path: Path, kind: str):
    path = full.path if kind == "book.sqlite" else tmp_path / kind
    assert path is not None
    full.export(tmp_path / "out.json")
    mine = Book.open(tmp_path / "mine" / "book.sqlite")
    own = record(design=default(key()).with_(threads=1), seconds=5e-3)
    mine.put(own)
    taken = mine.merge(path)
    assert (taken.records, taken.quarantined, taken.measurements) == (2, 1, 2)
    assert mine.get(key()) == own
    assert [r.design for r in mine.untrusted(key())] == [default(key())]
    assert mine.merge(path).records == 0


def test_a_quarantine_elsewhere_does_not_take_what_was_verified_here(full: Book, tmp_path: Path):
    full.export(tmp_path / "out.json")
    mine = Book.open(tmp_path / "mine" / "book.sqlite")
    mine.put(record(key(M=3)))
    assert mine.import_(tmp_path / "out.json").quarantined == 0
    assert mine.get(key(M=3)) == record(key(M=3))


def test_a_starter_book_holds_verified_designs_and_no_traces(full: Book, tmp_path: Path):
    full.put(record(key(M=9), verified=False, origin="import"))
    assert full.export(tmp_path / "starter.json", starter=True) == 2
    data = json.loads((tmp_path / "starter.json").read_text())
    assert {r["origin"] for r in data["records"]} == {"starter"}
    assert not any(r["verified"] for r in data["records"])
    assert not {"measurements", "quarantine", "keys"} & set(data)
    assert len(data["machines"]) == 2
    assert len(data["programs"]) == 1


def changed(path: Path, change: Any) -> Path:
    data = json.loads(path.read_text())
    change(data)
    path.write_text(json.dumps(data))
    return path


def test_entries_that_are_damaged_or_illegal_are_refused_and_the_rest_is_taken(full: Book, tmp_path: Path):
    full.export(tmp_path / "out.json")

    def change(data: Any) -> None:
        data["records"][0]["design"]["tile.m"] = 7
        data["records"].append({**data["records"][1], "seconds": "fast"})
        data["records"].append("a record")
        data["measurements"][0]["key"] = "0" * 32
        data["programs"]["0" * 16] = ["kernel nonsense("]
        data["machines"]["0" * 16] = {"name": "no machine"}

    new = Book.open(tmp_path / "new" / "book.sqlite")
    taken = new.import_(changed(tmp_path / "out.json", change))
    assert (taken.records, taken.measurements) == (1, 1)
    assert len(taken.refused) == 4
    assert any("not a multiple of tile.m=7" in r for r in taken.refused)
    assert any("seconds is 'fast'" in r for r in taken.refused)
    assert new.verify().problems == ()


def test_a_verified_flag_in_a_file_is_not_believed(full: Book, tmp_path: Path):
    full.export(tmp_path / "out.json")
    assert json.loads((tmp_path / "out.json").read_text())["records"][0]["verified"] is True
    new = Book.open(tmp_path / "new" / "book.sqlite")
    new.import_(tmp_path / "out.json")
    assert [r.verified for r in new.list()] == [False, False]


def test_a_program_in_a_file_does_not_replace_what_is_known(full: Book, tmp_path: Path):
    """Text that claims the hash of a program must have it."""
    full.export(tmp_path / "out.json")

    def change(data: Any) -> None:
        (hash_,) = data["programs"]
        data["programs"][hash_] = [line.replace("add", "sub") for line in data["programs"][hash_]]

    path = changed(tmp_path / "out.json", change)
    new = Book.open(tmp_path / "new" / "book.sqlite")
    taken = new.import_(path)
    assert taken.records == 0
    assert all("its program or its machine is not known" in r for r in taken.refused)
    full.import_(path)
    assert full.verify().problems == ()


@pytest.mark.parametrize(
    "text", ["", "{", "[1]", '{"format": "recipes", "schema": 1}', '{"format": "tilewright-book"}']
)
def test_a_file_that_is_no_book(tmp_path: Path, text: str):
    path = tmp_path / "in.json"
    path.write_text(text)
    for take in (Book.in_memory().import_, Book.in_memory().merge):
        with pytest.raises(BookError, match="give a file that `tilewright book export` wrote"):
            take(path)


def test_a_document_of_a_later_schema_is_refused(full: Book, tmp_path: Path):
    full.export(tmp_path / "out.json")
    path = changed(tmp_path / "out.json", lambda data: data.update(schema=2, version="9.9"))
    with pytest.raises(BookError, match=r"written by a later Tilewright \(9.9\)"):
        full.import_(path)


def test_files_that_cannot_be_used(full: Book, tmp_path: Path):
    with pytest.raises(BookError, match="cannot be read"):
        full.import_(tmp_path / "none.json")
    with pytest.raises(BookError, match="cannot be read"):
        full.merge(tmp_path / "none.sqlite")
    with pytest.raises(BookError, match="cannot be written"):
        full.export(tmp_path / "no" / "folder" / "out.json")
    (tmp_path / "broken.sqlite").write_bytes(b"SQLite format 3\0" + b"noise" * 100)
    with pytest.raises(BookError, match="no book that this version"):
        full.merge(tmp_path / "broken.sqlite")
    assert not list(tmp_path.glob("*damaged*"))


def test_a_document_keeps_what_it_can_read():
    text = Document((record(),)).to_text().replace('"noise": 0.01', '"noise": "loud"')
    found = Document.of(text, "here")
    assert found.records == ()
    assert found.refused == ("records[0]: noise is 'loud'; it is a fraction",)


def test_an_export_of_a_damaged_entry_leaves_it_out(full: Book, tmp_path: Path):
    full.database.write(lambda c: c.execute("UPDATE designs SET data = 'x' WHERE key = ?", (key().hash,)))
    with pytest.warns(BookWarning, match="damaged"):
        assert full.export(tmp_path / "out.json") == 1
