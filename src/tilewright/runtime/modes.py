"""Modes: what a process may do beside answering calls; and what it had to compile, which frozen mode never wants.

learn: shapes are counted, triggers fire, kernels are designed and swapped in. frozen: what the book holds is used, and
nothing is compiled ahead, searched or written; a generic kernel that no cache holds is compiled in memory, because
calls must be answered, and is counted as a miss. generic: the generic kernels only.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass

from tilewright.errors import CacheWarning
from tilewright.knobs import knobs
from tilewright.runtime.monitor import Counter


@dataclass(frozen=True)
class Counts:
    """Kernels that this process compiled, found on disk, and compiled although it is frozen; seconds of compiling."""

    compiles: int
    loads: int
    frozen_compiles: int
    compile_seconds: float = 0.0


_learned = False
_seconds: list[float] = []  # appended to by several threads
_compiles, _loads, _frozen = Counter(), Counter(), Counter()


def may_learn() -> bool:
    """Whether kernels may be searched for and the book may be written."""
    return knobs().mode == "learn"


def learning_begins() -> None:
    """Note that a learner is at work: from now on generic kernels of GPUs are those that answer every length."""
    global _learned
    _learned = True


def has_learned() -> bool:
    """Whether a learner was ever at work in this process."""
    return _learned


def count(seconds: float) -> None:
    """Note a kernel that took so long to compile, or 0 for one that was found on disk."""
    compiled = seconds > 0
    (_compiles if compiled else _loads).add()
    if compiled:
        _seconds.append(seconds)
    if compiled and knobs().mode == "frozen" and not _frozen.add():
        warnings.warn(
            "TILEWRIGHT_MODE=frozen, but a kernel that is needed is not in the cache folder; it was compiled and not "
            "kept. Run once in learn mode with the same shapes",
            CacheWarning,
            stacklevel=3,
        )


def counts() -> Counts:
    """What was counted so far in this process."""
    return Counts(_compiles.value, _loads.value, _frozen.value, compile_seconds())


def compile_seconds() -> float:
    """Seconds that this process has spent compiling kernels, on whatever thread."""
    return sum(_seconds)


__all__ = ["Counts", "compile_seconds", "count", "counts", "has_learned", "learning_begins", "may_learn"]
