"""Row B9, the part of the book: what was found once is found again, by any process, and by nobody who should not."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from programs import facts, traced

from tilewright.design.book.key import Key
from tilewright.design.book.record import Record
from tilewright.design.book.store import Book
from tilewright.design.default import default_design
from tilewright.design.trial import Outcome, Result, Standing, Trial
from tilewright.errors import BookWarning

PROGRAM = traced("matmul", "bf16")


def key(**sizes: int) -> Key:
    return Key.of(PROGRAM, facts(PROGRAM, "sapphire-rapids", **{"M": 16, **sizes}), threads=2)


def result() -> Result:
    """What a search of two trials gives."""
    of = key()
    assert of.kernel is not None
    assert of.facts is not None
    winner = default_design(of.kernel, of.facts)
    other = winner.with_(threads=1)
    trials = tuple(Trial(d, 1e-4, Outcome("ok", s, (s, s), 0.01)) for d, s in ((winner, 1e-4), (other, 2e-4)))
    return Result(winner, 1e-4, 1.5e-4, trials, Standing(other, 2e-4, 2.0, 1.9, 2.1, 0.01), "budget")


@pytest.fixture
def found(tmp_path: Path) -> Path:
    """The book after a search."""
    path = tmp_path / "book.sqlite"
    book = Book.open(path)
    book.add_trials(key(), "run", result().trials, seed=3)
    book.put(Record.of(key(), result(), seed=3))
    book.close()
    return path


SECOND_RUN = """
import sys
sys.path[:0] = sys.argv[2].split(":")
from pathlib import Path
from programs import facts, traced
from tilewright.design.book.key import Key
from tilewright.design.book.store import Book
program = traced("matmul", "bf16")
key = Key.of(program, facts(program, "sapphire-rapids", M=16), threads=2)
record = Book.open(Path(sys.argv[1])).get(key)
print(record.design.hash, record.verified)
"""


def test_B9_another_process_finds_what_was_found(found: Path):
    command = [sys.executable, "-W", "error", "-c", SECOND_RUN, str(found), ":".join(p for p in sys.path if p)]
    ended = subprocess.run(command, capture_output=True, text=True, check=True)
    assert ended.stdout.split() == [result().winner.hash, "True"]


def test_B9_a_record_holds_its_evidence(found: Path):
    book = Book.open(found)
    record = book.get(key())
    assert record is not None
    assert (record.seconds, record.default_seconds, record.seed) == (1e-4, 1.5e-4, 3)
    assert record.runner_up == result().runner_up
    assert tuple(book.trials(key(), "run")) == result().trials
    text = book.explain(key())
    for part in ("1.50x the default design", "interval 1.900 to 2.100", "2 candidates", "seed 3", "llvmlite"):
        assert part in text


def test_B9_what_was_designed_elsewhere_is_no_answer_but_a_hint(found: Path, tmp_path: Path):
    Book.open(found).export(tmp_path / "book.json")
    here = Book.open(tmp_path / "here" / "book.sqlite")
    here.import_(tmp_path / "book.json")
    assert here.get(key()) is None
    (hint,) = here.untrusted(key())
    here.trust(key(), replace(hint, verified=True))
    assert here.get(key()) is not None


def test_B9_a_failure_is_remembered(found: Path):
    book = Book.open(found)
    book.quarantine(key(), result().winner, "wrong", "element 5: 3.0, not 2.0")
    again = Book.open(found)
    assert again.get(key()) is None
    assert again.quarantined(key()) == {result().winner.hash: "wrong: element 5: 3.0, not 2.0"}


def test_B9_a_damaged_book_is_a_miss_and_no_crash(found: Path):
    found.write_bytes(b"\0" * 10_000)
    book = Book.open(found)
    with pytest.warns(BookWarning, match="is damaged"):
        assert book.get(key()) is None
    book.put(Record.of(key(), result(), seed=3))
    assert Book.open(found).get(key()) is not None
