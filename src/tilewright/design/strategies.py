"""Strategies of a search: which designs to try next, given what was tried. Seeded; none of them looks at a clock."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Protocol

from tilewright.design.belief import Belief, likeness
from tilewright.design.default import Facts, default_design
from tilewright.design.design import Design
from tilewright.design.mutation import Together
from tilewright.design.mutations import steps
from tilewright.design.normal import Normal
from tilewright.design.space import canonical, pool, random_design, random_step, ranked
from tilewright.design.trial import Trial
from tilewright.errors import ArgumentError
from tilewright.language import ir, structure

Model = Callable[[Design], float]

_KIND = ("atom", "swap", "how", "cluster", "warpgroups", "pack")
_PARTS = 3  # of a sum: one, two, or more
_HOPE = 1.35  # times the best that the model knows: no trial of a kind that it gives more
_CPU_HOPE = 1.5  # the same for a CPU, where its word on a kind was off by as much as 1.43
_CROWDED = 0.05  # a design that is like one chosen already must be better by this share
_SURE = 0.3  # step of a correction's logarithm: less than that is noise, by which two searches would part


@dataclass(frozen=True)
class Candidate:
    """A design to try: what the model says of it, and where it came from."""

    design: Design
    predicted: float
    parent: str | None = None
    mutation: str | None = None


@dataclass
class Task:
    """What is searched: a program with its facts, the model, and the designs that need no further trial.

    `completed` gives a design with what it leaves open decided, where the machine places what is open.
    """

    kernel: ir.Kernel
    facts: Facts
    model: Model
    quarantined: Mapping[str, str] = field(default_factory=dict)
    completed: Callable[[Design], Design] = lambda design: design
    _predictions: dict[Design, float] = field(default_factory=dict)

    def predicted(self, design: Design) -> float:
        """The model's word, asked for once."""
        if design not in self._predictions:
            self._predictions[design] = self.model(design)
        return self._predictions[design]

    @cached_property
    def _plain(self) -> tuple[Normal, Design, Design]:
        plain, default = Normal(self.kernel, self.facts), self.completed(default_design(self.kernel, self.facts))
        return plain, default, plain(default)

    def settled(self, design: Design) -> Design:
        """A design that is complete, and the only one of its kernel: in normal form, or the default itself."""
        plain, default, its_form = self._plain
        form = plain(self.completed(design))
        return default if form == its_form else form

    def candidate(self, design: Design, parent: str | None = None, mutation: str | None = None) -> Candidate:
        """A design as a candidate, complete."""
        design = self.settled(design)
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
    """Proposes what to try next. `common` is what every search of the key tries by this strategy, whatever it finds."""

    common: frozenset[Design]

    def propose(self, trials: Sequence[Trial], count: int, champion: Callable[[], Design]) -> list[Candidate]:
        """At most `count` candidates that are new; none where the strategy has come to its end.

        `champion` is the design that the finals would choose now; to ask costs measurements.
        """
        ...


# -------------------------------------------------------------------------------------------- random
class Random:
    """The baseline: random designs of the same space, whatever the model says of them."""

    _ATTEMPTS = 40  # draws for each candidate before the space counts as exhausted
    common: frozenset[Design] = frozenset()

    def __init__(self, task: Task, seed: int) -> None:
        self._task = task
        self._rng = random.Random(seed)

    def propose(self, trials: Sequence[Trial], count: int, champion: Callable[[], Design]) -> list[Candidate]:
        """Random designs."""
        tried, found = {t.design for t in trials}, list[Candidate]()
        for _ in range(self._ATTEMPTS * count):
            if len(found) == count:
                break
            design = random_design(self._task.kernel, self._task.facts, self._rng)
            new = self._task.fresh([self._task.candidate(design)], tried)
            tried |= {c.design for c in new}
            found += new
        return found


# ---------------------------------------------------------------------------------------------- beam
class Beam:
    """The neighbours of the best few that were tried, in the order in which the corrected model ranks them."""

    _WIDTH = 4
    common: frozenset[Design] = frozenset()

    def __init__(self, task: Task, seed: int) -> None:
        self._task = task
        self._neighbours = _Neighbours(task)

    def propose(self, trials: Sequence[Trial], count: int, champion: Callable[[], Design]) -> list[Candidate]:
        """The most promising neighbours."""
        belief = Belief()
        belief.learn(trials)
        ahead = [c for t in _best(trials)[: self._WIDTH] for c in self._neighbours.of(t.design)]
        return _ranked(self._task.fresh(ahead, {t.design for t in trials}), belief)[:count]


