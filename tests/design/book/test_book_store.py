"""The book: what it gives, what it keeps back, and what it makes of entries that are wrong."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import pytest
from entries import MATMUL, default, key, record, standing, trial
from programs import facts

from tilewright.design.book import starter
from tilewright.design.book.document import Document
from tilewright.design.book.key import Key
from tilewright.design.book.store import Book, seal
from tilewright.errors import ArgumentError, BookWarning


@pytest.fixture
def book(tmp_path: Path) -> Book:
    return Book.open(tmp_path / "cache" / "book.sqlite")


def other(design_of: Key, threads: int = 1):
    return default(design_of).with_(threads=threads)


# -------------------------------------------------------------------------------------------------- designs
def test_what_is_put_is_found_again_by_another_process(book: Book):
    kept = record(runner_up=standing(other(key())))
    assert book.get(key()) is None
    assert book.put(kept)
    assert book.get(key()) == kept
    again = Book.open(book.path)
    assert again.get(key()) == kept
    assert again.get(key(M=513)) is None
    assert again.list() == [kept]
    (found,) = again.known_keys()
    assert found.kernel is None
    assert again.get(found) == kept  # its program and machine come from the book


def test_a_path_may_be_text(tmp_path):
    at = tmp_path / "new" / "book.sqlite"
    Book.open(str(at)).put(record())
    assert Book.open(at).get(key()) == record()


def test_the_default_path_is_in_the_cache_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("TILEWRIGHT_CACHE_DIR", str(tmp_path))
    assert Book.open().path == tmp_path / "book.sqlite"
    monkeypatch.setenv("TILEWRIGHT_BOOK", str(tmp_path / "other.sqlite"))
    assert Book.open().path == tmp_path / "other.sqlite"
    monkeypatch.setenv("TILEWRIGHT_BOOK", "off")
    assert Book.open().path is None


def test_a_faster_design_stays_unless_it_is_to_be_replaced(book: Book):
    fast, slow = record(), record(design=other(key()), seconds=2e-3)
    book.put(fast)
    assert not book.put(slow)
    assert book.get(key()) == fast
    tied = record(design=other(key()), seconds=1.015e-3)  # within the noise of both, 1% each
    assert book.put(tied)
    assert book.get(key()) == tied
    assert book.put(slow, replace=True)
    assert book.get(key()) == slow
    assert len(book.list()) == 1


def test_what_was_not_verified_here_is_a_hint(book: Book):
    hint = record(verified=False, origin="import")
    book.put(hint)
    assert book.get(key()) is None
    assert book.untrusted(key()) == [hint]
    measured = replace(hint, verified=True, seconds=2e-3)
    assert book.trust(key(), measured) == measured
    assert book.get(key()) == measured
    assert book.untrusted(key()) == []


def test_only_what_was_verified_can_be_trusted(book: Book):
    with pytest.raises(ArgumentError, match="verified here"):
        book.trust(key(), record(verified=False))
    with pytest.raises(ArgumentError, match="of this key"):
        book.trust(key(M=1), record())


def test_designs_of_other_machines_are_hints_where_they_are_legal(book: Book):
    mine, theirs = key("zen5"), key("sapphire-rapids", threads=8)
    legal = record(theirs, default(mine))
    illegal = record(theirs, default(mine).with_(atom__dot0="amx_bf16"), verified=False)
    for r in (legal, illegal, record(key("sapphire-rapids", M=64))):
        book.put(r)
    assert book.get(mine) is None
    assert [r.design for r in book.untrusted(mine)] == [legal.design]
    book.quarantine(mine, legal.design, "wrong", "row 3")
    assert book.untrusted(mine) == []


def test_shipped_designs_are_hints(book: Book, tmp_path, monkeypatch):
    shipped = record()
    (tmp_path / "broken.json").write_text("{")
    (tmp_path / "zen5.json").write_text(Document((shipped,)).to_text())
    monkeypatch.setattr(starter, "FOLDER", tmp_path)
    with pytest.warns(BookWarning, match="a part of the starter book is not used"):
        (hint,) = book.untrusted(key())
    assert hint == replace(shipped, verified=False, origin="starter")
    assert book.get(key()) is None
    assert book.untrusted(key(threads=1)) == [hint]
    assert book.untrusted(key(M=513)) == []


def test_the_nearest_entry_and_what_differs(book: Book):
    for near in (key(M=500), key(M=64), key("sapphire-rapids")):
        book.put(record(near))
    found, differs = book.nearest(key()) or pytest.fail("there is one")
    assert found.key == key(M=500)
    assert differs == ("sizes.M",)
    assert Book.in_memory().nearest(key()) is None


def test_of_entries_that_are_as_near_one_that_was_verified_is_the_nearest(book: Book):
    book.put(record(key(M=500), other(key(M=500)), verified=False))
    book.put(record(key(M=500)))
    found, _ = book.nearest(key()) or pytest.fail("there is one")
    assert found.verified


# -------------------------------------------------------------------------------------------------- quarantine
def test_a_design_in_quarantine_is_not_used_until_it_is_released(book: Book):
    bad = default(key())
    book.put(record())
    book.quarantine(key(), bad, "wrong", "element 7 is nan")
    assert book.get(key()) is None
    assert Book.open(book.path).quarantined(key()) == {bad.hash: "wrong: element 7 is nan"}
    assert book.quarantined(key(M=1)) == {}
    book.put(record())
    with pytest.warns(BookWarning, match="is in quarantine"):
        assert book.get(key()) is None
    assert book.release(key(), bad.hash)
    assert not book.release(key(), bad.hash)
    assert book.get(key()) == record()


def test_a_damaged_entry_of_the_quarantine_still_counts(book: Book):
    book.quarantine(key(), default(key()), "hang", "5 s")
    edit(book, "UPDATE quarantine SET data = '{}'")
    with pytest.warns(BookWarning, match="damaged"):
        assert book.quarantined(key()) == {default(key()).hash: "unknown: its entry is damaged"}


# ------------------------------------------------------------------------------------------------ measurements
def test_measurements_are_appended_with_their_evidence(book: Book):
    first, second = trial(default(key())), trial(other(key()), None)
    book.add_trials(key(), "one", [first], seed=1)
    book.add_trials(key(), "two", [second, first], seed=2)
    assert book.trials(key(), "one") == [first]
    assert book.trials(key()) == [first, second, first]
    assert book.trials(key(M=1)) == []
    found = book.measurements(key(), "two")
    assert [(m.run, m.seed, m.origin) for m in found] == [("two", 2, "here")] * 2
    assert {name for name, _ in found[0].versions} == {"tilewright", "llvmlite", "python", "system"}
    assert book.add_measurements(found) == 0
    assert len(book.measurements()) == 3


# -------------------------------------------------------------------------------------------- entries gone wrong
def edit(book: Book, sql: str, *values: object) -> None:
    """Change the file behind the book's back."""
    with sqlite3.connect(book.path) as connection:
        connection.execute(sql, values)
    connection.close()


