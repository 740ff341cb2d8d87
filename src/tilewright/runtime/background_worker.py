"""The process that designs beside a program: `python -m tilewright.runtime.background_worker`, asked by `background`.

It answers two jobs: `design` (search, write the book, compile what was found into the cache on disk) and `verify`
(run one design on fresh operands against the reference). Candidates run in processes of their own below this one.
"""

from __future__ import annotations

import atexit
import os
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from tilewright.build.kernel_cache import build
from tilewright.design.book.record import versions
from tilewright.design.default import default_design
from tilewright.design.design import Design
from tilewright.design.pinned import differs
from tilewright.design.trial import Budget, Progress
from tilewright.emit.abi import TensorLayout
from tilewright.errors import MachineError
from tilewright.language.parser import parse
from tilewright.machines import nvidia
from tilewright.machines.machine import Machine
from tilewright.operators import OPERATORS
from tilewright.runtime import child, designer, dispatch
from tilewright.runtime.background import Gate, Pace
from tilewright.runtime.chosen import open_book
from tilewright.runtime.subject import Subject
from tilewright.runtime.trial import Crew, TrialRunner

_LOWEST = 19
_FINAL_SECONDS = 0.1  # of a finalist: the program waits for what is faster, not for what is fastest by a hair
_PATIENCE = 2.0  # times the seconds of a search, after which it is cut off and not only ended


class Paused(KeyboardInterrupt):
    """The gate was closed: a search ends as if it had been interrupted, and can be resumed."""


def subject_of(job: dict[str, Any]) -> Subject:
    """What a job is about."""
    program = dispatch.Program.of(parse(job["kernel"]))
    operator = OPERATORS[job["operator"]] if job["operator"] is not None else None
    options = tuple((str(name), value) for name, value in job["options"])
    sizes = {d: int(n) for d, n in job["sizes"]}
    known = Machine.from_dict(job["machine"])
    given = tuple((n, TensorLayout(tuple(s), *more)) for n, s, *more in job.get("layouts", ()))
    constant = tuple(job["constant"]) if "constant" in job else None
    unit, threads = dict(job["unit"]), int(job["threads"])
    return Subject(program, operator, options, sizes, unit, known, threads, given or None, constant)


class Worker:
    """The process's state: its gate and its pace, once it was set up."""

    def __init__(self) -> None:
        self._share = 1.0
        self._gate = Gate(Path(os.devnull))
        self._crew = Crew()
        atexit.register(self._crew.close)

    def answer(self, job: dict[str, Any]) -> dict[str, Any]:
        """The answer to a job."""
        doing = {"setup": self._setup, "design": self._design, "verify": self._verify}
        return doing[job["job"]](job)

    def _setup(self, job: dict[str, Any]) -> dict[str, Any]:
        with suppress(OSError):
            os.nice(_LOWEST)  # what it starts inherits this
        _leave_cores_to(job["threads"])
        if not _has_gpu():  # the driver of one maps far more than it uses; the parent watches what is used
            child.bound_memory(job["memory"])
        self._gate, self._share = Gate(Path(job["gate"])), job["share"]
        return {"status": "ok"}

    def _design(self, job: dict[str, Any]) -> dict[str, Any]:
        subject, pace, begun = subject_of(job), Pace(self._share), time.monotonic()
        if job.get("look") and _nothing_to_see(subject, job):
            return {"status": "same", "seconds": time.monotonic() - begun}
        if job.get("deeper") and _searched(subject, job):
            return {"status": "searched", "seconds": time.monotonic() - begun}
        room = Budget(trials=job["trials"], seconds=job["seconds"] / self._share)

        def between(_: Progress) -> None:
            pace.rest()
            if self._gate.closed or time.monotonic() - begun > _PATIENCE * job["seconds"] / self._share:
                raise Paused

        found = designer.search_for(
            subject, budget=room, numerics=job["numerics"], seed=job["seed"], progress=between,
            final_seconds=_FINAL_SECONDS, beside=_beside(job), crew=self._crew_for(subject),
            deeper=bool(job.get("deeper")),
        )  # fmt: skip
        pace.rest()
        paused = found.result is not None and found.result.stopped == "interrupted"
        counts = {"seconds": pace.worked, "trials": found.trials, "compiles": found.compiles}
        if paused:
            return {"status": "paused", **counts}
        _build(subject, found.design)  # found on disk when it is loaded
        return {"status": "found", "record": found.record.to_dict(), **counts}

    def _verify(self, job: dict[str, Any]) -> dict[str, Any]:
        subject, design, begun = subject_of(job), Design.from_json(job["design"]), time.monotonic()
        with TrialRunner(subject, seed=job["seed"], crew=self._crew_for(subject)) as runner:
            (outcome,) = runner.evaluate([design])
        wrong = outcome.status in designer.FAILURES
        if wrong:
            open_book().quarantine(subject.key(numerics=job["numerics"]), design, outcome.status, outcome.reason)
        seconds = time.monotonic() - begun
        return {"status": "wrong" if wrong else "right", "reason": outcome.reason, "seconds": seconds}

    def _crew_for(self, subject: Subject) -> Crew | None:
        """The processes that are kept for a GPU: they take seconds to start, and longer to meet the driver."""
        return None if subject.machine.is_cpu else self._crew


def _has_gpu() -> bool:
    """Whether this host has a GPU that kernels may have to be designed for."""
    try:
        return bool(nvidia.devices())
    except MachineError:
        return False


def _beside(job: dict[str, Any]) -> Design | None:
    """The design of the generic kernel, where a job names it."""
    return Design.from_json(job["beside"]) if "beside" in job else None


def _nothing_to_see(subject: Subject, job: dict[str, Any]) -> bool:
    """Whether the default design of a subject is the generic kernel's, or may not take its place."""
    default, generic = default_design(subject.kernel, subject.facts), _beside(job)
    if generic is None:
        return False
    return default == generic or (job["numerics"] == "pinned" and bool(differs(subject.kernel, default, generic)))


def _searched(subject: Subject, job: dict[str, Any]) -> bool:
    """Whether the book holds what was found by as many trials as are asked for."""
    key, book = subject.key(numerics=job["numerics"]), open_book()
    known = [m for m in book.measurements(key) if m.versions == versions() and m.seed == job["seed"]]
    return book.get(key) is not None and sum(m.run == known[-1].run for m in known) >= job["trials"]


def _build(subject: Subject, design: Design) -> None:
    if subject.machine.is_cpu:
        build(subject.request(design), subject.machine)
    else:
        from tilewright.build.cuda_kernel import build_cuda

        build_cuda(subject.request(design), subject.machine)


def _leave_cores_to(threads: int) -> None:
    """Stay on the last cores, where the program's threads leave some free and these are enough to try kernels on."""
    if hasattr(os, "sched_setaffinity"):
        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, cores[-max(threads, len(cores) - threads) :])


if __name__ == "__main__":
    child.serve(Worker().answer)


__all__ = ["Paused", "Worker", "subject_of"]
