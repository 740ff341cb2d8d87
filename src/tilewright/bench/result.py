"""One line of a results file."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True)
class Result:
    """What one case gave at one thread count.

    `metrics` are the numbers that floors and tables read (units are in their names or in `table.py`), `raw` holds
    the samples behind them, `error` says why there are none. `run` is the number of the run that measured it, in a
    results file that holds several.
    """

    family: str
    name: str
    threads: int
    metrics: dict[str, float] = field(default_factory=dict)
    raw: dict[str, Any] = field(default_factory=dict)
    error: str | None = None
    run: int = 0

    @property
    def key(self) -> tuple[str, str, int]:
        """What a later measurement of the same thing has too."""
        return self.family, self.name, self.threads

    def to_json(self) -> dict[str, Any]:
        """Plain data, without the fields that are empty."""
        return {key: value for key, value in asdict(self).items() if value not in (None, {})}

    @staticmethod
    def from_json(data: dict[str, Any]) -> Result:
        """The result that `to_json` wrote; TypeError for an unknown field."""
        return Result(**data)


def rounded(values: dict[str, float]) -> dict[str, float]:
    """The same numbers with five digits: more would pretend."""
    return {name: float(f"{value:.5g}") for name, value in values.items()}
