"""The correction that searches use: taught by the book, used where it orders better, absent where it cannot be had."""

from __future__ import annotations

import random

import pytest

from tilewright.design.book.store import Book
from tilewright.design.cost import estimate, features
from tilewright.design.space import random_design
from tilewright.design.trial import Outcome, Trial
from tilewright.runtime import learned
from tilewright.runtime.subject import Subject

SIZES = ({"M": 64, "N": 96, "K": 64}, {"M": 128, "N": 64, "K": 96})


def taught(true, count: int = 40) -> tuple[Book, Subject]:
    """A book with random designs of two shapes that took `true(predicted, design, rng)` seconds."""
    book, rng = Book.in_memory(), random.Random(0)
    for n, sizes in enumerate(SIZES):
        subject = Subject.of("matmul", sizes, "f32", threads=1)
        trials = []
        for design in dict.fromkeys(random_design(subject.kernel, subject.facts, rng) for _ in range(count)):
            said = estimate(subject.kernel, design, subject.facts).seconds
            seconds = true(said, design, rng)
            trials.append(Trial(design, said, Outcome("ok", seconds, (seconds,) * 3)))
        book.add_trials(subject.key(), f"run{n}", trials, seed=0)
    return book, subject


def packing_costs(said, design, rng):
    """The model is wrong by a factor that decisions tell."""
    return said * (8.0 if packs(design) else 1.0)


def packs(design) -> bool:
    return any(design.prefixed("pack"))


def ask(book: Book, subject: Subject, **more):
    return learned.learned(book, subject.key(), subject.kernel, subject.machine, **more)


def test_what_the_book_teaches_is_used_where_it_orders_better():
    book, subject = taught(packing_costs)
    correction = ask(book, subject)
    assert correction is not None
    rng = random.Random(1)
    fresh = [random_design(subject.kernel, subject.facts, rng) for _ in range(40)]
    off = {True: [], False: []}
    for design in fresh:
        said = estimate(subject.kernel, design, subject.facts)
        factor = correction.factor(features(subject.kernel, design, subject.facts, said))
        off[packs(design)].append(factor)
    assert sorted(off[True])[len(off[True]) // 2] > 2 * sorted(off[False])[len(off[False]) // 2]


def test_a_model_that_is_right_is_left_alone():
    book, subject = taught(lambda said, _design, _rng: said)
    assert ask(book, subject) is None


def test_little_is_no_lesson_and_a_run_to_resume_is_none():
    book, subject = taught(packing_costs, count=20)
    assert ask(book, subject) is None
    book, subject = taught(packing_costs)
    assert ask(book, subject, without="run0") is None  # what is left is fewer than it takes


def test_other_threads_teach_nothing():
    book, _one = taught(packing_costs)
    two = Subject.of("matmul", SIZES[0], "f32", threads=2)
    assert learned.learned(book, two.key(), two.kernel, two.machine) is None


def test_without_scikit_learn_the_model_stands_alone(monkeypatch: pytest.MonkeyPatch):
    book, subject = taught(packing_costs)
    monkeypatch.setattr(learned, "find_spec", lambda _name: None)
    assert ask(book, subject) is None
