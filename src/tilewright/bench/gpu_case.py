"""What the benches of GPUs do alike with each case: facts, search, the last check, and the record of trials."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, TypeVar

from tilewright.bench.result import Result
from tilewright.design.cost.model import estimate
from tilewright.design.default import Facts
from tilewright.design.design import Design
from tilewright.design.search import search
from tilewright.design.trial import Budget, Evaluator, Objective
from tilewright.design.trial import Result as Found
from tilewright.errors import TilewrightError
from tilewright.machines.machine import Machine
from tilewright.runtime.cuda.dispatch import requested
from tilewright.runtime.cuda.evaluator import Problem


@dataclass(frozen=True)
class Effort:
    """Trials of each search, rounds of the final timing, and the seed of both."""

    trials: int = 32
    rounds: int = 40
    seed: int = 0


class Case(Protocol):
    """What a result is called by."""

    @property
    def family(self) -> str: ...

    @property
    def name(self) -> str: ...


class Setup(Protocol):
    """The operands of a case: spoilt, drawn anew, and judged."""

    def poison(self) -> None: ...

    def redraw(self) -> None: ...

    def check(self) -> None: ...


C = TypeVar("C", bound=Case)


def each_case(cases: Sequence[C], measured: Callable[[C], Result]) -> Iterator[Result]:
    """A result for each case; one that failed says why, and the run goes on."""
    for case in cases:
        try:
            yield measured(case)
        except TilewrightError as error:
            yield Result(case.family, case.name, 1, error=str(error))


def facts_of(problem: Problem, known: Machine) -> Facts:
    """All sizes of the case and the layouts; those sizes fixed that become a part of the kernel."""
    empty = requested(problem.program, problem.layouts, problem.sizes, known, Design(), problem.fixed)
    return replace(empty.facts(known), sizes=dict(problem.sizes))


def searched(problem: Problem, facts: Facts, evaluator: Evaluator, effort: Effort) -> Found:
    """The search of a case: as many trials as the effort allows, guided by the cost model."""
    kernel = problem.program.kernel
    return search(
        kernel, facts, evaluator, budget=Budget(trials=effort.trials), objective=Objective(), seed=effort.seed,
        model=lambda design: estimate(kernel, design, facts).seconds,
        word=lambda design, usage: estimate(kernel, design, facts, usage).seconds,
    )  # fmt: skip


def checked(setup: Setup, launch: Callable[[], object]) -> None:
    """Judge a kernel again after it was timed: fresh operands, poisoned outputs; VerificationError if wrong."""
    setup.redraw()
    setup.poison()
    launch()
    setup.check()


def trials_of(found: Found) -> list[list[Any]]:
    """Of each trial: the design's hash, the seconds predicted and measured, and how it ended."""
    return [[t.design.hash, t.predicted, t.outcome.seconds, t.outcome.status] for t in found.trials]


__all__ = ["Effort", "checked", "each_case", "facts_of", "searched", "trials_of"]
