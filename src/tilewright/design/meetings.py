"""Meetings: designs timed side by side, some of them again and again, and what all of it says together.

Two processes tell the ratio of two kernels differently, by as much as 3%, however surely each tells it: what a kernel
owes to the places of its code, stack and workspace stays with the process. So one meeting is one sample, whatever its
own interval, and an interval that means something comes of how meetings differ.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from tilewright.design.design import Design
from tilewright.design.trial import Standing

_TURNS = 40  # of the fit; designs and meetings by turns
_PRIOR = 4.0  # observations that the expected spread counts for beside the seen one
_LEAST = 1e-4  # no meeting tells a ratio more closely
_LENT = 0.25  # of what a machine lends to others in a meeting so much is taken from some designs and not from others
_FAR = 2.0  # what lies farther from the fit than so many times its spread counts less, by as much


@dataclass
class _Seen:
    """A design in a meeting: the logarithm of its ratio, and the variance that this is expected to have."""

    meeting: int
    design: Design
    log: float
    variance: float
    weight: float


def together(meetings: Sequence[Sequence[Standing]], apart: float) -> list[Standing]:
    """One standing for each design, its ratio to the first of the first meeting, the fastest first.

    `apart` is the standard deviation of a design's ratio from meeting to meeting, of which its own interval knows
    nothing. Each meeting may favour all of its designs or none: what is fitted is a time for each design and one
    factor for each meeting; those count most in which the machine was fastest. `low` and `high` are two standard
    errors from the ratio, by the spread that is expected and the one that is seen, and `noise` is how far that is;
    with nothing `apart` both are as the meetings tell them. A design that failed in a meeting is infinitely slow.
    """
    fastest = min(met[0].seconds for met in meetings)
    failed = {s.design for met in meetings for s in met if not math.isfinite(s.ratio)}
    seen = [
        _Seen(n, s.design, math.log(s.ratio), v, 1.0 / v)
        for n, met in enumerate(meetings)
        for s in met
        if s.design not in failed and (v := _variance(s, apart, math.log(met[0].seconds / fastest)))
    ]
    logs = _fitted(seen, bool(apart))
    scale = _scale(seen, logs) if apart else 1.0
    first = logs.get((None, meetings[0][0].design), 0.0)
    unit = statistics.median(met[0].seconds for met in meetings)
    found = {s.design: s for met in meetings for s in met}
    noise = {d: min(s.noise for met in meetings for s in met if s.design == d) for d in found}
    standings = []
    for design in found:
        if design in failed:
            standings.append(Standing(design, math.inf, math.inf, math.inf, math.inf, noise[design]))
            continue
        ratio = math.exp(logs[None, design] - first)
        reach = math.exp(2.0 * scale / math.sqrt(sum(x.weight for x in seen if x.design == design)))
        left = reach - 1.0 if apart else noise[design]
        standings.append(Standing(design, unit * ratio, ratio, ratio / reach, ratio * reach, left))
    return standings


def _variance(standing: Standing, apart: float, slower: float) -> float:
    """Of the logarithm of a ratio, told in a meeting in which the first design took so much longer than it can."""
    width = max(_LEAST, math.log(standing.high / standing.low) / 4.0)
    return width**2 + (apart**2 + (_LENT * slower) ** 2 if apart else 0.0)


_Place = tuple[int | None, Design | None]


def _fitted(seen: Sequence[_Seen], robust: bool) -> dict[_Place, float]:
    """Logarithms of times (None, design) and of factors (meeting, None), by least squares; outliers count less where
    it is `robust`."""
    logs: dict[_Place, float] = {(x.meeting, None): 0.0 for x in seen} | {(None, x.design): 0.0 for x in seen}
    for turn in range(_TURNS):
        for side in (0, 1):
            sums: dict[_Place, tuple[float, float]] = {}
            for x in seen:
                mine, other = ((None, x.design), (x.meeting, None))[:: 1 if side == 0 else -1]
                total, weight = sums.get(mine, (0.0, 0.0))
                sums[mine] = total + x.weight * (x.log - logs[other]), weight + x.weight
            logs |= {place: total / weight for place, (total, weight) in sums.items()}
        if robust and turn % 4 == 3:
            for x in seen:
                off = abs(_rest(x, logs)) / math.sqrt(x.variance)
                x.weight = min(1.0, _FAR / max(off, _LEAST)) / x.variance
    return logs


def _rest(x: _Seen, logs: dict[_Place, float]) -> float:
    return x.log - logs[None, x.design] - logs[x.meeting, None]


def _scale(seen: Sequence[_Seen], logs: dict[_Place, float]) -> float:
    """How many times as far from the fit as expected observations lie: 1 where there are few."""
    free = len(seen) - len(logs) + 1
    return math.sqrt((_PRIOR + sum(_rest(x, logs) ** 2 * x.weight for x in seen)) / (_PRIOR + free))


__all__ = ["together"]
