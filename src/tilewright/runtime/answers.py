"""What the answers of a process that tries designs come to: outcomes of single designs, standings beside the first."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping
from typing import Any

from tilewright.design.design import Design
from tilewright.design.trial import Outcome, Standing, Status

KEPT = 32
"""Samples of a candidate that are kept."""


def standing(design: Design, seen: Mapping[str, Any], first: str) -> Standing:
    """The standing of a design that was measured beside the first; infinitely slow if it failed then."""
    text = design.to_json()
    if text in seen["wrong"]:
        return Standing(design, math.inf, math.inf, math.inf, math.inf, seen["noise"])
    unit = statistics.median(seen["samples"][first])
    median, low, high = seen["ratios"][text]
    return Standing(design, unit * median, median, low, high, seen["noise"])


def by_itself(design: Design, found: Outcome, first: Outcome) -> Standing:
    """The standing of a design that was not measured beside the others; infinitely slow if it failed."""
    if found.seconds is None:
        return Standing(design, math.inf, math.inf, math.inf, math.inf, 0.0)
    ratio = found.seconds / first.seconds if first.seconds else 1.0
    return Standing(design, found.seconds, ratio, ratio, ratio, found.noise)


def failure(answer: Mapping[str, Any]) -> Outcome | None:
    """The outcome that a worker's answer is; None for one that is well."""
    if "error" in answer:
        return Outcome("crash", reason=str(answer["error"]))
    status: Status = answer["status"]
    return None if status == "ok" else Outcome(status, reason=answer["reason"])


def outcome(text: str, seen: Mapping[str, Any], unit: float) -> Outcome:
    """What was measured of a design, in seconds of a first one that takes `unit`."""
    if text in seen["wrong"]:
        return Outcome("wrong", reason=seen["wrong"][text])
    dropped = "slower than the best so far at first sight" if text in seen["dropped"] else ""
    seconds = unit * seen["undisturbed"][text]
    return Outcome("ok", seconds, tuple(seen["samples"][text][:KEPT]), seen["noise"], dropped)


__all__ = ["by_itself", "failure", "outcome", "standing"]
