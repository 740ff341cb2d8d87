"""Axes while C++ is emitted: where their ranges begin and end, and what is known of them beforehand."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

from tilewright.emit.cuda_text import cname
from tilewright.language import ir


@dataclass(frozen=True)
class Range:
    """The positions that an axis covers now, as C++ expressions, and what holds at every visit.

    `size`: how many there are, if always so many. `grain`: a power of two that divides their number (a short tile's
    too). `align`: every `start` is a multiple of it (0: it is 0). `low`, `high`: the ends of the loop, for conditions.
    """

    start: str
    stop: str
    size: int | None = None
    grain: int = 1
    align: int = 0
    point: bool = False
    step: int | None = None
    low: str = "0"
    high: str = ""


class Scope:
    """The ranges of axes and dims that the code being written can see."""

    def __init__(self, kernel: ir.Kernel, sizes: Mapping[str, int]) -> None:
        self.axes = {a.name: a for s in ir.walk(kernel.body) if isinstance(s, ir.Loop) for a in s.axes}
        self.dims = frozenset(kernel.dims)
        self.ranges: dict[str, Range] = {d: _dim(d, sizes.get(d)) for d in kernel.dims}

    def __getitem__(self, name: str) -> Range:
        return self.ranges[name]

    def bounds(self, axis: ir.Axis, scalar: Mapping[str, str] | None = None) -> tuple[str, str]:
        """First position of a loop and the one after its last, as C++; `scalar` spells values that bound it."""
        parent = self.ranges[axis.over]
        low, high = parent.start, parent.stop
        if axis.start is not None:
            low = _larger(low, self._bound(axis.start, scalar))
        if axis.stop is not None:
            high = f"min({self._bound(axis.stop, scalar)}, {high})"
        return low, high

    def enter(self, axis: ir.Axis, at: str, low: str, high: str) -> Range:
        """The tile of `axis` that begins at the C++ expression `at`, of a loop from `low` to `high`."""
        parent = self.ranges[axis.over]
        step = 1 if axis.each else axis.step or 1
        loose = axis.start is not None or axis.stop is not None
        whole = step == 1 or (not loose and parent.size is not None and parent.size % step == 0)
        grain = (
            1 if loose and axis.stop is not None else math.gcd(parent.size or parent.grain, step) if not loose else 1
        )
        align = 1 if axis.start is not None else math.gcd(parent.align, step)
        if isinstance(axis.start, int):
            align = math.gcd(parent.align, step, axis.start)
        stop = f"{at} + {step}" if whole else high
        self.ranges[axis.name] = Range(
            at, stop, step if whole else None, _power(grain), align, axis.each, step, low, high
        )
        return self.ranges[axis.name]

    def open(self, name: str) -> None:
        """A tile of an axis may be short, or missing, though the axis is cut in whole tiles."""
        now = self.ranges[name]
        self.ranges[name] = replace(now, size=None, stop=now.high)

    def fill(self, name: str) -> None:
        """A tile of an axis is whole, though others of that axis may not be."""
        now = self.ranges[name]
        if now.step is not None:
            self.ranges[name] = replace(now, size=now.step, stop=f"{now.start} + {now.step}", grain=_power(now.step))

    def enter_part(self, axis: ir.Axis, at: str) -> Range:
        """The part of a dim that begins at `at`, of those of equal length, and the last one shorter."""
        parent, step = self.ranges[axis.over], axis.step or 1
        whole = parent.size is not None and parent.size % step == 0
        stop = f"{at} + {step}" if whole else f"min({at} + {step}, {parent.stop})"
        grain = math.gcd(parent.size or parent.grain, step)
        self.ranges[axis.name] = Range(
            at, stop, step if whole else None, _power(grain), math.gcd(parent.align, step), step=step, high=parent.stop
        )
        return self.ranges[axis.name]

    def _bound(self, bound: str | int, scalar: Mapping[str, str] | None) -> str:
        if isinstance(bound, int):
            return str(bound)
        if scalar and bound in scalar:
            return f"(int){scalar[bound]}"
        return self.ranges[bound].stop if bound in self.ranges else f"(int){cname(bound)}"


def _dim(name: str, size: int | None) -> Range:
    if size is None:
        return Range("0", cname(name), high=cname(name))
    return Range("0", str(size), size, _power(size), high=str(size))


def _power(n: int) -> int:
    """The largest power of two that divides n (1024 for 0)."""
    return n & -n if n else 1024


def _larger(a: str, b: str) -> str:
    return a if b == "0" else b if a == "0" and b.isdigit() else f"max({a}, {b})"


__all__ = ["Range", "Scope"]
