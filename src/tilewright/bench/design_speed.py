"""Designed kernels beside torch and torch.compile: each is searched for, then timed against its peer."""

from __future__ import annotations

from collections.abc import Iterator

from tilewright.bench.design_cases import DesignCase
from tilewright.bench.designed import Beside, beside
from tilewright.bench.result import Result, rounded
from tilewright.bench.vendor import compiles
from tilewright.design.book.store import Book
from tilewright.errors import ArgumentError, TilewrightError
from tilewright.runtime.designer import search
from tilewright.runtime.subject import Subject
from tilewright.runtime.work import work_of

SECONDS = 1.0
"""Of each comparison."""


def speed_results(cases: list[DesignCase], threads: int, budget: str, book: Book) -> Iterator[Result]:
    """A result for each case; one that fails says why."""
    for case in cases:
        try:
            yield speed_result(case, threads, budget, book)
        except TilewrightError as error:
            yield Result(case.family, case.name, threads, error=f"{type(error).__name__}: {error}")


def speed_result(case: DesignCase, threads: int, budget: str, book: Book) -> Result:
    """Design the case within `budget`, then time the winner beside the peer. VerificationError for a wrong result."""
    if case.peer == "torch.compile" and not compiles():
        raise ArgumentError("torch.compile finds no C++ compiler; install g++")
    record = search(**case.arguments, budget=budget, threads=threads, book=book, again=True)
    subject = Subject.of(case.operator, dict(case.sizes), case.dtype, threads=threads)
    found = beside(subject, record.design, seconds=SECONDS, peer=case.peer)
    if found is None:
        raise ArgumentError(f"{case.name} has no expression in {case.peer} to compare with")
    raw = {
        **found.comparison.to_json(),
        "operand_sets": found.sets,
        "design": record.design.to_json(),
        "budget": budget,
    }
    gained = {"over_default": record.default_seconds / record.seconds}
    return Result(case.family, case.name, threads, rounded({**metrics(subject, found), **gained}), raw)


def metrics(subject: Subject, found: Beside) -> dict[str, float]:
    """Microseconds, rates, and the ratio to the peer with its interval."""
    work = work_of(subject.kernel, subject.sizes)
    ours, peer = found.seconds * 1e9, found.peer_seconds * 1e9
    return {
        "us": ours / 1e3,
        "peer_us": peer / 1e3,
        "gflops": work.flops / ours,
        "peer_gflops": work.flops / peer,
        "gbs": work.bytes / ours,
        "peer_gbs": work.bytes / peer,
        "ratio": found.ratio.median,
        "ratio_low": found.ratio.low,
        "ratio_high": found.ratio.high,
        "noise": found.noise,
        "error_over_bound": found.error,
    }
