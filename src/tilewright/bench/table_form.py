"""What a table of the README is: the families whose results it holds, and how its columns show their metrics."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

Metrics = dict[str, float]
Column = tuple[str, Callable[[Metrics], str]]


def number(key: str, places: int = 0) -> Callable[[Metrics], str]:
    """A metric as it is, with thousands set apart."""
    return lambda m: f"{m[key]:,.{places}f}"


def percent(key: str) -> Callable[[Metrics], str]:
    """A share of one in percent."""
    return lambda m: f"{100 * m[key]:.0f}%"


def share(key: str) -> Callable[[Metrics], str]:
    """A share with its interval; blank where no stream was timed."""

    def show(m: Metrics) -> str:
        interval = [f"{100 * m[end]:.0f}" for end in (f"{key}_low", f"{key}_high") if end in m]
        return (f"{100 * m[key]:.0f}%" + (f" [{', '.join(interval)}]" if interval else "")) if key in m else ""

    return show


def ratio(m: Metrics) -> str:
    """How many times as fast as the peer, with its interval."""
    return f"{m['ratio']:.2f}x [{m['ratio_low']:.2f}, {m['ratio_high']:.2f}]"


def times(key: str) -> Callable[[Metrics], str]:
    """How many times as fast, with its interval if it has one; blank where that was not measured."""

    def show(m: Metrics) -> str:
        interval = [f"{m[end]:.2f}" for end in (f"{key}_low", f"{key}_high") if end in m]
        return (f"{m[key]:.2f}x" + (f" [{', '.join(interval)}]" if interval else "")) if key in m else ""

    return show


def maybe(key: str, places: int) -> Callable[[Metrics], str]:
    """A metric as it is; blank where it was not measured."""
    return lambda m: f"{m[key]:,.{places}f}" if key in m else ""


@dataclass(frozen=True)
class Table:
    """One table: the families whose results it holds, its columns after `case` and `threads`, and its bench."""

    title: str
    families: tuple[str, ...]
    columns: tuple[Column, ...]
    geomean: bool = False
    kind: str = "cpu"

    @property
    def compares(self) -> bool:
        """Whether it has a column of ratios with their intervals."""
        return any(show is ratio for _, show in self.columns)


__all__ = ["Column", "Metrics", "Table", "maybe", "number", "percent", "ratio", "share", "times"]