def sealed(book: Book, data: dict) -> None:
    """Put an entry in place of the only one, with a sum that fits."""
    text = json.dumps(data)
    edit(book, "UPDATE designs SET data = ?, sum = ?", text, seal(key().hash, text))


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"key": 1}', "\x00", "[" * 100_000, '"' + "x" * 10])
def test_malformed_json_is_a_miss(book: Book, text: str):
    book.put(record())
    edit(book, "UPDATE designs SET data = ?, sum = ?", text, seal(key().hash, text))
    with pytest.warns(BookWarning, match="is damaged"):
        assert book.get(key()) is None
    with pytest.warns(BookWarning):
        assert book.list() == []
    with pytest.warns(BookWarning):
        assert book.put(record())
    assert book.get(key()) == record()


def test_an_entry_that_was_edited_is_a_miss(book: Book):
    book.put(record())
    edit(book, """UPDATE designs SET data = replace(data, '"tile.m": 8', '"tile.m": 4')""")
    with pytest.warns(BookWarning, match="its sum does not fit"):
        assert book.get(key()) is None


def test_an_illegal_design_is_a_miss(book: Book):
    book.put(record())
    sealed(book, record(design=default(key()).with_(tile__m=7, block__m=512)).to_dict())
    with pytest.warns(BookWarning, match=r"is not legal \(\[blocks\] block.m=512: not a multiple of tile.m=7"):
        assert book.get(key()) is None


