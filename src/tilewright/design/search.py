"""Search: which designs are tried, in which order, and which of them is chosen."""

from __future__ import annotations

from tilewright.design.trial import (
    Budget,
    Evaluator,
    Objective,
    Outcome,
    Progress,
    Result,
    Standing,
    Trial,
)

__all__ = ["Budget", "Evaluator", "Objective", "Outcome", "Progress", "Result", "Standing", "Trial"]
