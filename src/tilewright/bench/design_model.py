"""The cost model beside every design of a grid: its first choice, its first sixteen, and the order it gives."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence

from tilewright.bench.design_cases import Grid
from tilewright.bench.result import Result, rounded
from tilewright.design.cost import Correction, estimate, features
from tilewright.design.design import Design
from tilewright.design.space import enumerate_space, ranked
from tilewright.design.trial import Outcome
from tilewright.errors import TilewrightError, VerificationError
from tilewright.report.series import median_error, spearman
from tilewright.runtime.subject import Subject
from tilewright.runtime.trial import TrialRunner

FIRST = 16
BATCH = 8

Row = tuple[tuple[float, ...], float, float]
"""Features, predicted seconds, measured seconds."""


def model_results(grids: Sequence[Grid], threads: int) -> Iterator[Result]:
    """A result for each grid; its learned correction comes from measurements of the half that it does not judge."""
    for grid in grids:
        try:
            yield model_result(grid, threads)
        except TilewrightError as error:
            yield Result(grid.case.family, grid.case.name, threads, error=f"{type(error).__name__}: {error}")


def model_result(grid: Grid, threads: int) -> Result:
    """Measure every design of a grid and judge the model by them. VerificationError where none works."""
    subject = Subject.of(grid.case.operator, dict(grid.case.sizes), grid.case.dtype, threads=threads)
    designs = enumerate_space(subject.kernel, subject.facts, grid.choices, Design.of(grid.base))
    with TrialRunner(subject) as runner:
        outcomes = measured(runner, designs)
        seconds = {d: o.seconds for d, o in outcomes.items() if o.seconds is not None}
        if not seconds:
            raise VerificationError(f"no design of the grid of {grid.case.name} works")
        predicted = {d: estimate(subject.kernel, d, subject.facts).seconds for d in seconds}
        best = ranked(seconds)[0]
        order = ranked(predicted)
        first, sixteen = order[0], min(order[:FIRST], key=lambda d: seconds[d])
        standing = {s.design: s.seconds for s in runner.compare(list(dict.fromkeys([best, first, sixteen])))}
        values = {
            "designs": len(seconds),
            "of_best": standing[best] / standing[first],
            "of_best_16": standing[best] / standing[sixteen],
            "noise": max(o.noise for o in outcomes.values()),
        }
    plain = [(predicted[d], seconds[d]) for d in seconds]
    rows = {d: (features(subject.kernel, d, subject.facts), predicted[d], seconds[d]) for d in seconds}
    learned = corrected(rows)
    values |= {
        "spearman": spearman(plain),
        "spearman_corrected": spearman(learned),
        "error": median_error(plain),
        "error_corrected": median_error(learned),
    }
    raw = {"designs": [_plain(d, predicted[d], outcomes[d]) for d in seconds], "best": best.to_json()}
    return Result(grid.case.family, grid.case.name, threads, rounded(values), raw)


def measured(runner: TrialRunner, designs: Sequence[Design]) -> dict[Design, Outcome]:
    """The outcome of every design, in an order that no part of the space is favoured by."""
    shuffled = random.Random(0).sample(list(designs), len(designs))
    outcomes: dict[Design, Outcome] = {}
    for start in range(0, len(shuffled), BATCH):
        batch = shuffled[start : start + BATCH]
        outcomes |= zip(batch, runner.evaluate(batch), strict=True)
    return outcomes


def corrected(rows: Mapping[Design, Row]) -> list[tuple[float, float]]:
    """(corrected prediction, measurement) of each design, by a correction that was fitted on the others' half."""
    designs = random.Random(1).sample(list(rows), len(rows))
    halves = designs[::2], designs[1::2]
    found = []
    for judged, taught in (halves, halves[::-1]):
        correction = Correction()
        correction.fit([rows[d] for d in taught])
        found += [(correction.predict(rows[d][0], rows[d][1]), rows[d][2]) for d in judged]
    return found


def _plain(design: Design, predicted: float, outcome: Outcome) -> dict[str, object]:
    return {"design": design.to_json(), "predicted": predicted, "samples": list(outcome.samples)}
