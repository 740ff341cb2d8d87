"""How much a search may take and what it is for, as people write it: "60s", "16 trials", "target 50us"."""

from __future__ import annotations

import re

from tilewright.design.trial import Budget, Objective
from tilewright.errors import ArgumentError

_UNITS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0}
_NUMBER = r"(\d+(?:\.\d+)?)\s*"


def parse_budget(text: str | Budget) -> Budget:
    """The budget "60s", "2m", "16 trials", or "60s, 100 trials": whichever is used up first. Raises ArgumentError."""
    if isinstance(text, Budget):
        return text
    if not isinstance(text, str):
        raise ArgumentError(f'budget={text!r} is no text; write "60s", "16 trials" or "60s, 100 trials"')
    seconds, trials = None, None
    for part in filter(None, (p.strip() for p in text.lower().split(","))):
        if found := re.fullmatch(r"(\d+)\s*trials?", part):
            trials = int(found[1])
        else:
            seconds = _seconds(
                part, f'budget={text!r} is not understood; write "60s", "16 trials" or "60s, 100 trials"'
            )
    if (seconds is None and trials is None) or seconds == 0 or trials == 0:
        raise ArgumentError(f'budget={text!r} leaves no room for a trial; write "60s" or "16 trials"')
    return Budget(seconds, trials)


def parse_objective(objective: str | Objective, target: str | float | None = None) -> Objective:
    """The objective "latency" or "throughput"; with a `target` ("50us", or seconds) any design that meets it.

    Raises ArgumentError.
    """
    if isinstance(objective, Objective):
        return objective
    if target is not None:
        seconds = target if isinstance(target, (int, float)) else _seconds(target, f'target={target!r}: write "50us"')
        return Objective("target", float(seconds))
    if objective not in ("latency", "throughput"):
        raise ArgumentError(f"objective={objective!r} is unknown; it is latency or throughput, or give a target")
    return Objective("latency" if objective == "latency" else "throughput")


def _seconds(text: object, problem: str) -> float:
    found = isinstance(text, str) and re.fullmatch(_NUMBER + "(" + "|".join(_UNITS) + ")", text.strip().lower())
    if not found:
        raise ArgumentError(problem)
    return float(found[1]) * _UNITS[found[2]]


__all__ = ["parse_budget", "parse_objective"]
