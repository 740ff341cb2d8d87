"""Finals: which of the designs that were tried is chosen, so that two searches of one key choose alike.

Times of trials are noisy. Those that might be the best meet again in paired rounds; those that the rounds cannot tell
apart, or that differ by less than anybody would notice, tie. Of those that tie the default wins, then what every
search of the key tries, then the canonically smallest.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from tilewright.design.design import Design
from tilewright.design.space import canonical
from tilewright.design.trial import Evaluator, Standing, Trial

TIE = (0.0075, 0.02)
"""Slower than the best by less than the first ties; by more than the second, loses."""

_MOST = 10  # finalists, half of them the fastest, half the canonically smallest
_ROUNDS = 2  # times that those in doubt meet


@dataclass(frozen=True)
class Verdict:
    """The design chosen, and the standings that it was chosen by, the fastest first."""

    winner: Design
    standings: tuple[Standing, ...]

    def standing(self, design: Design) -> Standing | None:
        """What the rounds showed of a design, if it was in them."""
        return next((s for s in self.standings if s.design == design), None)


def decide(trials: Sequence[Trial], evaluator: Evaluator) -> Verdict:
    """The verdict on `trials`, of which at least one was measured; the first is the default's."""
    finalists = select(trials)
    found = {t.design: t for t in trials}
    if len(finalists) == 1:
        return Verdict(finalists[0], ())
    standings = _joined({}, evaluator.compare(finalists))
    for _ in range(_ROUNDS - 1):
        close = _close(standings, finalists[0])
        if len(close) > 1:
            standings = _joined(standings, evaluator.compare(close))
    fastest_first = sorted(standings.values(), key=lambda s: (s.ratio, *canonical(s.design)))
    tied = ties(fastest_first)
    default = trials[0].design
    winner = min(tied, key=lambda d: (d != default, found[d].parent is not None, *canonical(d)))
    return Verdict(winner, tuple(fastest_first))


def select(trials: Sequence[Trial]) -> list[Design]:
    """The default, if it works, and whatever may be the best by the noise of its trial."""
    ok = [(t.design, t.outcome.seconds, t.outcome.noise) for t in trials if t.outcome.seconds is not None]
    best = min(seconds for _, seconds, _ in ok)
    near = [(d, s) for d, s, noise in ok if s / (1.0 + 2.0 * noise) <= best * (1.0 + TIE[1])]
    fastest = [d for d, _ in sorted(near, key=lambda x: (x[1], *canonical(x[0])))]
    smallest = sorted((d for d in fastest[_MOST // 2 :]), key=canonical)
    first = [d for d, *_ in ok if d == trials[0].design]
    chosen = dict.fromkeys([*first, *fastest[: _MOST // 2], *smallest[: _MOST - _MOST // 2]])
    return list(chosen)


def ties(standings: Sequence[Standing]) -> list[Design]:
    """Designs that tie with the fastest, which comes first.

    Where to cut is where the times themselves leave the widest gap between the two bounds of TIE, or of the noise
    where that is more: a cut at a fixed distance would fall between two runs of one design.
    """
    best = standings[0].ratio
    noise = max(s.noise for s in standings)
    low = max(TIE[0], noise)
    high = max(TIE[1], 2.0 * low)
    behind = [s.ratio / best - 1.0 for s in standings]
    marks = [low, *(b for b in behind if low < b < high), high]
    gap, start = max((after - before, -before) for before, after in pairwise(marks))
    cut = -start + gap / 2.0
    return [s.design for s, b in zip(standings, behind, strict=True) if b <= cut]


def _close(standings: Mapping[Design, Standing], first: Design) -> list[Design]:
    """The first, against which all are measured, and those that may still tie with the best."""
    best = min(s.ratio for s in standings.values())
    near = [d for d, s in standings.items() if d != first and s.ratio <= best * (1.0 + 2.0 * TIE[1])]
    return [first, *near] if near else [first]


def _joined(before: Mapping[Design, Standing], more: Sequence[Standing]) -> dict[Design, Standing]:
    """Two sets of paired rounds as one: ratios weighted by how narrow their intervals are."""
    result = dict(before)
    for s in more:
        result[s.design] = _mean(result[s.design], s) if s.design in result else s
    return result


def _mean(one: Standing, other: Standing) -> Standing:
    widths = [max(1e-4, math.log(s.high / s.low)) for s in (one, other)]
    weights = [1.0 / w**2 for w in widths]
    share = weights[0] / sum(weights)
    ratio = math.exp(share * math.log(one.ratio) + (1.0 - share) * math.log(other.ratio))
    half = 0.5 / math.sqrt(sum(weights))
    seconds = share * one.seconds + (1.0 - share) * other.seconds
    low, high = ratio * math.exp(-half), ratio * math.exp(half)
    return Standing(one.design, seconds, ratio, low, high, min(one.noise, other.noise))


__all__ = ["TIE", "Verdict", "decide", "select", "ties"]
