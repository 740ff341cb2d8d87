"""A background without a process: it answers what a test says, and remembers what it was asked."""

from __future__ import annotations

from dataclasses import replace

from tilewright.design.book.record import Record, now
from tilewright.design.default import default_design
from tilewright.operators import OPERATORS
from tilewright.runtime.background import Budget, Gate
from tilewright.runtime.background_worker import subject_of
from tilewright.runtime.learner import Learner
from tilewright.runtime.trigger import Trigger


class Clock:
    """Seconds that pass when a test says so."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class FakeBackground:
    """Answers `design` by `found` (a function of the job, or an exception), and `verify` by `verdict`."""

    def __init__(self, folder, found=None, verdict="right"):
        self.gate = Gate(folder / "not-now")
        self.found = found or faster
        self.verdict = verdict
        self.jobs = []

    def ask(self, job):
        self.jobs.append(job)
        if job["job"] == "verify":
            return {"status": self.verdict, "reason": "an element is off", "seconds": 1.0}
        if isinstance(self.found, Exception):
            raise self.found
        return self.found(job)

    def stop(self):
        """There is nothing to end."""


def faster(job, by=2.0, noise=0.01, **decisions):
    """The answer of a search that found a legal design which keeps every bit and, it says, is faster."""
    subject = subject_of(job)
    start = default_design(subject.kernel, subject.facts)
    design = start.with_(**(decisions or {"threads": 1}))
    key = subject.key(numerics=job["numerics"])
    record = Record(key, design, 1e-3 / by, 1e-3, noise, True, 0, now())
    return {"status": "found", "record": record.to_dict(), "seconds": 1.0, "compiles": 1}


def unverified(job):
    """As `faster`, but nobody has checked it."""
    answer = faster(job)
    record = replace(Record.from_dict(answer["record"]), verified=False)
    return {**answer, "record": record.to_dict()}


def learner(table, background, *, trigger=None, clock=None, **budget):
    """A learner that a test steps through."""
    return Learner(
        table,
        trigger or Trigger(count=3, payback=None),
        Budget(**budget),
        background=lambda _: background,
        clock=clock or Clock(),
    )


__all__ = ["OPERATORS", "Clock", "FakeBackground", "faster", "learner", "unverified"]
