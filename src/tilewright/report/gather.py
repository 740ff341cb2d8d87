"""From a search to the evidence of its report: random designs beside it, and the ladder, all measured here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from tilewright.design.cost import estimate
from tilewright.design.design import Design
from tilewright.design.search import search
from tilewright.design.trial import Budget, Evaluator, Progress, Result
from tilewright.report.evidence import Evidence
from tilewright.report.ladder import Rung, climb
from tilewright.report.topic import topic_of
from tilewright.runtime.subject import Subject


def gather(
    subject: Subject,
    result: Result,
    evaluator: Evaluator,
    *,
    strategy: str,
    seed: int,
    command: str = "",
    vendor: str = "",
    vendor_ratio: float | None = None,
    progress: Callable[[Progress], None] | None = None,
) -> Evidence:
    """The evidence of `result`: random designs, as many as it tried, and the ladder are measured by `evaluator`.

    `vendor_ratio` is the vendor's time over the winner's, as measured side by side; times of the report are those of
    the search, which the ratio carries over to the vendor.
    """
    kernel, facts = subject.kernel, subject.facts

    def model(design: Design) -> float:
        return estimate(kernel, design, facts).seconds

    drawn = search(
        kernel, facts, evaluator, model=model, budget=Budget(trials=len(result.trials)), strategy="random",
        seed=seed, progress=progress,
    ).trials  # fmt: skip
    ladder = climb(kernel, facts, result.winner, evaluator, lambda d: estimate(kernel, d, facts))
    found = Evidence(
        topic_of(subject), result.winner, result.seconds, result.default_seconds, result.noise, result.stopped,
        result.trials, drawn, ladder, strategy, seed, command,
    )  # fmt: skip
    return found if vendor_ratio is None else _beside(found, vendor, vendor_ratio)


def _beside(found: Evidence, vendor: str, ratio: float) -> Evidence:
    """With the vendor's time; the ladder's rungs keep theirs, and its last one is the winner again."""
    return replace(found, topic=replace(found.topic, vendor=vendor, vendor_seconds=ratio * winner_seconds(found)))


def winner_seconds(found: Evidence) -> float:
    """The winner's time on the ladder, beside whose rungs the vendor is shown; that of the finals without one."""
    last: Rung | None = found.ladder[-1] if found.ladder else None
    return found.seconds if last is None or last.seconds is None else last.seconds