def test_an_entry_of_another_host_is_a_miss(book: Book):
    book.put(record())
    sealed(book, record(key("sapphire-rapids")).to_dict())
    with pytest.warns(BookWarning, match="belongs to another key"):
        assert book.get(key()) is None


def test_an_entry_that_calls_itself_verified_under_the_counter_is_a_miss(book: Book):
    book.put(record(verified=False, origin="import"))
    edit(book, "UPDATE designs SET verified = 1")
    with pytest.warns(BookWarning, match="belongs to another key"):
        assert book.get(key()) is None


def test_a_design_for_an_unknown_program_is_a_miss(book: Book):
    book.put(record())
    (bare,) = book.known_keys()
    edit(book, "UPDATE programs SET text = 'kernel nonsense('")
    with pytest.warns(BookWarning, match="its program or its machine is not known"):
        assert Book.open(book.path).get(bare) is None
    assert book.get(key()) == record()  # whoever brings the program along needs no other


# -------------------------------------------------------------------------------------- threads and processes
def test_many_threads_share_a_book(book: Book):
    made = [record(key(M=n)) for n in range(1, 9)]
    threads = [threading.Thread(target=book.put, args=(r,)) for r in made]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert {r.key.hash for r in book.list()} == {r.key.hash for r in made}


WRITER = """
import sys
sys.path[:0] = sys.argv[3].split(":")
from pathlib import Path
from entries import default, key, record, trial
from tilewright.design.book.store import Book
book, number = Book.open(Path(sys.argv[1])), int(sys.argv[2])
for n in range(10):
    book.put(record(key(M=100 * number + n)))
    book.add_trials(key(), f"run{number}", [trial(default(key()), at=float(n))], seed=number)
    seconds = (1 + (7 * n + number) % 10) / 1e3
    book.put(record(design=default(key()).with_(threads=10 * number + n + 1), seconds=seconds))
"""


def test_many_processes_write_one_book_from_its_first_moment(tmp_path):
    """None waits in vain, nothing is lost, and of those that search one key the fastest find stays."""
    path = tmp_path / "cache" / "book.sqlite"
    command = [sys.executable, "-W", "error", "-c", WRITER, str(path)]
    folders = ":".join(p for p in sys.path if p)
    writers = [subprocess.Popen([*command, str(n), folders], stderr=subprocess.PIPE) for n in range(4)]
    for writer in writers:
        _, errors = writer.communicate()
        assert writer.returncode == 0, errors.decode()
    book = Book.open(path)
    assert {r.key.hash for r in book.list()} == {key(M=100 * w + n).hash for w in range(4) for n in range(10)} | {
        key().hash
    }
    assert len(book.trials(key())) == 40
    assert [t.at for t in book.trials(key(), "run2")] == [float(n) for n in range(10)]
    best = book.get(key())
    assert best is not None
    assert best.seconds == 1e-3
    assert book.verify().problems == ()


def test_a_look_up_needs_no_program_where_the_key_brings_it(book: Book):
    """What dispatch does on a miss of its own table: a key from the traced program, and one look."""
    book.put(record())
    assert book.get(Key.of(MATMUL, facts(MATMUL), threads=2)) == record()
