"""`tilewright book`: what each command prints, in words and as JSON, and how it refuses."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from programs import facts, traced

from tilewright.design.book.key import Key
from tilewright.design.book.record import Record
from tilewright.design.book.store import Book
from tilewright.design.default import default_design
from tilewright.design.trial import Outcome, Trial

PROGRAM = traced("matmul")


def key(threads: int = 2, machine: str = "zen5", **sizes: int) -> Key:
    return Key.of(PROGRAM, facts(PROGRAM, machine, **sizes), threads=threads)


def record(of: Key) -> Record:
    assert of.kernel is not None
    assert of.facts is not None
    return Record(of, default_design(of.kernel, of.facts), 1e-3, 2e-3, 0.01, True, 7, "2026-01-02T03:04:05+00:00")


@pytest.fixture
def at(tmp_path: Path) -> Path:
    """A book with two winners, a measurement, and a design in quarantine."""
    path = tmp_path / "book.sqlite"
    book = Book.open(path)
    for of in (key(), key(M=16)):
        book.put(record(of))
    design = record(key()).design
    book.add_trials(key(), "run", [Trial(design, 0.9e-3, Outcome("ok", 1e-3, (1e-3, 1.1e-3), 0.01))], seed=3)
    book.quarantine(key(), design.with_(threads=1), "hang", "5 s")
    book.close()
    return path


@pytest.fixture
def run(command, at: Path):
    """Run `tilewright book ... --book AT`: (exit code, stdout, stderr)."""

    def call(*arguments: str, book: Path = at):
        return command("book", *arguments, "--book", str(book))

    return call


def test_list(run):
    code, out, _ = run("list")
    assert code == 0
    assert [line.split()[0] for line in out.splitlines()] == ["key", key(M=16).hash[:12], key().hash[:12]]
    assert "2.00x" in out
    assert [r["hash"] for r in json.loads(run("list", "--json")[1])] == [key(M=16).hash, key().hash]
    assert json.loads(run("list", "softmax", "--json")[1]) == []


@pytest.mark.parametrize(
    "words", [["matmul", "M=512"], ["matmul M=512 dtype=f32 threads=2"], [key().hash[:6]], [key().hash]]
)
def test_a_key_may_be_named_in_several_ways(run, words: list[str]):
    code, out, _ = run("show", *words)
    assert code == 0
    assert f"key {key().hash}" in out
    assert "tile.m = 8" in out
    assert f"in quarantine: {record(key()).design.with_(threads=1).hash} hang: 5 s" in out
    data = json.loads(run("show", *words, "--json")[1])
    assert data["hash"] == key().hash
    assert Record.from_dict(data["records"][0]) == record(key())
    assert len(data["quarantine"]) == 1


def test_explain_a_hit_and_a_miss(run):
    code, out, _ = run("explain", "matmul", "M=512")
    assert code == 0
    assert "verified here" in out
    assert "run run: 1 trials, 2 samples, seed 3" in out
    assert json.loads(run("explain", key().hash[:8], "--json")[1])["hit"]
    code, out, _ = run("explain", "matmul", "M=500", "N=1024", "K=2048")
    assert code == 0
    assert "no design for this key" in out
    assert "differs in sizes.M: 500 here, 512 there" in out


def test_a_call_stands_for_the_operator_that_it_runs(run):
    assert run("list", "linear") == run("list", "matmul")
    assert run("list", "rmsnorm")[1] == ""
    assert run("explain", "linear", "M=16") == run("explain", "matmul", "M=16")


@pytest.mark.parametrize(
    "words, says",
    [
        (["matmul"], "2 keys fit; give one of these"),
        (["beef0"], "no key starts with beef0"),
        (["matmal", "M=1"], "did you mean matmul?"),
        (["rms_norm", "M=1"], "did you mean rmsnorm?"),
        (["matmul", "M=x"], "'M=x' is no field of a key"),
        (["matmul", "M=7"], "matmul needs the sizes M, K, N; given: M=7"),
        (["../x"], "is no key; give the first digits"),
    ],
)
def test_a_key_that_nobody_could_mean(run, words: list[str], says: str):
    code, _, err = run("explain", *words)
    assert code == 2
    assert says in err


def test_a_book_moves_to_another_host_as_hints(run, tmp_path):
    out, new = str(tmp_path / "out.json"), tmp_path / "new.sqlite"
    Book.open(new).close()
    new.touch()
    assert json.loads(run("export", out, "--json")[1]) == {"records": 2, "path": out}
    code, said, _ = run("import", out, book=new)
    assert code == 0
    assert "2 designs are new (to be verified here before use), 0 were known; 1 measurements, 1 in quarantine" in said
    assert json.loads(run("merge", out, "--json", book=new)[1])["known"] == 2
    assert Book.open(new).get(key()) is None
    assert run("export", out, "--starter")[0] == 0
    assert {r["origin"] for r in json.loads(Path(out).read_text())["records"]} == {"starter"}
    assert "cannot be read" in run("import", str(tmp_path / "none"))[2]


def test_verify_exits_with_one_until_what_is_bad_is_dropped(run, at):
    assert run("verify")[0] == 0
    book = Book.open(at)
    book.database.write(lambda c: c.execute("UPDATE designs SET data = '[' WHERE key = ?", (key().hash,)))
    book.close()
    code, out, _ = run("verify")
    assert code == 1
    assert "designs: an entry is damaged" in out
    code, out, _ = run("verify", "--drop", "--json")
    assert code == 0
    assert json.loads(out)["dropped"] == 1
    assert run("verify")[0] == 0


def test_prune(run):
    assert "give --days, --keep, --machine or --others" in run("prune")[2]
    assert json.loads(run("prune", "--keep", "1", "--json")[1])["records"] == 1
    assert "dropped 1 designs" in run("prune", "--machine", key().machine)[1]


def test_release(run, at):
    bad = record(key()).design.with_(threads=1).hash
    assert run("release", bad, "matmul", "M=512")[0] == 0
    assert Book.open(at).quarantined(key()) == {}
    assert "is not in quarantine" in run("release", bad, "matmul", "M=512")[2]


def test_frozen_mode_changes_nothing(run, monkeypatch):
    monkeypatch.setenv("TILEWRIGHT_MODE", "frozen")
    assert run("show", "matmul", "M=512")[0] == 0
    assert "unset TILEWRIGHT_MODE" in run("prune", "--keep", "0")[2]


@pytest.mark.parametrize("words", [("list",), ("verify", "--drop"), ("prune", "--keep", "0")])
def test_a_file_that_is_no_book_is_left_as_it_is(run, tmp_path, words: tuple[str, ...]):
    letter = tmp_path / "letter.txt"
    letter.write_text("dear aunt\n" * 20)
    code, _, err = run(*words, book=letter)
    assert code == 2
    assert "is no book, and was left as it is" in err
    assert letter.read_text().startswith("dear aunt") and len(list(tmp_path.iterdir())) == 2


def test_a_hint_from_another_key_says_so(run, at):
    alone, same = key(threads=1), key(threads=4)
    book = Book.open(at)
    book.put(replace(record(alone), design=record(alone).design.with_(**{"unroll.k": 8})))
    book.put(replace(record(same), design=record(key()).design))
    book.close()
    _, out, _ = run("show", key().hash)
    assert f"a hint from key {alone.hash[:12]}, of other threads" in out
    assert same.hash[:12] not in out  # its design is the winner, and was told already


def test_keys_of_aligned_rows_and_others_can_be_told_apart(run, at):
    aligned = Key.of(PROGRAM, replace(facts(PROGRAM, "zen5"), aligned=frozenset("abc")), threads=2)
    book = Book.open(at)
    book.put(record(aligned))
    book.close()
    rows = {line.split()[0]: line for line in run("list")[1].splitlines()}
    assert " aligned " in rows[aligned.hash[:12]]
    assert " anywhere " in rows[key().hash[:12]]


def test_a_book_that_is_not_there(run, tmp_path):
    code, _, err = run("list", book=tmp_path / "none.sqlite")
    assert code == 2
    assert "there is no book at" in err
