"""Rows B6 and B11: predicted against measured, and the ladder, on kernels that are really compiled and timed here."""

from __future__ import annotations

import itertools
import math
from pathlib import Path

import pytest

import tilewright as tw
from tilewright.design.cost import estimate
from tilewright.design.default import default_design
from tilewright.design.search import search
from tilewright.design.trial import Budget
from tilewright.report.evidence import Evidence, read
from tilewright.report.gather import gather
from tilewright.report.path import naive_design
from tilewright.report.report import write_report
from tilewright.report.series import median_error, pairs, spearman
from tilewright.runtime.subject import Subject
from tilewright.runtime.trial import TrialRunner

TRIALS = 6


@pytest.fixture(scope="module")
def evidence() -> Evidence:
    """A short search of a small product, random designs beside it, the ladder, and a vendor half as fast as the best."""
    subject = Subject.of(tw.operators.matmul, {"M": 48, "N": 64, "K": 40}, "f32", threads=1)

    def model(design):
        return estimate(subject.kernel, design, subject.facts).seconds

    with TrialRunner(subject) as runner:
        result = search(subject.kernel, subject.facts, runner, model=model, budget=Budget(trials=TRIALS))
        return gather(subject, result, runner, strategy="evolve", seed=0, vendor="torch", vendor_ratio=2.0)


# ------------------------------------------------------------------------------------------------------ B6
def test_b6_predicted_against_measured(evidence: Evidence, tmp_path: Path):
    """Rank correlation and error are those of the trials, are drawn, and stand on the page."""
    values = pairs(evidence.trials)
    assert len(values) >= 3
    assert all(p > 0 and m > 0 for p, m in values)
    rank, error = spearman(values), median_error(values)
    assert -1 <= rank <= 1 and error >= 0
    page = write_report(evidence, tmp_path).read_text(encoding="utf-8")
    assert f"Rank correlation of prediction and measurement {rank:.2f}, median error {error:.0%}" in page
    assert (tmp_path / "predicted.png").stat().st_size > 1000


def test_b6_random_designs_are_measured_beside_the_search(evidence: Evidence):
    assert len(evidence.random) == len(evidence.trials) == TRIALS
    assert {t.design for t in evidence.random} != {t.design for t in evidence.trials}


# ----------------------------------------------------------------------------------------------------- B11
def test_b11_the_ladder_goes_from_the_naive_kernel_to_the_best(evidence: Evidence):
    designs = [r.design for r in evidence.ladder]
    subject = Subject.of(tw.operators.matmul, {"M": 48, "N": 64, "K": 40}, "f32", threads=1)
    assert designs[0] == naive_design(subject.kernel)
    assert designs[-1] == evidence.winner
    assert len(set(designs)) == len(designs) >= 4


def test_b11_every_rung_was_compiled_verified_and_measured(evidence: Evidence):
    for rung in evidence.ladder:
        assert rung.outcome.status == "ok", rung.outcome.reason
        assert rung.seconds is not None and rung.seconds > 0 and rung.outcome.samples
        assert math.isfinite(rung.predicted)


def test_b11_each_step_is_one_mutation_with_its_reason(evidence: Evidence):
    for before, after in zip(evidence.ladder, evidence.ladder[1:], strict=False):
        old, new = dict(before.design.decisions), dict(after.design.decisions)
        changed = {n for n in {*old, *new} if old.get(n) != new.get(n)}
        assert changed
        assert after.mutation.count("+") + 1 == len(changed)
        assert after.reason


def test_b11_rates_vendor_and_gains_stand_on_the_page(evidence: Evidence, tmp_path: Path):
    page = write_report(evidence, tmp_path).read_text(encoding="utf-8")
    assert evidence.topic.unit == "GFLOP/s"
    seconds = [r.seconds for r in evidence.ladder if r.seconds]
    for before, after in itertools.pairwise(seconds):
        assert f'<td class="n">{before / after:.2f}x</td>' in page
        assert f'<td class="n">{evidence.topic.rate(after):.3g}</td>' in page
    assert '<td class="n">200%</td>' in page  # the vendor was said to take twice the winner's time
    assert read(tmp_path / "report.json") == evidence


@pytest.mark.parametrize("name, sizes", [("softmax", {"M": 8, "D": 64}), ("rmsnorm", {"M": 8, "D": 64})])
def test_b11_a_memory_bound_ladder_is_told_in_bytes(name: str, sizes: dict[str, int]):
    subject = Subject.of(name, sizes, "f32", threads=1)
    from tilewright.report.ladder import climb
    from tilewright.report.topic import topic_of

    winner = default_design(subject.kernel, subject.facts)
    with TrialRunner(subject) as runner:
        rungs = climb(
            subject.kernel, subject.facts, winner, runner, lambda d: estimate(subject.kernel, d, subject.facts)
        )
    assert [r.outcome.status for r in rungs] == ["ok"] * len(rungs)
    assert topic_of(subject).unit == "GB/s"
