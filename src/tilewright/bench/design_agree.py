"""Two searches of each key by seeds of their own, and the same key asked for again."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from tilewright.bench.design_cases import DesignCase
from tilewright.bench.result import Result, rounded
from tilewright.design.book.store import Book
from tilewright.errors import TilewrightError
from tilewright.runtime.designer import Designed, search


def agree_results(cases: Sequence[DesignCase], threads: int, budget: str) -> Iterator[Result]:
    """A result for each key."""
    for case in cases:
        try:
            yield agree_result(case, threads, budget)
        except TilewrightError as error:
            yield Result(case.family, case.name, threads, error=f"{type(error).__name__}: {error}")


def agree_result(case: DesignCase, threads: int, budget: str) -> Result:
    """A key searched twice, in books that know nothing of each other, and once more in the first."""
    with tempfile.TemporaryDirectory(prefix="tilewright-bench-") as folder:
        books = [Book.open(Path(folder) / f"{n}.sqlite") for n in range(2)]
        found: list[Designed] = []
        for seed, book in enumerate(books):
            found.append(search(**case.arguments, budget=budget, threads=threads, seed=seed, book=book))
        begun = time.perf_counter()
        again = search(**case.arguments, budget=budget, threads=threads, book=books[0])
        spent = time.perf_counter() - begun
    one, two = found
    assert again.design == one.design
    values = {
        "same": float(one.design == two.design),
        "us": one.seconds * 1e6,
        "over_default": one.speedup,
        "trials_again": again.trials,
        "compiles_again": again.compiles,
        "again_ms": spent * 1e3,
    }
    raw = {"budget": budget, "designs": [d.design.to_json() for d in found], "seconds": [d.seconds for d in found]}
    return Result(case.family, case.name, threads, rounded(values), raw)