# -------------------------------------------------------------------------------------------- evolve
class Evolve:
    """First the best of a pool that every search of the key shares; then generation after generation of a champion's.

    The pool comes from the model alone, and a champion is chosen by paired rounds, so that two searches go the same
    way whatever their seeds and their noise: what a generation tries hangs on the champion, hardly on single times.
    On a GPU the model errs by kind of kernel more than within one, by as much as its best hundred designs differ: so
    the best of each kind comes first, and the rest of the pool in the order that these trials give it.
    On a CPU the default's best neighbours come first, for it is seldom far off, then the best of each kind that these
    are not of, and then what of the pool differs.
    A generation is the champion's neighbours, and the neighbours of the most promising of those, as the model ranks
    them, on a CPU corrected by what was measured nearby; one more of the pool, likewise; and a stray.
    """

    _POOL, _SHARED, _KINDS = 384, 24, 10
    _NEAR = 6  # of those that all searches share, so many are the default's best neighbours
    _PROMISING = 3  # children whose own neighbours are candidates too
    _GENERATION = 24  # trials by one champion: each choice of a champion is one more at which two searches may part

    def __init__(self, task: Task, seed: int) -> None:
        self._task = task
        self._neighbours = _Neighbours(task)
        self._champion: Design | None = None
        self._belief = Belief()
        self._until = 0
        self._pool = [
            task.candidate(d) for d in pool(task.kernel, task.facts, task.predicted, self._POOL, task.settled)
        ]
        candidates = task.fresh(self._pool, set())
        self._kinds = first_of_kinds(candidates, self._KINDS) if task.facts.machine.kind == "nvidia" else []
        self._shared = self._kinds or self._first(candidates)
        self.common = frozenset(c.design for c in self._shared)

    def _first(self, candidates: Sequence[Candidate]) -> list[Candidate]:
        """What every search of the key tries: the default's best neighbours, and of the pool what differs."""
        near = _ranked(self._task.fresh(self._neighbours.of(self._task.start().design), set()), self._belief)
        shared = {c.design: replace(c, parent=None, mutation=None) for c in near[: self._NEAR]}
        seen = {self._kind(d) for d in shared}
        of_kinds = first_of_kinds(candidates, self._KINDS, _CPU_HOPE, self._kind)
        shared |= {c.design: c for c in of_kinds if self._kind(c.design) not in seen}
        rest = [c for c in candidates if c.design not in shared]
        return [*shared.values(), *_varied(rest, self._SHARED - len(shared))]

    def _kind(self, design: Design) -> tuple[object, ...]:
        """The kind of a design on a CPU; where whole dims are summed nothing is packed, and first lanes tell kinds."""
        kernel = self._task.kernel
        dots = [let.expr for let in structure.lets(kernel).values() if isinstance(let.expr, ir.Dot)]
        whole = any(dot.axis not in structure.axes(kernel) for dot in dots)
        return (*kind_of(design), design.names("lanes")[:1] if whole else ())

    def propose(self, trials: Sequence[Trial], count: int, champion: Callable[[], Design]) -> list[Candidate]:
        """What the shared pool still holds; after it a generation."""
        tried = {t.design for t in trials}
        if ahead := self._task.fresh(self._shared, tried):
            return ahead[:count]
        if (left := self._SHARED + 1 - len(trials)) > 0 and (ahead := self._believed(trials, min(count, left))):
            return ahead
        if self._champion is None or len(trials) >= self._until:
            self._champion, self._until = champion(), len(trials) + self._GENERATION
            self._belief = Belief(step=_SURE)
            self._belief.learn(() if self._kinds else trials)
        best = self._champion
        children = self._task.fresh(self._descendants(best), tried)
        chosen = _ranked(children, self._belief)[: max(1, count - count // 4)]
        chosen += self._strays(best, tried | {c.design for c in chosen}, count // 8)
        known = tried | {c.design for c in chosen}
        spare = [replace(c, mutation="Pool") for c in _ranked(self._task.fresh(self._pool, known), self._belief)]
        return [*chosen, *spare[: count - len(chosen)]]

    def _believed(self, trials: Sequence[Trial], count: int) -> list[Candidate]:
        """What else the pool holds, by what trials of each kind say of their like; nothing where there are no kinds."""
        if not self._kinds:
            return []
        belief = Belief()
        belief.learn(trials)
        return _varied(self._task.fresh(self._pool, {t.design for t in trials}), count, belief)

    def _descendants(self, champion: Design) -> list[Candidate]:
        """Designs one mutation away, and two by way of those that the model thinks most of."""
        children = self._neighbours.of(champion)
        promising = _ranked(children, self._belief)[: self._PROMISING]
        return children + [c for p in promising for c in self._neighbours.beyond(champion, p.design)]

    def _strays(self, champion: Design, taken: set[Design], count: int) -> list[Candidate]:
        """Random designs and random mutations of the champion, by the seed."""
        kernel, facts = self._task.kernel, self._task.facts
        rng = random.Random(f"{champion.hash} {len(taken)}")
        found: dict[Design, Candidate] = {}
        for n in range(20 * count):
            if len(found) == count:
                break
            if n % 2 == 0:
                new = self._task.candidate(random_design(kernel, facts, rng), None, "Random")
            elif (step := random_step(kernel, champion, facts, rng)) is not None:
                new = self._task.candidate(step[1], champion.hash, str(step[0]))
            else:
                continue
            found |= {c.design: c for c in self._task.fresh([new], taken)}
        return list(found.values())


class _Neighbours:
    """Neighbours of designs, derived once."""

    def __init__(self, task: Task) -> None:
        self._task = task
        self._known: dict[Design, list[Candidate]] = {}

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


def _best(trials: Sequence[Trial]) -> list[Trial]:
    """Trials that were measured, the fastest first."""
    ok = [t for t in trials if t.outcome.seconds is not None]
    return sorted(ok, key=lambda t: (t.outcome.seconds, *canonical(t.design)))


def _ranked(candidates: Sequence[Candidate], belief: Belief) -> list[Candidate]:
    """By what is believed of them, the most promising first."""
    by_design = {c.design: c for c in candidates}
    believed = {d: belief.corrected(d, c.predicted) for d, c in by_design.items()}
    return [by_design[d] for d in ranked(believed)]


def first_of_kinds(
    candidates: Sequence[Candidate],
    count: int,
    hope: float = _HOPE,
    kind: Callable[[Design], tuple[object, ...]] | None = None,
) -> list[Candidate]:
    """Of each kind of kernel the one that the model thinks best, at most `count`, and none that it gives no hope: more
    than `hope` times its best.

    Nothing where there is one kind only.
    """
    first: dict[tuple[object, ...], Candidate] = {}
    for c in sorted(candidates, key=lambda c: (c.predicted, canonical(c.design))):
        first.setdefault((kind or kind_of)(c.design), c)
    chosen = list(first.values())
    return [c for c in chosen if c.predicted <= hope * chosen[0].predicted][:count] if len(chosen) > 1 else []


def kind_of(design: Design) -> tuple[object, ...]:
    """What makes another kind of kernel of a design: what multiplies, and how its blocks share a sum and operands."""
    shared = tuple((n, v) for n, v in design.decisions if n.partition(".")[0] in _KIND)
    parts = [v for _, v in design.prefixed("split") if isinstance(v, int)]
    return shared, min(max(parts, default=1), _PARTS)


def _varied(candidates: Sequence[Candidate], count: int, belief: Belief | None = None) -> list[Candidate]:
    """The best by the model's word, where a design must be the better the more it is like those chosen before it.

    What the model sees, its terms, it ranks; what it does not see is found only by trying designs that differ. With a
    belief its word is corrected.
    """
    chosen: list[Candidate] = []
    crowd = dict.fromkeys(candidates, 0.0)  # how many of the chosen are like each
    seconds = {c: belief.corrected(c.design, c.predicted) if belief else c.predicted for c in candidates}
    while crowd and len(chosen) < count:
        best = min(crowd, key=lambda c: (seconds[c] * (1.0 + _CROWDED * crowd[c]), canonical(c.design)))
        del crowd[best]
        chosen.append(best)
        for c in crowd:
            crowd[c] += likeness(c.design, best.design)
    return chosen


STRATEGIES: dict[str, Callable[[Task, int], Strategy]] = {"evolve": Evolve, "beam": Beam, "random": Random}
"""Strategies by name."""


def check_strategy(name: str) -> None:
    """ArgumentError for a name that no strategy has."""
    if name not in STRATEGIES:
        raise ArgumentError(f"no strategy is called {name!r}; it is one of {', '.join(STRATEGIES)}")


__all__ = ["STRATEGIES", "Candidate", "Model", "Strategy", "Task", "check_strategy"]
