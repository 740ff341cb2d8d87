"""Floors: the file that says what the bench must reach, and the check of results against it."""

from __future__ import annotations

import math
import tomllib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tilewright.bench.result import Result
from tilewright.errors import ArgumentError

_MEANS = {"geomean": "geometric mean", "mean": "mean"}


@dataclass(frozen=True)
class Floor:
    """A bound on `metric` for the cases of `family` whose name contains `name`.

    `over` is `each` (every case on its own), `geomean` or `mean` (the mean of either kind at each thread count).
    """

    family: str
    metric: str
    min: float = -math.inf
    max: float = math.inf
    over: str = "each"
    name: str = ""

    def __post_init__(self) -> None:
        if self.over not in ("each", *_MEANS):
            raise ArgumentError(f"floor of {self.family}: over={self.over!r}; write each, geomean or mean")
        if math.isinf(self.min) == math.isinf(self.max):
            raise ArgumentError(f"floor of {self.family} {self.metric}: give either min or max")

    def holds_for(self, result: Result) -> bool:
        """Whether `result` is one of the cases that this floor bounds."""
        return result.family == self.family and self.name in result.name

    def misses(self, results: Sequence[Result]) -> list[str]:
        """One line for each value outside the bound; a result without the metric is outside it."""
        mine = [r for r in results if self.holds_for(r)]
        if self.over == "each":
            values = [(f"{r.name}, threads {r.threads}", r.metrics.get(self.metric, math.nan)) for r in mine]
        else:
            title = f"{self.family} {_MEANS[self.over]}"
            values = [(f"{title}, threads {n}", self._mean(rs)) for n, rs in _by_threads(mine)]
        return [self._line(label, value) for label, value in values if not self.min <= value <= self.max]

    def _mean(self, results: Sequence[Result]) -> float:
        values = [r.metrics.get(self.metric, math.nan) for r in results]
        if self.over == "mean":
            return math.fsum(values) / len(values)
        return math.exp(math.fsum(map(math.log, values)) / len(values))

    def _line(self, label: str, value: float) -> str:
        bound = f"at least {self.min:g}" if math.isinf(self.max) else f"at most {self.max:g}"
        return f"{label}: {self.metric} is {value:.3g}, the floor is {bound}"


def _by_threads(results: Iterable[Result]) -> list[tuple[int, list[Result]]]:
    groups: dict[int, list[Result]] = {}
    for result in results:
        groups.setdefault(result.threads, []).append(result)
    return sorted(groups.items())


def read_floors(path: Path) -> list[Floor]:
    """The floors of a TOML file; ArgumentError, naming the file, for what is no floor."""
    try:
        entries = tomllib.loads(path.read_text(encoding="utf-8")).get("floor", [])
        return [Floor(**entry) for entry in entries]
    except (OSError, tomllib.TOMLDecodeError, TypeError, AttributeError) as error:
        raise ArgumentError(f"{path}: {error}; each floor is a [[floor]] with family, metric and min or max") from None


def missed(results: Sequence[Result], floors: Sequence[Floor]) -> list[str]:
    """One line for every floor that `results` miss, and for every case that failed to run."""
    failures = [f"{r.name}, threads {r.threads}: {r.error}" for r in results if r.error]
    ran = [r for r in results if not r.error]
    return failures + [line for floor in floors for line in floor.misses(ran)]
