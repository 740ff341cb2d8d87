"""The ladder measures every rung, and gives the reason that the estimates hold."""

from __future__ import annotations

from itertools import pairwise

import pytest

from tilewright.design.cost.term import Estimate, Term
from tilewright.design.default import default_design
from tilewright.design.trial import Outcome
from tilewright.report.ladder import climb, quantity, reason
from tilewright.report.path import find_path, naive_design

from .fakes import FACTS, KERNEL, FakeEvaluator, estimate


def test_every_rung_is_evaluated_from_the_naive_kernel_to_the_winner():
    evaluator, winner = FakeEvaluator(), default_design(KERNEL, FACTS)
    rungs = climb(KERNEL, FACTS, winner, evaluator, estimate)
    assert {r.design for r in rungs} <= set(evaluator.seen)
    assert len(set(evaluator.seen)) == len(evaluator.seen)
    assert (rungs[0].design, rungs[-1].design) == (naive_design(KERNEL), winner)
    assert rungs[0].mutation == "the naive kernel"
    assert all(r.seconds and r.outcome.status == "ok" for r in rungs)
    assert len(rungs) > 5


def test_a_rung_that_fails_stays_with_its_reason():
    winner = default_design(KERNEL, FACTS)
    third = climb(KERNEL, FACTS, winner, FakeEvaluator(), estimate)[3].design
    rungs = climb(KERNEL, FACTS, winner, FakeEvaluator(third.hash), estimate)
    assert (rungs[3].seconds, rungs[3].outcome.status) == (None, "wrong")
    assert all(r.seconds for n, r in enumerate(rungs) if n != 3)


def test_a_step_that_did_not_pay_is_taken_elsewhere():
    """Tiles of m alone are said to pay, and do only after packing: the first way has a step back, the ladder none."""

    class Deceived(FakeEvaluator):
        def _outcome(self, design):
            early = design.number("tile.m") > 1 and design.get("pack.a") is None
            seconds = estimate(design).seconds * (3 if early else 1)
            return Outcome("ok", seconds, (seconds,), 0.01)

    winner = default_design(KERNEL, FACTS)
    first = find_path(KERNEL, FACTS, naive_design(KERNEL), winner, lambda d: estimate(d).seconds)
    deceived = Deceived()
    assert any(b.seconds > a.seconds for a, b in pairwise(deceived.evaluate([s.design for s in first])))
    rungs = climb(KERNEL, FACTS, winner, Deceived(), estimate)
    assert all(b.seconds <= a.seconds * 1.001 for a, b in pairwise(rungs))


def test_the_reason_is_the_term_that_saves_most_time():
    before = Estimate(
        9.0, "loads", (Term("loads", 6e-3, "s"), Term("arithmetic", 3e-3, "s"), Term("L2 bytes", 9e9, "byte"))
    )
    after = Estimate(
        5.0, "arithmetic", (Term("loads", 1e-3, "s"), Term("arithmetic", 2e-3, "s"), Term("L2 bytes", 1e6, "byte"))
    )
    assert reason(before, after) == "loads 6 ms -> 1 ms; then arithmetic bounds"
    assert reason(after, before) == "no term is lower; then loads bounds"


def test_without_times_the_reason_is_the_largest_ratio():
    before = Estimate(1.0, "", (Term("sectors", 32.0, "sector"), Term("waves", 9.0, "")))
    after = Estimate(1.0, "", (Term("sectors", 4.0, "sector"), Term("waves", 8.0, "")))
    assert reason(before, after) == "sectors 32 sector -> 4 sector"


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (0.0125, "s", "12.5 ms"),
        (3.2e6, "byte", "3.2 MB"),
        (12, "byte", "12 B"),
        (1e9, "line", "1e+09 line"),
        (2, "", "2"),
    ],
)
def test_quantities_are_read_by_people(value: float, unit: str, text: str):
    assert quantity(value, unit) == text
