"""Designs for machines that are not at hand: the search of every machine, with a simulated one as the judge."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from tilewright.design.search import search
from tilewright.design.trial import Progress, Result
from tilewright.errors import ArgumentError
from tilewright.machines.machine import Machine
from tilewright.runtime.budget import parse_budget, parse_objective
from tilewright.simulate.systolic.judge import ArrayJudge, subject_on

JUDGED = ("systolic",)
"""Kinds of machines whose simulators judge designs."""


def search_simulated(
    program: str,
    machine: Machine,
    sizes: Mapping[str, int],
    dtype: str | None = None,
    *,
    budget: str = "64 trials",
    target: str | None = None,
    objective: str = "latency",
    strategy: str = "evolve",
    seed: int = 0,
    progress: Callable[[Progress], None] | None = None,
) -> Result:
    """The best design that the budget finds, by cycles; nothing is kept in the book, since nothing was measured.

    ArgumentError for a kind of machine that has no judge.
    """
    if machine.kind not in JUDGED:
        raise ArgumentError(
            f"no simulator judges designs for {machine.name}, a machine of kind {machine.kind}; give an array, such "
            f"as tpu-v1 or systolic:32x32:ws, or search on the machine itself"
        )
    subject = subject_on(machine, program, sizes, dtype)
    judge = ArrayJudge(subject, seed)
    return search(
        subject.kernel, subject.facts, judge, model=judge.seconds, budget=parse_budget(budget), strategy=strategy,
        objective=parse_objective(objective, target), seed=seed, progress=progress,
    )  # fmt: skip
