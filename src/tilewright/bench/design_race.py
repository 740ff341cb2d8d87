"""Search against random designs at equal trials, by several seeds; designs that both try are measured once.

The best of a run is chosen as a search chooses it, by paired rounds of those that its trials had in front: a single
trial of many that tie tells luck. The rounds of all runs are the same ones, and what is chosen is timed once more.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterator, Sequence

from tilewright.bench.design_cases import DesignCase
from tilewright.bench.result import Result, rounded
from tilewright.design.cost import estimate
from tilewright.design.design import Design
from tilewright.design.search import search
from tilewright.design.trial import Budget, Evaluator, Outcome, Standing, Trial, best_so_far
from tilewright.errors import TilewrightError
from tilewright.report.series import measured
from tilewright.runtime.subject import Subject
from tilewright.runtime.trial import TrialRunner

NEAR = 0.02
"""So close to the best of all trials counts as there."""

FINALISTS = 8
"""Designs of each run that meet in paired rounds."""

EARLY = 16
"""Trials after which both are compared too: where the best is soon found by either, all of them tell little."""


class Remembering:
    """An evaluator that asks another one about each design once, and leaves the finals to the end of the race."""

    def __init__(self, inner: Evaluator) -> None:
        self.inner = inner
        self.known: dict[Design, Outcome] = {}

    def evaluate(self, designs: Sequence[Design]) -> list[Outcome]:
        """The outcomes of the designs, new ones measured."""
        new = [d for d in dict.fromkeys(designs) if d not in self.known]
        self.known |= zip(new, self.inner.evaluate(new) if new else [], strict=True)
        return [self.known[d] for d in designs]

    def compare(self, designs: Sequence[Design]) -> list[Standing]:
        """Standings from what is known already."""
        times = [self.known[d].seconds or math.inf for d in designs]
        return [Standing(d, t, t / times[0], t / times[0], t / times[0]) for d, t in zip(designs, times, strict=True)]


def race_results(cases: Sequence[DesignCase], threads: int, trials: int, seeds: int) -> Iterator[Result]:
    """A result for each case."""
    for case in cases:
        try:
            yield race_result(case, threads, trials, seeds)
        except TilewrightError as error:
            yield Result(case.family, case.name, threads, error=f"{type(error).__name__}: {error}")


def race_result(case: DesignCase, threads: int, trials: int, seeds: int) -> Result:
    """`trials` by the search and as many at random, for each seed; their bests in one paired comparison."""
    subject = Subject.of(case.operator, dict(case.sizes), case.dtype, threads=threads)
    with TrialRunner(subject) as runner:
        evaluator = Remembering(runner)
        run = _runner(subject, evaluator, trials)
        searched = [run("evolve", seed) for seed in range(seeds)]
        drawn = [run("random", seed) for seed in range(seeds)]
        whole = [*searched, *drawn]
        picked = chosen(runner, [*whole, *(run[:EARLY] for run in whole)])
        standing = {s.design: s.seconds for s in runner.compare(list(dict.fromkeys(picked)))}
    ours, theirs, ours_early, theirs_early = (
        [standing[d] for d in picked[n * seeds : (n + 1) * seeds]] for n in range(4)
    )
    values = {
        "trials": trials,
        "seeds": seeds,
        "us": statistics.median(ours) * 1e6,
        "random_us": statistics.median(theirs) * 1e6,
        "over_random": statistics.median(theirs) / statistics.median(ours),
        "over_random_early": statistics.median(theirs_early) / statistics.median(ours_early),
        "seconds_to_best": _best(searched[0]).at,  # the first had nothing to remember
        **_ways(searched, drawn),
    }
    curves = {
        name: [[t.outcome.seconds for t in run] for run in runs]
        for name, runs in (("search", searched), ("random", drawn))
    }
    raw = {
        "curves": curves,
        "search_seconds": ours,
        "random_seconds": theirs,
        "search_seconds_early": ours_early,
        "random_seconds_early": theirs_early,
    }
    return Result(case.family, case.name, threads, rounded(values), raw)


def chosen(runner: Evaluator, runs: Sequence[Sequence[Trial]]) -> list[Design]:
    """The best design of each run: the fastest in paired rounds of those that its trials had in front."""
    front = [[t.design for t in sorted(measured(run), key=_seconds)[:FINALISTS]] for run in runs]
    met = {s.design: s.ratio for s in runner.compare(list(dict.fromkeys(d for designs in front for d in designs)))}
    return [min(designs, key=met.__getitem__) for designs in front]


def _runner(subject: Subject, evaluator: Evaluator, trials: int) -> Callable[[str, int], tuple[Trial, ...]]:
    def model(design: Design) -> float:
        return estimate(subject.kernel, design, subject.facts).seconds

    def run(strategy: str, seed: int) -> tuple[Trial, ...]:
        budget = Budget(trials=trials)
        return search(
            subject.kernel, subject.facts, evaluator, model=model, budget=budget, strategy=strategy, seed=seed
        ).trials

    return run


def _ways(searched: Sequence[Sequence[Trial]], drawn: Sequence[Sequence[Trial]]) -> dict[str, float]:
    """How fast both came near the best trial of all: medians over seeds.

    `trials_to_best` are those until the best so far is within NEAR of it, one more than there were where it never is;
    `excess` is how much longer than it the best so far takes, in the mean over all trials.
    """
    goal = min(_best(t).outcome.seconds or math.inf for t in (*searched, *drawn))
    found = {}
    for prefix, runs in (("", searched), ("random_", drawn)):
        curves = [best_so_far(t) for t in runs]
        found[f"{prefix}trials_to_best"] = statistics.median(sum(s > goal * (1 + NEAR) for s in c) + 1 for c in curves)
        found[f"{prefix}excess"] = statistics.median(statistics.fmean(s / goal - 1 for s in c) for c in curves)
    return found


def _best(trials: Sequence[Trial]) -> Trial:
    return min(measured(trials), key=_seconds)


def _seconds(trial: Trial) -> float:
    return trial.outcome.seconds or math.inf
