"""Candidates that misbehave in every way there is: each is caught, says why, is quarantined, and the search goes on."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from sabotage import SABOTAGE, sabotage

from tilewright import operators
from tilewright.design.book.store import Book
from tilewright.design.search import search as explore
from tilewright.design.trial import Budget, Outcome, Standing
from tilewright.runtime.designer import search
from tilewright.runtime.subject import Subject

SIZES = {"M": 35, "N": 70, "K": 29}
CAUGHT = {
    "shorter tail": ("wrong", "c"),
    # All masks are wrong, those of loads too: whichever is met first, at the end of b or of c, ends it.
    "longer tail": ("crash", " at 0 bytes after the last byte of "),
    "writes nothing": ("wrong", "is nan, the reference is"),
    "replays an earlier output": ("wrong", "on hard operands"),
    "hangs": ("hang", "did not end within"),
    "writes behind its output": ("crash", "SIGSEGV: it wrote at 0 bytes after the last byte of c"),
    "writes before its output": ("wrong", "4 bytes were written before its first byte of c"),
    "writes to an input": ("crash", "byte 0 of a, which it may only read"),
    "segfaults": ("crash", "SIGSEGV: it wrote at address 0x40"),
    "executes nonsense": ("crash", "SIGILL"),
    "allocates without bound": ("memory", "MiB of memory and was killed"),
    "aborts": ("crash", "SIGABRT"),
}


class Obedient:
    """An evaluator to which all designs are alike: it shows which a search tries first."""

    def evaluate(self, designs):
        return [Outcome("ok", 1.0, (1.0,), 0.01) for _ in designs]

    def compare(self, designs):
        return [Standing(d, 1.0, 1.0, 1.0, 1.0) for d in designs]


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """A search in which all but the first and a few more designs are sabotaged, cut off after its last batch."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TILEWRIGHT_CACHE_DIR", str(tmp_path_factory.mktemp("cache")))
        patch.setattr("tilewright.runtime.trial.MEMORY_LIMIT", 256 << 20)
        patch.setattr("tilewright.runtime.designer._Task._model", lambda *_: model)
        subject = Subject.of(operators.matmul, SIZES, "f32", threads=1)
        budget = Budget(trials=len(SABOTAGE) + 4)
        dry = explore(subject.kernel, subject.facts, Obedient(), model=model, budget=budget)
        bad = dict(zip(SABOTAGE, (t.design for t in dry.trials[2:]), strict=False))
        for how, design in bad.items():
            sabotage(subject, design, how)
        book = Book.open(tmp_path_factory.mktemp("book") / "book.sqlite")
        yield SimpleNamespace(subject=subject, bad=bad, book=book, first=run(book, budget), budget=budget)


def model(design):
    """All designs are alike to it too, but for their size."""
    return 1e-6 * (1 + len(design.decisions))


def run(book, budget, **how):
    return search(operators.matmul, dtype="f32", threads=1, book=book, budget=budget, **how, **SIZES)


@pytest.mark.parametrize("how", SABOTAGE)
def test_it_is_caught_and_says_why(found, how):
    (trial,) = (t for t in found.first.result.trials if t.design == found.bad[how])
    status, reason = CAUGHT[how]
    assert trial.outcome.status == status
    assert reason in trial.outcome.reason
    assert trial.outcome.seconds is None


@pytest.mark.parametrize("how", SABOTAGE)
def test_it_is_in_quarantine_with_its_reason(found, how):
    entry = found.book.quarantine_of(found.first.key)[found.bad[how].hash]
    assert entry.status == CAUGHT[how][0]
    assert CAUGHT[how][1] in entry.reason


def test_the_search_goes_on_to_a_winner(found):
    assert found.first.design not in found.bad.values()
    assert found.book.get(found.first.key).design == found.first.design
    right = [t for t in found.first.result.trials if t.outcome.status == "ok"]
    assert len(right) == found.budget.trials - len(SABOTAGE)


def test_it_is_never_tried_again_unless_asked(found):
    other = Subject.of(operators.matmul, SIZES, "f32", threads=1).key("throughput")
    for hash_, entry in found.book.quarantine_of(found.first.key).items():
        assert entry.design.hash == hash_
        found.book.quarantine(other, entry.design, entry.status, entry.reason)
    second = run(found.book, Budget(trials=6), objective="throughput")
    assert not {t.design for t in second.result.trials} & set(found.bad.values())
    how = "writes nothing"
    found.book.release(other, found.bad[how].hash)
    third = run(found.book, Budget(trials=3), objective="throughput", again=True)
    assert found.bad["shorter tail"] in {t.design for t in third.result.trials}
