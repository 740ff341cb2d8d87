"""Records: what compiled code needs to run a call that is like an earlier one (`call_ir`), laid out as words."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from tilewright.runtime import form

if TYPE_CHECKING:
    from tilewright.runtime.rebind import Rebound

Recorded = tuple[int, tuple[Any, ...]]
"""The address of a record, and what has to live as long as it."""

Part = tuple[list[int], tuple[Any, ...]]
"""Words of a record, and what they refer to."""


def recorded(call: Rebound) -> Recorded | None:
    """The record of a call; None where Python has to run it: each of its launches must know how to be in a record."""
    makers = [(getattr(launch, "record", None), sources) for launch, sources in call.parts]
    if not form.compiled() or call.low_bits or not all(make for make, _ in makers):
        return None
    launches: list[Part] = [part for make, sources in makers if make for part in make(sources)]
    counts = (len(call.apart), len(call.fresh), len(call.results), len(launches), int(call.several))
    words = [*counts, *(n for pair in call.apart for n in pair)]
    words += [id(x) for fresh in call.fresh for x in fresh]
    words += call.results
    for part, _ in launches:
        words += part
    memory = (ctypes.c_int64 * len(words))(*words)
    return ctypes.addressof(memory), (memory, call, *(kept for _, kept in launches))


def launch_words(
    entry: Sequence[int],
    move: int,
    again: Any,
    sources: Sequence[tuple[int, int, int]],
    maps: Sequence[tuple[int, int, int]],
) -> list[int]:
    """The words of a launch: `entry` is the driver's function and its first three arguments, see `call_ir`."""
    head = [*entry, move, id(again), len(sources), len(maps)]
    return [*head, *(n for source in sources for n in source), *(n for m in maps for n in m)]


__all__ = ["Part", "Recorded", "launch_words", "recorded"]
