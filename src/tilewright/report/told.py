"""What a search found, in three lines for people and as plain data for programs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from tilewright.report.canvas import duration
from tilewright.report.words import ENDED, choice_words
from tilewright.runtime.designer import Designed

_FOUND = {"book": "from the book: no trials, nothing compiled", "hint": "a design known from elsewhere, verified here"}


def interrupted(found: Designed) -> bool:
    """Whether the search was cut off, and can be gone on with."""
    return found.result is not None and found.result.stopped == "interrupted"


def summary(found: Designed) -> dict[str, Any]:
    """Plain data: what was designed, for what, how fast it is, and what it took."""
    record = found.record
    return {
        "operator": found.key.operator,
        "sizes": dict(found.sizes),
        "dtypes": dict(found.dtype),
        "threads": found.key.threads,
        "found": found.found,
        "seconds": record.seconds,
        "default_seconds": record.default_seconds,
        "speedup": record.speedup,
        "noise": record.noise,
        "cache": found.cache,
        "kept": found.kept,
        "trials": found.trials,
        "compiles": found.compiles,
        "seconds_taken": round(found.seconds_taken, 3),
        "stopped": None if found.result is None else found.result.stopped,
        "design": json.loads(found.design.to_json()),
        "hash": found.design.hash,
        "key": found.key.hash,
    }


def told(found: Designed, order: Sequence[str] = ()) -> str:
    """The time, the design, and where it comes from; sizes in this order."""
    record = found.record
    sizes = " ".join(f"{d}={found.sizes[d]}" for d in order or found.sizes)
    stopped = ENDED[found.result.stopped] if found.result is not None else "without a search"
    searched = f"{found.trials} trials in {found.seconds_taken:.0f} s, {stopped}"
    evidence = f"the evidence: tilewright book explain {found.key.hash[:12]}"
    if not found.kept:
        evidence = "nothing of it is kept: the book is not on disk"
    return "\n".join(
        [
            f"{found.key.operator} {sizes}: {duration(record.seconds)} a call, {record.speedup:.2f}x the default "
            f"design ({duration(record.default_seconds)})",
            "  " + "  ".join(f"{name}={choice_words(choice)}" for name, choice in found.design.decisions),
            f"  {_FOUND.get(found.found, searched)}; {evidence}",
        ]
    )
