"""Designs for machines that are not at hand: the search of every machine, with a simulated one as the judge."""

from __future__ import annotations

import math
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import replace
from importlib import import_module

from tilewright.design.book.record import Record
from tilewright.design.book.store import Book
from tilewright.design.search import search
from tilewright.design.strategies import check_strategy
from tilewright.design.trial import Progress
from tilewright.errors import ArgumentError
from tilewright.machines.machine import Machine
from tilewright.runtime.budget import parse_budget, parse_objective
from tilewright.runtime.chosen import open_book
from tilewright.runtime.designer import FAILURES, Designed
from tilewright.simulate.judge import Judge

JUDGES: dict[str, tuple[str, str]] = {
    "systolic": ("tilewright.simulate.systolic.judge", "ArrayJudge"),
    "dataflow": ("tilewright.simulate.dataflow.judge", "DataflowJudge"),
    "nvidia": ("tilewright.simulate.gpu.judge", "ModelJudge"),
}
"""Kind of machine -> module with `subject_on(machine, program, sizes, dtype)`, and its judge in there."""


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
    again: bool = False,
    book: Book | None = None,
    progress: Callable[[Progress], None] | None = None,
) -> Designed:
    """The best design that the budget finds by the time that a model of the machine gives, kept in the book.

    The book keeps it under the machine as a simulated one: its rates are a part of the key, and no measurement of a
    real machine has the same. What the book knows is returned at once, unless `again`. Of each design that is tried
    the values are computed on a few tiles and checked. ArgumentError for a kind of machine that has no judge.
    """
    check_strategy(strategy)
    known, goal, room = book or open_book(), parse_objective(objective, target), parse_budget(budget)
    judge = judge_on(machine, program, sizes, dtype, seed)
    subject = judge.subject
    key = subject.key(goal)
    if not again and (held := known.get(key)) is not None:
        return Designed(held, subject.options, "book", machine=subject.machine)
    begun, run = time.monotonic(), uuid.uuid4().hex[:12]

    def keep(seen: Progress) -> None:
        known.add_trials(key, run, seen.new, seed=seed)
        for trial in seen.new:
            if trial.outcome.status in FAILURES:
                known.quarantine(key, trial.design, trial.outcome.status, trial.outcome.reason)
        if progress is not None:
            progress(seen)

    result = search(
        subject.kernel, subject.facts, judge, model=judge.seconds, budget=room, strategy=strategy,
        objective=goal, seed=seed, completed=judge.completed, progress=keep,
    )  # fmt: skip
    record = Record.of(key, result, seed)
    if not math.isfinite(record.default_seconds):  # a default that does not work has no time of its own
        record = replace(record, default_seconds=record.seconds)
    if result.stopped != "interrupted":
        known.put(record, replace=again)
    taken = time.monotonic() - begun
    return Designed(record, subject.options, "search", len(result.trials), 0, taken, result, machine=subject.machine)


def judge_on(machine: Machine, program: str, sizes: Mapping[str, int], dtype: str | None, seed: int = 0) -> Judge:
    """The judge of a program at its sizes; ArgumentError for a kind of machine that has none."""
    if machine.kind not in JUDGES:
        raise ArgumentError(
            f"no simulator judges designs for {machine.name}, a machine of kind {machine.kind}; give an array, such "
            f"as tpu-v1 or systolic:32x32:ws, a dataflow machine (sn40l) or a GPU by model (h100), or leave --machine "
            f"out to search on the machine itself"
        )
    module, name = JUDGES[machine.kind]
    found = import_module(module)
    judge: Judge = getattr(found, name)(found.subject_on(machine.as_simulated(), program, sizes, dtype), seed)
    return judge


__all__ = ["JUDGES", "judge_on", "search_simulated"]
