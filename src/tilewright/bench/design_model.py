"""The cost model beside every design of a grid: its first choice, its first sixteen, and the order it gives.

Each design that its trial found right is timed in paired rounds with others and with one anchor, pass by pass, each in
a process, in groups and in an order of its own, until two halves of the passes tell the designs in one order, or six
were made: what the halves do not tell alike no model can foretell (`repeat`, `ceiling`).
"""

from __future__ import annotations

import math
import random
import statistics
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
FEWEST_PASSES, MOST_PASSES, ENOUGH = 2, 6, 0.99
"""Times that every design is timed, and the ceiling from which on more are not needed."""

GROUP, GROUP_SECONDS = 12, 0.15
"""How many designs are timed beside one anchor, and seconds of each."""

FOLDS = 4
"""Parts of a grid, each of which is judged by a correction that saw the others."""

Pass = dict[Design, tuple[float, float]]
"""Seconds and noise of each design that works, from one process."""

Row = tuple[tuple[float, ...], float, float]
"""Features, predicted seconds, measured seconds."""


def model_results(grids: Sequence[Grid], threads: int) -> Iterator[Result]:
    """A result for each grid; its learned correction comes from measurements of the parts that it does not judge."""
    for grid in grids:
        try:
            yield model_result(grid, threads)
        except TilewrightError as error:
            yield Result(grid.case.family, grid.case.name, threads, error=f"{type(error).__name__}: {error}")


def model_result(grid: Grid, threads: int) -> Result:
    """Measure every design of a grid and judge the model by them. VerificationError where none works."""
    subject = Subject.of(grid.case.operator, dict(grid.case.sizes), grid.case.dtype, threads=threads)
    designs = enumerate_space(subject.kernel, subject.facts, grid.choices, Design.of(grid.base))
    with TrialRunner(subject, final_seconds=GROUP_SECONDS) as runner:
        outcomes = measured(runner, designs)
        right = [d for d in designs if outcomes[d].seconds is not None]
        if not right:
            raise VerificationError(f"no design of the grid of {grid.case.name} works")
        passes = all_passes(subject, right)
        seconds = together(passes)
        predicted = {d: estimate(subject.kernel, d, subject.facts).seconds for d in seconds}
        best = ranked(seconds)[0]
        order = ranked(predicted)
        first, sixteen = order[0], min(order[:FIRST], key=lambda d: seconds[d])
        standing = {s.design: s.seconds for s in runner.compare(list(dict.fromkeys([best, first, sixteen])))}
        values = {
            "designs": len(seconds),
            "of_best": standing[best] / standing[first],
            "of_best_16": standing[best] / standing[sixteen],
            "noise": statistics.median(noise for p in passes for _, noise in p.values()),
            "passes": len(passes),
        }
    plain = [(predicted[d], seconds[d]) for d in seconds]
    rows = {d: (features(subject.kernel, d, subject.facts), predicted[d], seconds[d]) for d in seconds}
    learned = corrected(rows)
    values |= {
        "spearman": spearman(plain),
        "spearman_corrected": spearman(learned),
        "error": median_error(plain),
        "error_corrected": median_error(learned),
        "repeat": repeated(passes),
        "ceiling": ceiling(repeated(passes), 2),
    }
    told = [_plain(d, predicted[d], outcomes[d], [p[d][0] for p in passes]) for d in seconds]
    raw = {"designs": told, "best": best.to_json()}
    return Result(grid.case.family, grid.case.name, threads, rounded(values), raw)


def measured(runner: TrialRunner, designs: Sequence[Design]) -> dict[Design, Outcome]:
    """The outcome of every design, in an order that no part of the space is favoured by."""
    shuffled = random.Random(0).sample(list(designs), len(designs))
    outcomes: dict[Design, Outcome] = {}
    for start in range(0, len(shuffled), BATCH):
        batch = shuffled[start : start + BATCH]
        outcomes |= zip(batch, runner.evaluate(batch), strict=True)
    return outcomes


def all_passes(subject: Subject, designs: Sequence[Design]) -> list[Pass]:
    """Every design timed again and again, until the order is as sure as it needs to be.

    Where code and operands lie is not the same in another process: what a design owes to that is no part of its time.
    """
    passes: list[Pass] = []
    while len(passes) < MOST_PASSES:
        for _ in range(2):
            with TrialRunner(subject, final_seconds=GROUP_SECONDS) as runner:
                passes.append(paired(runner, designs, len(passes)))
        if len(passes) >= FEWEST_PASSES and ceiling(repeated(passes), 2) >= ENOUGH:
            break
    return passes


def together(passes: Sequence[Pass]) -> dict[Design, float]:
    """Seconds of each design that worked in all passes: of each pass as a share of its median, then in the mean."""
    always = [d for d in passes[0] if all(d in p for p in passes)]
    units = [statistics.median(p[d][0] for d in always) for p in passes]
    shares = {d: statistics.geometric_mean([p[d][0] / u for p, u in zip(passes, units, strict=True)]) for d in always}
    unit = statistics.geometric_mean(units)
    return {d: share * unit for d, share in shares.items()}


def repeated(passes: Sequence[Pass]) -> float:
    """The rank correlation of two halves of the passes: the first, third and so on beside the others."""
    one, other = together(passes[::2]), together(passes[1::2])
    return spearman([(one[d], other[d]) for d in one if d in other])


def paired(runner: TrialRunner, designs: Sequence[Design], seed: int) -> Pass:
    """(seconds, noise) of each design that works: in groups, beside one anchor, told by its seconds overall."""
    anchor, *others = designs
    shuffled = random.Random(seed).sample(others, len(others))
    groups = [runner.compare([anchor, *shuffled[n : n + GROUP]]) for n in range(0, max(1, len(shuffled)), GROUP)]
    unit = statistics.median(group[0].seconds for group in groups)
    found = {s.design: (s.ratio * unit, s.noise) for group in groups for s in group}
    return {d: told for d, told in found.items() if math.isfinite(told[0])}


def ceiling(repeat: float, passes: int) -> float:
    """The rank correlation that even the truth has with a mean of so many measurements, where two agree by `repeat`.

    Spearman 1904 and 1910: the reliability of a mean of n is n r / (1 + (n - 1) r), and noise takes its root off.
    """
    if math.isnan(repeat):
        return math.nan
    return math.sqrt(max(0.0, passes * repeat / (1.0 + (passes - 1) * repeat)))


def corrected(rows: Mapping[Design, Row]) -> list[tuple[float, float]]:
    """(corrected prediction, measurement) of each design, by a correction fitted to the three quarters it is not of."""
    designs = random.Random(1).sample(list(rows), len(rows))
    found = []
    for fold in range(FOLDS):
        correction = Correction.fit([rows[d] for n, d in enumerate(designs) if n % FOLDS != fold])
        found += [(correction.predict(rows[d][0], rows[d][1]), rows[d][2]) for d in designs[fold::FOLDS]]
    return found


def _plain(design: Design, predicted: float, outcome: Outcome, passes: Sequence[float]) -> dict[str, object]:
    told = {"trial": list(outcome.samples), "passes": list(passes)}
    return {"design": design.to_json(), "predicted": predicted, **told}
