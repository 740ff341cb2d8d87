"""Strategies of a search: which designs to try next, given what was tried. Seeded; none of them looks at a clock."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from tilewright.design.belief import Belief, style
from tilewright.design.default import Facts, default_design
from tilewright.design.design import Choice, Design
from tilewright.design.legality import legal
from tilewright.design.mutation import Together
from tilewright.design.mutations import steps
from tilewright.design.space import canonical, pool, random_design, random_step, ranked
from tilewright.design.trial import Trial
from tilewright.language import ir

Model = Callable[[Design], float]


@dataclass(frozen=True)
class Candidate:
    """A design to try: what the model says of it, and where it came from."""

    design: Design
    predicted: float
    parent: str | None = None
    mutation: str | None = None


@dataclass
class Task:
    """What is searched: a program with its facts, the model, and the designs that need no further trial."""

    kernel: ir.Kernel
    facts: Facts
    model: Model
    quarantined: Mapping[str, str] = field(default_factory=dict)
    _predictions: dict[Design, float] = field(default_factory=dict)

    def predicted(self, design: Design) -> float:
        """The model's word, asked for once."""
        if design not in self._predictions:
            self._predictions[design] = self.model(design)
        return self._predictions[design]

    def candidate(self, design: Design, parent: str | None = None, mutation: str | None = None) -> Candidate:
        """A design as a candidate."""
        return Candidate(design, self.predicted(design), parent, mutation)

    def start(self) -> Candidate:
        """The default design."""
        return self.candidate(default_design(self.kernel, self.facts))

    def fresh(self, candidates: Iterable[Candidate], tried: set[Design]) -> list[Candidate]:
        """Those that were not tried and are not in quarantine, each design once."""
        found: dict[Design, Candidate] = {}
        for c in candidates:
            if c.design not in tried and c.design.hash not in self.quarantined:
                found.setdefault(c.design, c)
        return list(found.values())


class Strategy(Protocol):
    """Proposes what to try next."""

    def propose(self, trials: Sequence[Trial], count: int) -> list[Candidate]:
        """At most `count` candidates that are new; none where the strategy has come to its end."""
        ...


# -------------------------------------------------------------------------------------------- random
class Random:
    """The baseline: random designs of the same space, whatever the model says of them."""

    _ATTEMPTS = 40  # draws for each candidate before the space counts as exhausted

    def __init__(self, task: Task, seed: int) -> None:
        self._task = task
        self._rng = random.Random(seed)

    def propose(self, trials: Sequence[Trial], count: int) -> list[Candidate]:
        """Random designs."""
        tried, found = {t.design for t in trials}, list[Candidate]()
        for _ in range(self._ATTEMPTS * count):
            if len(found) == count:
                break
            design = random_design(self._task.kernel, self._task.facts, self._rng)
            new = self._task.fresh([self._task.candidate(design)], tried)
            tried.add(design)
            found += new
        return found


# ---------------------------------------------------------------------------------------------- beam
class Beam:
    """The neighbours of the best few that were tried, in the order in which the corrected model ranks them."""

    _WIDTH = 4

    def __init__(self, task: Task, seed: int) -> None:
        self._task = task
        self._neighbours = _Neighbours(task)

    def propose(self, trials: Sequence[Trial], count: int) -> list[Candidate]:
        """The most promising neighbours."""
        belief = Belief()
        belief.learn(trials)
        ahead = [c for t in _best(trials)[: self._WIDTH] for c in self._neighbours.of(t.design)]
        return _ranked(self._task.fresh(ahead, {t.design for t in trials}), belief)[:count]


