"""What `explain` tells: the candidates, the runner-up, the evidence, and for a miss what is nearest."""

from __future__ import annotations

import json

import pytest
from entries import default, key, record, standing, trial

from tilewright.design.book.explain import changes, explanation, span
from tilewright.design.book.store import Book


@pytest.fixture
def book() -> Book:
    found = Book.in_memory()
    best, other = default(key()), default(key()).with_(threads=1)
    found.put(record(runner_up=standing(other)))
    found.add_trials(key(), "first", [trial(other, 1.2e-3), trial(best, 1e-3, mutation="tile.m 4 -> 8")], seed=11)
    found.add_trials(key(), "second", [trial(best.with_(threads=2), None)], seed=12)
    found.quarantine(key(), best.with_(threads=2), "crash", "signal 11")
    return found


def test_a_hit(book: Book):
    text, best = book.explain(key()), default(key())
    for part in (
        "matmul K=2048 M=512 N=1024 dtype=f32",
        key().hash,
        f"design {best.hash}, verified here, found by search (seed 7)",
        "1 ms, 1.25x the default design (1.25 ms)",
        "noise of its measurement: 1.0%",
        "tile.m = 8",
        f"runner-up {best.with_(threads=1).hash}: 1.200 times as long (interval 1.150 to 1.250; 1.2 ms)",
        "slower beyond noise",
        "threads = 1, not left out",
        "3 candidates; predicted, measured",
        "run first: 2 trials, 6 samples, seed 11",
        "run second: 1 trials, 0 samples, seed 12",
        "tilewright 0.1.0",
        f"in quarantine: {best.with_(threads=2).hash} crash: signal 11",
    ):
        assert part in text
    rows = text.splitlines()
    winner = next(n for n, row in enumerate(rows) if row.startswith(f"* {best.hash}"))
    assert rows[winner].split()[2:] == ["900", "us", "1", "ms", "+-1.0%", "1.11", "ok", "tile.m", "4", "->", "8"]
    assert rows[winner + 1].startswith(f"  {best.with_(threads=1).hash}")
    assert "crash: signal 11" in rows[winner + 2]


def test_a_tie():
    book = Book.in_memory()
    book.put(record(runner_up=standing(default(key()).with_(threads=1), 1.02)))
    assert "a tie within noise: the smaller design was taken" in book.explain(key())


def test_a_miss_names_the_nearest_entry_and_what_differs(book: Book):
    text = book.explain(key(M=500, threads=1))
    assert "no design for this key" in text
    assert f"nearest entry: {key().label}, key {key().hash[:12]}" in text
    assert "differs in sizes.M: 500 here, 512 there" in text
    assert "differs in threads: 1 here, 2 there" in text
    assert "no candidate was measured" in text


def test_a_miss_tells_of_hints(book: Book):
    assert "to be verified and measured here first: " in book.explain(key(threads=1))


def test_a_miss_in_an_empty_book():
    assert "nothing is known of matmul" in Book.in_memory().explain(key())


def test_as_data(book: Book):
    data = json.loads(json.dumps(explanation(book, key())))
    assert data["hit"]
    assert data["record"]["runner_up"]["low"] == pytest.approx(1.15)
    assert next(c["hash"] for c in data["candidates"]) == default(key()).hash
    assert data["candidates"][0]["spread"] == {"median": 1.01e-3, "low": 1e-3, "high": 1.02e-3}
    assert [e["seeds"] for e in data["evidence"]] == [[11], [12]]
    miss = explanation(book, key(M=500))
    assert not miss["hit"]
    assert miss["nearest"]["differs"] == ["sizes.M"]


def test_words():
    assert [span(s) for s in (2.0, 0.0123, 4.56e-5, 7e-9)] == ["2 s", "12.3 ms", "45.6 us", "7 ns"]
    assert changes(default(key()), default(key())) == []
