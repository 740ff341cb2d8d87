"""The roof of a memory-bound case: the machine's own streams, timed in the same rounds as the case.

The memory of a virtual machine can be twice as fast in one minute as in the next. A share of bandwidth is
therefore never taken against a rate of another time: the streams are further candidates of the comparison, and
the share is the median over rounds of (rate of the case / rate of the stream).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from tilewright.bench.cases import OURS
from tilewright.machines.bandwidth import OPERATIONS, probe
from tilewright.machines.machine import Machine
from tilewright.runtime.measure import Comparison, Ratio

if TYPE_CHECKING:
    from tilewright.machines._streaming import Stream

Roof = Mapping[str, "Stream"]
"""Streams by operation: `read`, `copy`, `copy_nontemporal`."""


@contextmanager
def open_roof(threads: int, operations: tuple[str, ...] = OPERATIONS) -> Iterator[Roof]:
    """The best streams of this machine with `threads` threads; opening takes some seconds and half a GiB at most."""
    with probe(Machine.detect(), threads) as opened:
        yield {operation: opened.stream(operation) for operation in operations}


def share(comparison: Comparison, moved: int, operation: str, stream: Stream) -> Ratio:
    """(Our bytes a second) / (the stream's), paired by round, where one of our samples moves `moved` bytes."""
    times, scale = comparison.ratio(operation, to=OURS), moved / stream.bytes
    return Ratio(times.median * scale, times.low * scale, times.high * scale, times.confidence)


def shares(comparison: Comparison, moved: int, roof: Roof) -> dict[str, float]:
    """What a comparison with the streams of `roof` tells: empty without any.

    `bandwidth` (with `_low` and `_high`) is the share of the fastest stream, whose rate is `roof_gbs`; `of_copy` that
    of the plain copy, where one took part.
    """
    if not roof:
        return {}
    rates = {operation: stream.bytes / comparison.median_ns(operation) for operation, stream in roof.items()}
    best = max(rates, key=rates.__getitem__)
    found = {"roof_gbs": rates[best], **_interval("bandwidth", share(comparison, moved, best, roof[best]))}
    if "copy" in roof:
        found |= _interval("of_copy", share(comparison, moved, "copy", roof["copy"]))
    return found


def _interval(name: str, ratio: Ratio) -> dict[str, float]:
    return {name: ratio.median, f"{name}_low": ratio.low, f"{name}_high": ratio.high}


def described(roof: Roof) -> dict[str, Any]:
    """The streams as plain data: what one sample moved, and by which kernel."""
    return {operation: {"bytes": s.bytes, "kernel": asdict(s.kernel)} for operation, s in roof.items()}