# -------------------------------------------------------------------------------------------- evolve
class Evolve:
    """First the best of a pool that every search of the key shares; then children of the best, and some strays.

    The pool comes from the model alone, so that two searches try the same designs first whatever their seeds and
    their noise. Children are neighbours of the best that were tried, neighbours of the most promising of those, and
    crossings of two parents; the model ranks them, corrected by what was measured nearby.
    """

    _POOL, _SHARED = 384, 24
    _PARENTS, _CROSSINGS = 5, 12
    _EXPLORE = 4  # one candidate of so many is drawn without asking the model

    def __init__(self, task: Task, seed: int) -> None:
        self._task = task
        self._rng = random.Random(seed)
        self._neighbours = _Neighbours(task)
        self._pool = [task.candidate(d) for d in pool(task.kernel, task.facts, task.predicted, self._POOL)]
        self._shared = _varied(task.fresh(self._pool, set()), self._SHARED)

    def propose(self, trials: Sequence[Trial], count: int) -> list[Candidate]:
        """What the shared pool still holds; after it a generation."""
        tried = {t.design for t in trials}
        if ahead := self._task.fresh(self._shared, tried):
            return ahead[:count]
        belief = Belief()
        belief.learn(trials)
        parents = [t.design for t in _best(trials)[: self._PARENTS]]
        children = [c for p in parents for c in self._neighbours.of(p)] + self._crossings(parents)
        children += [c for p in parents[:2] for c in self._grandchildren(p, belief, tried)]
        promising = _ranked(self._task.fresh([*children, *self._pool], tried), belief)
        chosen = promising[: count - count // self._EXPLORE]
        strays = self._strays([*tried, *(c.design for c in chosen)], parents, count - len(chosen))
        return [*chosen, *strays]

    def _grandchildren(self, parent: Design, belief: Belief, tried: set[Design]) -> list[Candidate]:
        """Two mutations from a parent, by way of its most promising child that is still to be tried."""
        children = _ranked(self._task.fresh(self._neighbours.of(parent), tried), belief)
        return [] if not children else self._neighbours.beyond(parent, children[0].design)

    def _crossings(self, parents: Sequence[Design]) -> list[Candidate]:
        """Designs that have each decision from one of two parents."""
        found = []
        for _ in range(self._CROSSINGS if len(parents) > 1 else 0):
            one, other = self._rng.sample(list(parents), 2)
            child = _crossed(one, other, self._rng)
            if not legal(self._task.kernel, child, self._task.facts):
                found.append(self._task.candidate(child, one.hash, f"Cross({other.hash})"))
        return found

    def _strays(self, taken: Sequence[Design], parents: Sequence[Design], count: int) -> list[Candidate]:
        """Random mutations of parents, and random designs, turn by turn."""
        known, found = set(taken), list[Candidate]()
        for n in range(20 * count):
            if len(found) == count:
                break
            new = self._task.fresh([self._stray(parents if n % 2 else ())], known)
            found += new
            known |= {c.design for c in new}
        return found

    def _stray(self, parents: Sequence[Design]) -> Candidate:
        kernel, facts = self._task.kernel, self._task.facts
        if parents:
            parent = self._rng.choice(list(parents))
            if (step := random_step(kernel, parent, facts, self._rng)) is not None:
                return self._task.candidate(step[1], parent.hash, str(step[0]))
        return self._task.candidate(random_design(kernel, facts, self._rng))


class _Neighbours:
    """Neighbours of designs, derived once."""

    def __init__(self, task: Task) -> None:
        self._task = task
        self._known: dict[Design, list[Candidate]] = {}
        self._mutations: dict[tuple[Design, Design], object] = {}

    def of(self, design: Design) -> list[Candidate]:
        """Every design one mutation away."""
        if design not in self._known:
            found = list(steps(self._task.kernel, design, self._task.facts))
            self._known[design] = [self._task.candidate(d, design.hash, str(m)) for m, d in found]
        return self._known[design]

    def beyond(self, parent: Design, child: Design) -> list[Candidate]:
        """Every design one mutation away from a child, as a child of its parent."""
        first = next(c.mutation for c in self.of(parent) if c.design == child)
        found = self.of(child)
        name = Together.__name__
        return [Candidate(c.design, c.predicted, parent.hash, f"{name}(({first}, {c.mutation}))") for c in found]


def _crossed(one: Design, other: Design, rng: random.Random) -> Design:
    """Decisions of `one`, with those that say another thing in `other` taken from either, kind by kind."""
    mine, theirs = dict(one.decisions), dict(other.decisions)
    kinds = sorted({name.partition(".")[0] for name in (*mine, *theirs)})
    taken = {kind for kind in kinds if rng.random() < 0.5}
    decisions: dict[str, Choice] = {}
    for name in sorted({*mine, *theirs}):
        source = theirs if name.partition(".")[0] in taken else mine
        if name in source:
            decisions[name] = source[name]
    return Design.of(decisions)


def _best(trials: Sequence[Trial]) -> list[Trial]:
    """Trials that were measured, the fastest first."""
    ok = [t for t in trials if t.outcome.seconds is not None]
    return sorted(ok, key=lambda t: (t.outcome.seconds, *canonical(t.design)))


def _ranked(candidates: Sequence[Candidate], belief: Belief) -> list[Candidate]:
    """By what is believed of them, the most promising first."""
    by_design = {c.design: c for c in candidates}
    believed = {d: belief.corrected(d, c.predicted) for d, c in by_design.items()}
    return [by_design[d] for d in ranked(believed)]


def _varied(candidates: Sequence[Candidate], count: int) -> list[Candidate]:
    """The best by the model's word, where each further design of one style must be better by some percent."""
    chosen: list[Candidate] = []
    used: Counter[object] = Counter()
    left = list(candidates)
    while left and len(chosen) < count:
        best = min(left, key=lambda c: (c.predicted * (1.0 + 0.05 * used[style(c.design)]), canonical(c.design)))
        left.remove(best)
        used[style(best.design)] += 1
        chosen.append(best)
    return chosen


STRATEGIES: dict[str, Callable[[Task, int], Strategy]] = {"evolve": Evolve, "beam": Beam, "random": Random}
"""Strategies by name."""

__all__ = ["STRATEGIES", "Candidate", "Model", "Strategy", "Task"]
