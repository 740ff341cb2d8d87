"""`tw.search` beside the book: hints are verified and measured before trust, numerics are pinned, arguments checked."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from sabotage import sabotage

import tilewright as tw
from tilewright import operators
from tilewright.design.book.record import Record, now
from tilewright.design.book.store import Book
from tilewright.design.default import default_design
from tilewright.design.design import Design
from tilewright.design.pinned import differs
from tilewright.design.trial import Budget
from tilewright.errors import ArgumentError
from tilewright.runtime import dispatch, tolerance
from tilewright.runtime.subject import Subject, named
from tilewright.runtime.table import Table

SIZES = {"M": 24, "N": 64, "K": 32}


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("TILEWRIGHT_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("TILEWRIGHT_THREADS", "1")
    for known in ("_listed", "_kernels", "_by_design"):
        monkeypatch.setattr(dispatch, known, {})
    monkeypatch.setattr(dispatch, "TABLE", Table())


@pytest.fixture
def subject():
    return Subject.of(operators.matmul, SIZES, "f32", threads=1)


def hint(subject, design, seconds=1e-9):
    """What another host says of a design, and it says the best."""
    return Record(subject.key(), design, seconds, 1.0, 0.01, False, 0, now(), origin="import")


def other(subject) -> Design:
    start = default_design(subject.kernel, subject.facts)
    return start.with_(unroll__k=start.number("unroll.k", 1) * 2)


def search(book, **how):
    return tw.search(
        operators.matmul, dtype="f32", book=book, budget=how.pop("budget", Budget(trials=3)), **how, **SIZES
    )


# ---------------------------------------------------------------------------------------------- hints
def test_an_imported_design_is_verified_and_measured_before_it_is_used(subject):
    book = Book.in_memory()
    book.put(hint(subject, other(subject)))
    assert book.get(subject.key()) is None
    found = search(book)
    assert (found.found, found.result) == ("hint", None)
    assert found.trials == 2  # it, and the default
    held = book.get(subject.key())
    assert held == found.record
    assert held.verified
    assert held.seconds > 1e-7  # as measured here, not as told
    assert search(book).found == "book"


def test_an_imported_design_that_is_wrong_is_put_in_quarantine_and_searched_for(subject):
    book = Book.in_memory()
    book.put(hint(subject, other(subject)))
    sabotage(subject, other(subject), "writes nothing")
    found = search(book)
    assert found.found == "search"
    assert found.design != other(subject)
    assert book.quarantine_of(subject.key())[other(subject).hash].status == "wrong"


def test_a_design_of_the_book_that_is_not_verified_here_is_not_launched(subject):
    book = Book.open()
    book.put(replace(hint(subject, other(subject)), key=subject.key().unaligned))
    book.close()
    launched(subject)
    assert [k.design for k in dispatch.kernels()] != [other(subject)]


def test_a_verified_design_is_launched_and_the_knob_turns_that_off(subject, monkeypatch):
    book = Book.open()
    book.put(replace(hint(subject, other(subject)), key=subject.key().unaligned, verified=True))
    book.close()
    launched(subject)
    assert [k.design for k in dispatch.kernels()] == [other(subject)]
    monkeypatch.setenv("TILEWRIGHT_BOOK", "off")
    dispatch.forget_chosen()
    launched(subject)
    assert len(dispatch.kernels()) == 2


def launched(subject):
    arrays = {n: np.ones(s, np.float32) for n, s in {"a": (24, 32), "b": (64, 32), "c": (24, 64)}.items()}
    tw.launch(operators.matmul.kernel, **arrays)
    assert np.all(arrays["c"] == 32.0)


@pytest.mark.parametrize(("rows", "served"), [(17, True), (25, True), (64, True), (16, False), (65, False)])
def test_sizes_in_the_range_of_those_of_the_book_get_its_design_and_others_their_default(subject, rows, served):
    book = Book.open()
    book.put(replace(hint(subject, other(subject)), key=subject.key().unaligned, verified=True))
    book.close()
    arrays = {n: np.ones(s, np.float32) for n, s in {"a": (rows, 32), "b": (64, 32), "c": (rows, 64)}.items()}
    tw.launch(operators.matmul.kernel, **arrays)
    assert ([k.design for k in dispatch.kernels()] == [other(subject)]) is served


# ------------------------------------------------------------------------------------------- numerics
def test_pinned_numerics_keep_what_sets_the_bits(subject):
    found = search(Book.in_memory(), numerics="pinned", budget=Budget(trials=10))
    start = default_design(subject.kernel, subject.facts)
    right = [t for t in found.result.trials if t.outcome.status == "ok"]
    assert right
    assert all(not differs(subject.kernel, t.design, start) for t in right)
    refused = [t for t in found.result.trials if t.outcome.status == "illegal"]
    assert all("pinned numerics" in t.outcome.reason for t in refused)
    assert found.key.numerics == "pinned"


# ------------------------------------------------------------------------------------------ arguments
def test_a_target_that_is_met_ends_the_search():
    found = search(Book.in_memory(), target="1s", budget=Budget(trials=30))
    assert found.result.stopped == "target"
    assert len(found.result.trials) == 1


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"budget": "soon"}, 'write "60s"'),
        ({"objective": "speed"}, "it is latency or throughput"),
        ({"numerics": "exact"}, "it is one of free, pinned"),
        ({"threads": 0}, "give at least 1"),
        ({"strategy": "luck"}, "evolve"),
    ],
)
def test_arguments_that_are_not_understood(change, said):
    with pytest.raises(ArgumentError, match=said):
        search(Book.in_memory(), **change)


def test_sizes_are_checked():
    with pytest.raises(ArgumentError, match="needs the sizes M, K, N"):
        tw.search(operators.matmul, M=1, N=2)
    with pytest.raises(ArgumentError, match="K=0 leaves nothing to measure"):
        tw.search(operators.matmul, M=1, N=2, K=0)


def test_names_of_operators(tmp_path):
    assert named("matmul") is operators.matmul
    assert named("linear") is operators.matmul
    with pytest.raises(ArgumentError, match=r"no operator is called 'matmull'; did you mean matmul\?"):
        named("matmull")
    with pytest.raises(ArgumentError, match="there is no file"):
        named(f"{tmp_path}/none.py:mine")
    path = tmp_path / "some.py"
    path.write_text("x = 1\n")
    with pytest.raises(ArgumentError, match="defines no tile program 'x'; it has none"):
        named(f"{path}:x")


def test_a_record_is_compiled_with_its_options():
    sizes = {"B": 1, "H": 1, "G": 2, "S": 5, "D": 16, "T": 9, "E": 16}
    found = tw.search(
        operators.attention,
        dtype="f32",
        budget=Budget(trials=1),
        book=Book.in_memory(),
        options={"causal": True},
        **sizes,
    )
    shapes = ((1, 1, 2, 5, 16), (1, 1, 9, 16), (1, 1, 9, 16))
    q, k, v = (np.random.default_rng(n).standard_normal(s, np.float32) for n, s in enumerate(shapes))
    o = np.zeros_like(q)
    tw.compile(operators.attention, found).run(q, k, v, o, scale=0.25)
    tolerance.check("o", o, operators.attention.reference(q, k, v, 0.25, causal=True)["o"])


def test_a_transposed_operand_is_a_key_of_its_own():
    book = Book.in_memory()
    found = search(book, unit={"b": 0})
    assert dict(found.key.layouts)["b"] == (0,)
    assert search(book).found == "search"
