"""From a search to the evidence of its report: random designs beside it, and the ladder, all measured here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from tilewright.design.cost import estimate
from tilewright.design.design import Design
from tilewright.design.search import search
from tilewright.design.trial import Budget, Evaluator, Progress, Result
from tilewright.report.evidence import Evidence
from tilewright.report.ladder import climb
from tilewright.report.topic import topic_of
from tilewright.runtime.subject import Subject

PATIENCE = 2.0
"""How many times as long as the search random designs may take."""


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

    Random designs that take more than PATIENCE times as long as the search are cut short. KeyboardInterrupt comes
    through: a half of the evidence would say something else.

    `vendor_ratio` is the vendor's time over the winner's, as measured side by side; times of the report are those of
    the search, which the ratio carries over to the vendor.
    """
    kernel, facts = subject.kernel, subject.facts

    def model(design: Design) -> float:
        return estimate(kernel, design, facts).seconds

    took = max((t.at for t in result.trials), default=0.0) or None
    room = Budget(took and PATIENCE * took, len(result.trials))
    drawn = search(kernel, facts, evaluator, model=model, budget=room, strategy="random", seed=seed, progress=progress)
    if drawn.stopped == "interrupted":
        raise KeyboardInterrupt
    ladder = climb(kernel, facts, result.winner, evaluator, lambda d: estimate(kernel, d, facts))
    found = Evidence(
        topic_of(subject), result.winner, result.seconds, result.default_seconds, result.noise, result.stopped,
        result.trials, drawn.trials, ladder, strategy, seed, command,
    )  # fmt: skip
    if vendor_ratio is None:
        return found
    return replace(found, topic=replace(found.topic, vendor=vendor, vendor_seconds=vendor_ratio * found.rung_seconds))
