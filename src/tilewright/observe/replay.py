"""Replaying: the calls of a trace run again on operands made up, each as often as it was counted."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

from tilewright.errors import ArgumentError, LanguageError, MachineError, TraceError
from tilewright.observe.place import Place, place
from tilewright.observe.trace import Call, Trace
from tilewright.operators import OPERATORS
from tilewright.ops.backend import bind
from tilewright.runtime.inputs import draw
from tilewright.runtime.subject import Subject


@dataclass(frozen=True)
class Replayed:
    """A call of a trace, replayed: seconds of its first run (with whatever had to be compiled), and of a later one.

    On a GPU a run has ended when its host knows; calls run where they were recorded.
    """

    call: Call
    runs: int
    first_seconds: float
    seconds: float

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        return {**asdict(self), "call": self.call.to_dict()}


def replay(trace: Trace, *, most: int | None = None, seed: int = 0) -> Iterator[Replayed]:
    """Run each call as often as it was counted (`most` times at most), on operands drawn by `seed`.

    TraceError for a call that no operator of this version takes, before anything runs.
    """
    subjects = [_subject(call) for call in trace.calls]
    for call, subject in zip(trace.calls, subjects, strict=True):
        if subject is not None:
            yield _replayed(call, subject, call.count if most is None else min(call.count, most), seed)


def _subject(call: Call) -> Subject | None:
    """What is called; None where there is nothing to compute."""
    operator = OPERATORS.get(call.operator)
    if operator is None:
        raise TraceError(f"no operator is called {call.operator!r}; there are {', '.join(OPERATORS)}")
    if any(n == 0 for _, n in call.sizes):
        return None
    try:
        machine = place(call.device).machine
        return Subject.of(operator, dict(call.sizes), dict(call.dtypes), options=dict(call.options), machine=machine)
    except MachineError as error:
        raise TraceError(f"{call.operator} ran on {call.device}, which is not here: {error}") from None
    except (ArgumentError, LanguageError, TypeError, KeyError) as error:
        raise TraceError(f"{call.operator}: this version does not take such a call ({error})") from None


def _replayed(call: Call, subject: Subject, runs: int, seed: int) -> Replayed:
    operands, there = draw(subject.kernel, subject.sizes, seed=seed, updates=subject.updates), place(call.device)
    buffers = there.buffers(operands.tensors)
    begun = time.perf_counter()
    launch = bind(OPERATORS[call.operator], buffers, operands.scalars, dict(call.options))
    there.run(launch)
    first = time.perf_counter() - begun
    later = [_seconds(there, launch) for _ in range(max(runs - 1, 1))]
    return Replayed(call, runs, first, statistics.median(later))


def _seconds(there: Place, launch: Callable[[], None]) -> float:
    begun = time.perf_counter()
    there.run(launch)
    return time.perf_counter() - begun


__all__ = ["Replayed", "replay"]
