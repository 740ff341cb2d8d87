"""Finals: which of the designs that were tried is chosen, so that two searches of one key choose alike.

Times of trials are noisy. Those that might be the best meet again in paired rounds; those that the rounds cannot tell
apart, or that differ by less than anybody would notice, tie. Of those that tie the default wins, then what every
search of the key tries, then the canonically smallest.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from tilewright.design.design import Design
from tilewright.design.space import canonical
from tilewright.design.trial import Evaluator, Outcome, Standing, Trial

TIE = 0.02
"""Slower than the best by less than this, or by less than the noise, is a tie."""

LEAD = 0.03
"""What this search alone came upon must be faster by so much than all that every search of the key tries."""

_FASTEST, _FIRST = 6, 12  # finalists: the fastest by their trials, and the first in the order in which ties are decided
_NOISE = 4.0  # by so many times the noise of its trial a design may be better than it looks
_ROUNDS = 8  # times that those in doubt meet again


@dataclass(frozen=True)
class Verdict:
    """The design chosen, and the standings that it was chosen by, the fastest first."""

    winner: Design
    standings: tuple[Standing, ...]

    def standing(self, design: Design) -> Standing | None:
        """What the rounds showed of a design, if it was in them."""
        return next((s for s in self.standings if s.design == design), None)


class Finals:
    """Paired rounds held so far, each design beside the first that works."""

    def __init__(self, evaluator: Evaluator) -> None:
        self._evaluator = evaluator
        self._standings: dict[Design, Standing] = {}
        self._new: list[Standing] = []

    def verdict(self, trials: Sequence[Trial], recorded: Sequence[Standing] = ()) -> Verdict:
        """The verdict on `trials`, of which at least one was measured; the first is the default's.

        Those that might be the best and have not met do so now, and those in doubt again, unless what they showed
        was `recorded` by an earlier search.
        """
        finalists = select(trials)
        if recorded:
            self._take(recorded)
        else:
            self._rounds(trials, finalists)
        fastest_first = sorted(self._standings.values(), key=lambda s: (s.ratio, *canonical(s.design)))
        if not fastest_first:
            return Verdict(finalists[0], ())
        return Verdict(_chosen(fastest_first, trials), tuple(fastest_first))

    def drain(self) -> tuple[Standing, ...]:
        """What was measured since the last call, to be recorded."""
        new, self._new = tuple(self._new), []
        return new

    def _rounds(self, trials: Sequence[Trial], finalists: Sequence[Design]) -> None:
        anchor = next(t.design for t in trials if t.outcome.seconds is not None)
        if unmet := [d for d in finalists if d not in self._standings and d != anchor]:
            best = min(self._standings.values(), key=lambda s: s.ratio, default=None)
            known = [best.design] if best is not None else []
            self._meet([anchor, *known, *unmet])
        for _ in range(_ROUNDS):
            if not (doubtful := _doubtful(list(self._standings.values()), trials)):
                break
            self._meet([anchor, *doubtful])

    def _meet(self, designs: Sequence[Design]) -> None:
        found = self._evaluator.compare(list(dict.fromkeys(designs)))
        self._new += found
        self._take(found)

    def _take(self, standings: Sequence[Standing]) -> None:
        for s in standings:
            self._standings[s.design] = _mean(self._standings[s.design], s) if s.design in self._standings else s


def decide(trials: Sequence[Trial], evaluator: Evaluator) -> Verdict:
    """The verdict on `trials`, of which at least one was measured."""
    return Finals(evaluator).verdict(trials)


def _chosen(standings: Sequence[Standing], trials: Sequence[Trial]) -> Design:
    """The first of those that tie with the best of what every search tries, unless a find of this one leads."""
    shared, finds = _parted(standings, trials)
    leads = finds and shared and finds[0].ratio < shared[0].ratio * _lead(standings)
    best = finds if leads or not shared else shared
    return min(ties(best), key=_order(trials).__getitem__)


def _parted(standings: Sequence[Standing], trials: Sequence[Trial]) -> tuple[list[Standing], list[Standing]]:
    """What every search of the key tries, and what this one alone came upon."""
    found = {t.design for t in trials if t.mutation is not None}
    return [s for s in standings if s.design not in found], [s for s in standings if s.design in found]


def select(trials: Sequence[Trial]) -> list[Design]:
    """The default, if it works, and of those that may tie with the best the fastest, and the first to win a tie."""
    before = _order(trials)
    ok: dict[Design, Outcome] = {}
    codes: dict[str, Design] = {}
    for t in sorted((t for t in trials if t.outcome.seconds is not None), key=lambda t: before[t.design]):
        if t.outcome.code not in codes or not t.outcome.code:  # of one machine code the first stands for all
            ok[t.design], codes[t.outcome.code] = t.outcome, t.design
    seconds = {d: o.seconds or 0.0 for d, o in ok.items()}
    best = min(s * (1.0 + ok[d].noise) for d, s in seconds.items())  # the least of many is luck in part
    near = [d for d, o in ok.items() if seconds[d] <= best * (1.0 + TIE) * (1.0 + _NOISE * o.noise)]
    fastest = sorted(near, key=lambda d: (seconds[d], *canonical(d)))
    first = [d for d in ok if d in near]
    default = [trials[0].design] if trials[0].design in ok else []
    return list(dict.fromkeys([*default, *fastest[:_FASTEST], *first[:_FIRST]]))


def _order(trials: Sequence[Trial]) -> dict[Design, tuple[bool, bool, int, str]]:
    """The order in which ties are decided: the default, what every search tries, what this one came upon."""
    default = trials[0].design
    return {t.design: (t.design != default, t.mutation is not None, *canonical(t.design)) for t in trials}


def ties(standings: Sequence[Standing]) -> list[Design]:
    """Designs that tie with the fastest, which comes first."""
    return [s.design for s in standings if s == standings[0] or s.ratio <= _edge(standings)]


def _edge(standings: Sequence[Standing]) -> float:
    """The ratio up to which designs tie; the best counts by its upper end, since the least of many is luck in part."""
    return min(s.high for s in standings) * (1.0 + _margin(standings))


def _margin(standings: Sequence[Standing]) -> float:
    return max(TIE, *(s.noise for s in standings))


def _lead(standings: Sequence[Standing]) -> float:
    return 1.0 - max(LEAD, _margin(standings))


def _doubtful(standings: list[Standing], trials: Sequence[Trial]) -> list[Design]:
    """Those by which the choice hangs whose intervals reach over an edge of it, and what the edge is measured by."""
    ordered, before = sorted(standings, key=lambda s: s.ratio), _order(trials)
    shared, finds = _parted(ordered, trials)
    if shared and finds and _reaches(finds[0], shared[0].ratio * _lead(ordered)):
        return [shared[0].design, finds[0].design]
    chosen = _chosen(ordered, trials) if ordered else None
    group = finds if chosen in {s.design for s in finds} else shared
    edge = _edge(group) if group else 0.0
    near = [s.design for s in group[1:] if _reaches(s, edge) and chosen and before[s.design] <= before[chosen]]
    mark = min(group, key=lambda s: s.high).design if near else None
    return [mark, *(d for d in near if d != mark)] if mark else []


def _reaches(standing: Standing, edge: float) -> bool:
    return standing.low <= edge <= standing.high


def _mean(one: Standing, other: Standing) -> Standing:
    if not (math.isfinite(one.ratio) and math.isfinite(other.ratio)):
        return max(one, other, key=lambda s: s.ratio)  # it failed once
    widths = [max(1e-4, math.log(s.high / s.low)) for s in (one, other)]
    weights = [1.0 / w**2 for w in widths]
    share = weights[0] / sum(weights)
    ratio = math.exp(share * math.log(one.ratio) + (1.0 - share) * math.log(other.ratio))
    half = 0.5 / math.sqrt(sum(weights))
    seconds = share * one.seconds + (1.0 - share) * other.seconds
    low, high = ratio * math.exp(-half), ratio * math.exp(half)
    return Standing(one.design, seconds, ratio, low, high, min(one.noise, other.noise))


__all__ = ["LEAD", "TIE", "Finals", "Verdict", "decide", "select", "ties"]
