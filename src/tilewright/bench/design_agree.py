"""Two searches of each key by seeds of their own, and the same key asked for again."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tilewright.bench.design_cases import DesignCase
from tilewright.bench.result import Result, rounded
from tilewright.design.book.store import Book
from tilewright.design.design import Design
from tilewright.errors import TilewrightError
from tilewright.runtime.designer import search

NAME = "two searches of each key"


def agree_results(cases: Sequence[DesignCase], threads: int, budget: str) -> Iterator[Result]:
    """One result over all keys."""
    try:
        yield agree_result(cases, threads, budget)
    except TilewrightError as error:
        yield Result("design_agree", NAME, threads, error=f"{type(error).__name__}: {error}")


def agree_result(cases: Sequence[DesignCase], threads: int, budget: str) -> Result:
    """Each key searched twice, in books that know nothing of each other, and once more in the first."""
    with tempfile.TemporaryDirectory(prefix="tilewright-bench-") as folder:
        books = [Book.open(Path(folder) / f"{n}.sqlite") for n in range(2)]
        keys = [_key(case, threads, budget, books) for case in cases]
    values = {
        "keys": len(keys),
        "same": sum(k["designs"][0] == k["designs"][1] for k in keys) / len(keys),
        "trials_again": sum(k["trials_again"] for k in keys),
        "compiles_again": sum(k["compiles_again"] for k in keys),
        "again_ms": max(k["again_ms"] for k in keys),
        "again_ms_median": statistics.median(k["again_ms"] for k in keys),
    }
    return Result("design_agree", NAME, threads, rounded(values), {"budget": budget, "keys": keys})


def _key(case: DesignCase, threads: int, budget: str, books: Sequence[Book]) -> dict[str, Any]:
    found: list[Design] = []
    for seed, book in enumerate(books):
        record = search(**case.arguments, budget=budget, threads=threads, seed=seed, book=book)
        found.append(record.design)
    begun = time.perf_counter()
    again = search(**case.arguments, budget=budget, threads=threads, book=books[0])
    spent = time.perf_counter() - begun
    assert again.design == found[0]
    return {
        "name": case.name,
        "designs": [d.to_json() for d in found],
        "trials_again": again.trials,
        "compiles_again": again.compiles,
        "again_ms": spent * 1e3,
    }
