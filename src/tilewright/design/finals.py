"""Finals: which of the designs that were tried is chosen, so that two searches of one key choose alike.

Times of trials are noisy. Those that might be the best meet in paired rounds, and those by which the choice hangs meet
again, each time in a process of its own where the evaluator has them. Those that the rounds cannot tell apart, or that
differ by less than a search is asked to tell, tie. Of those that tie the default wins, then the canonically smallest;
what one search alone came upon has to lead what every search of the key tries.

Two searches part where a design lies at the edge of a tie, within what is left of the noise: so the less often, the
wider the tie is beside the noise. Many designs lie within 2 to 3% of the best, since decisions that hardly matter tell
them apart; a tie that ends in their midst is an edge that searches part at.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from tilewright.design.design import Design
from tilewright.design.meetings import together
from tilewright.design.space import canonical
from tilewright.design.trial import Evaluator, Outcome, Standing, Trial


@dataclass(frozen=True)
class Rules:
    """By what a choice is made.

    `tie`: slower than the best by less than this, or by less than the noise, is a tie. `lead`: what one search alone
    came upon must be faster by so much than all that every search of the key tries. `apart`: by how much, as a
    standard deviation, two meetings tell one ratio differently. `near`: what by its trial is this much slower than the
    best may tie with it all the same. `first`: all finalists meet so often, by which it is learned how meetings differ.
    `meetings`: those in doubt meet so often again at most.
    """

    tie: float
    lead: float
    apart: float
    near: float
    first: int
    meetings: int


ONE_PROCESS = Rules(tie=0.02, lead=0.03, apart=0.0, near=0.02, first=1, meetings=8)
"""Where all meetings are of one process, or of a simulated machine."""

OWN_PROCESSES = Rules(tie=0.05, lead=0.05, apart=0.01, near=0.12, first=3, meetings=10)
"""Where each meeting has a process of its own: on CPUs."""

_FASTEST, _FIRST = 6, 8  # finalists of what one search came upon: the fastest by their trials, the first in order
_NOISE = 4.0  # by so many times the noise of its trial a design may be better than it looks
_FRONT = 3  # of each group so many are met again, where the best of it is in doubt


@runtime_checkable
class Renewable(Protocol):
    """An evaluator that can measure in another process from now on."""

    def renew(self) -> None:
        """What is measured from now on is measured in another process."""
        ...


@dataclass(frozen=True)
class Verdict:
    """The design chosen, and the standings that it was chosen by, the fastest first."""

    winner: Design
    standings: tuple[Standing, ...]

    def standing(self, design: Design) -> Standing | None:
        """What the rounds showed of a design, if it was in them."""
        return next((s for s in self.standings if s.design == design), None)


class Finals:
    """Meetings held so far, of each design beside the first that works."""

    def __init__(self, evaluator: Evaluator, rules: Rules = ONE_PROCESS) -> None:
        self._evaluator, self._rules = evaluator, rules
        self._meetings: list[list[Standing]] = []
        self._new: list[Standing] = []

    def verdict(self, trials: Sequence[Trial], recorded: Sequence[Standing] = ()) -> Verdict:
        """The verdict on `trials`, of which at least one was measured; the first is the default's.

        Those that might be the best and have not met do so now, and those in doubt again, unless what they showed
        was `recorded` by an earlier search.
        """
        finalists = select(trials, self._rules)
        if recorded:
            for s in recorded:
                if s.design == recorded[0].design:  # with which each meeting begins
                    self._meetings.append([])
                self._meetings[-1].append(s)
        else:
            self._hold(trials, finalists)
        if not self._meetings:
            return Verdict(finalists[0], ())
        choice = self._choice(trials)
        return Verdict(choice.winner, tuple(choice.standings))

    def drain(self) -> tuple[Standing, ...]:
        """What was measured since the last call, to be recorded."""
        new, self._new = tuple(self._new), []
        return new

    def _hold(self, trials: Sequence[Trial], finalists: Sequence[Design]) -> None:
        anchor = next(t.design for t in trials if t.outcome.seconds is not None)
        met = {s.design for meeting in self._meetings for s in meeting}
        if unmet := [d for d in finalists if d not in met and d != anchor]:
            known = [s.design for s in self._choice(trials).standings[:_FRONT]] if self._meetings else []
            self._meet([anchor, *known, *unmet])
            for _ in range(self._rules.first - 1):
                self._meet([anchor, *self._choice(trials).hopeful([*known, *unmet])])
        for _ in range(self._rules.meetings if self._meetings else 0):
            if not (doubtful := self._choice(trials).doubtful()):
                break
            self._meet([anchor, *doubtful])

    def _meet(self, designs: Sequence[Design]) -> None:
        if self._rules.apart and isinstance(self._evaluator, Renewable):
            self._evaluator.renew()
        found = self._evaluator.compare(list(dict.fromkeys(designs)))
        self._new += found
        self._meetings.append(list(found))

    def _choice(self, trials: Sequence[Trial]) -> _Choice:
        standings = together(self._meetings, self._rules.apart)
        return _Choice(sorted(standings, key=lambda s: (s.ratio, *canonical(s.design))), trials, self._rules)


class _Choice:
    """What standings come to: the winner, and those by which that hangs."""

    def __init__(self, standings: Sequence[Standing], trials: Sequence[Trial], rules: Rules) -> None:
        self.standings, self._rules, self._order = list(standings), rules, _order(trials)
        found = {t.design for t in trials if t.mutation is not None}
        self._shared = [s for s in standings if s.design not in found]
        self._finds = [s for s in standings if s.design in found]
        lead = max(rules.lead, *(s[0].noise for s in (self._shared, self._finds) if s))
        self._goal = self._shared[0].ratio * (1.0 - lead) if self._shared else math.inf  # of a find that leads
        self._group = self._finds if self._finds and self._finds[0].ratio < self._goal else self._shared
        self._edge = self._group[0].ratio * (1.0 + max(rules.tie, self._group[0].noise))

    @property
    def winner(self) -> Design:
        """The first of those that tie with the best of what every search tries, unless a find of this one leads."""
        return min((s.design for s in self._ties()), key=self._order.__getitem__)

    def _ties(self) -> list[Standing]:
        return [s for s in self._group if s == self._group[0] or s.ratio <= self._edge]

    def hopeful(self, designs: Sequence[Design]) -> list[Design]:
        """Those of `designs` that may still come near the best."""
        ratios = {s.design: s.ratio for s in self.standings}
        return [d for d in designs if ratios[d] <= self.standings[0].ratio * (1.0 + self._rules.near)]

    def doubtful(self) -> list[Design]:
        """Those by which the choice hangs whose intervals reach over an edge of it, and what it is measured by."""
        if self._shared and self._finds and _reaches(self._finds[0], self._goal, self._shared[0]):
            return [s.design for group in (self._shared, self._finds) for s in _front(group)]
        last = self._order[self.winner]
        near = [
            s.design
            for s in self._group[1:]
            if self._order[s.design] <= last and _reaches(s, self._edge, self._group[0])
        ]
        return list(dict.fromkeys([*(s.design for s in _front(self._group)), *near])) if near else []


def select(trials: Sequence[Trial], rules: Rules = ONE_PROCESS) -> list[Design]:
    """The default, if it works, and those that may tie with the best: all that every search tries, and of what this one
    came upon the fastest, and the first to win a tie."""
    before = _order(trials)
    ok: dict[Design, Outcome] = {}
    codes: dict[str, Design] = {}
    for t in sorted((t for t in trials if t.outcome.seconds is not None), key=lambda t: before[t.design]):
        if t.outcome.code not in codes or not t.outcome.code:  # of one machine code the first stands for all
            ok[t.design], codes[t.outcome.code] = t.outcome, t.design
    seconds = {d: o.seconds or 0.0 for d, o in ok.items()}
    best = min(s * (1.0 + ok[d].noise) for d, s in seconds.items())  # the least of many is luck in part
    near = [d for d, o in ok.items() if seconds[d] <= best * (1.0 + rules.near) * (1.0 + _NOISE * o.noise)]
    shared, finds = ([d for d in near if before[d][1] == found] for found in (False, True))
    fastest = sorted(finds, key=lambda d: (seconds[d], *canonical(d)))
    default = [trials[0].design] if trials[0].design in ok else []
    return list(dict.fromkeys([*default, *shared, *fastest[:_FASTEST], *finds[:_FIRST]]))


def _order(trials: Sequence[Trial]) -> dict[Design, tuple[bool, bool, int, str]]:
    """The order in which ties are decided: the default, what every search tries, what this one came upon."""
    default = trials[0].design
    return {t.design: (t.design != default, t.mutation is not None, *canonical(t.design)) for t in trials}


def _front(group: Sequence[Standing]) -> list[Standing]:
    """The best of a group, and the next few that may be as good."""
    return [s for s in group[:_FRONT] if s.low <= group[0].high]


def _reaches(standing: Standing, edge: float, best: Standing) -> bool:
    """Whether an edge that is measured by `best` lies within what may be true of a standing."""
    if not math.isfinite(standing.ratio):
        return False
    reach = math.hypot(math.log(standing.high / standing.ratio), math.log(best.high / best.ratio))
    return abs(math.log(standing.ratio / edge)) <= reach


__all__ = ["ONE_PROCESS", "OWN_PROCESSES", "Finals", "Renewable", "Rules", "Verdict", "select"]
