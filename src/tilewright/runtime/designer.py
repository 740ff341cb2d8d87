"""`tw.search`: the best design of an operator for one shape, from the book where it is known, else found and kept."""

from __future__ import annotations

import math
import time
import uuid
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from tilewright.design.book.key import Key
from tilewright.design.book.record import Record, now, versions
from tilewright.design.book.store import Book
from tilewright.design.cost.usage import Usage
from tilewright.design.default import default_design
from tilewright.design.design import Design
from tilewright.design.informed import Informed
from tilewright.design.legality import legal
from tilewright.design.pinned import differs
from tilewright.design.strategies import check_strategy
from tilewright.design.trial import Budget, Objective, Outcome, Progress, Result, Standing, Trial
from tilewright.errors import ArgumentError
from tilewright.knobs import NUMERICS
from tilewright.language.dtypes import DType
from tilewright.language.program import TileProgram
from tilewright.machines.machine import Machine
from tilewright.operators import Operator
from tilewright.runtime import dispatch
from tilewright.runtime.budget import parse_budget, parse_objective
from tilewright.runtime.chosen import open_book
from tilewright.runtime.measure import last_level_cache_bytes
from tilewright.runtime.subject import Subject
from tilewright.runtime.trial import FINAL_SECONDS, Crew, TrialRunner
from tilewright.runtime.work import work_of

FAILURES = frozenset({"wrong", "crash", "hang", "memory", "compile"})
"""Statuses for which a design is put in quarantine."""

_HINTS = 4  # untrusted designs that are looked at before a search


@dataclass(frozen=True, repr=False)
class Designed:
    """What `search` gives: the record of the book, and how it came about.

    `found` is `book`, `hint` (an imported or shipped design, now verified here) or `search`; `trials` and `compiles`
    count what it took, `seconds_taken` how long. `result` holds the whole search where there was one. `machine` is the
    one that it is for.
    """

    record: Record
    options: tuple[tuple[str, Any], ...]
    found: str
    trials: int = 0
    compiles: int = 0
    seconds_taken: float = 0.0
    result: Result | None = field(default=None, repr=False)
    noise_class: str = ""
    cache: str = ""
    kept: bool = True
    """Whether the book outlives this process, so that the answer is known next time."""
    machine: Machine | None = field(default=None, repr=False)

    def __repr__(self) -> str:
        """On one line; `record` holds everything."""
        took = f"{self.seconds * 1e6:.4g} us, {self.speedup:.2f}x the default design"
        return f"<design {self.design.hash} of {self.key.label}: {took}, from {self.found}>"

    @property
    def design(self) -> Design:
        """The design."""
        return self.record.design

    @property
    def key(self) -> Key:
        """What it is for."""
        return self.record.key

    @property
    def sizes(self) -> Mapping[str, int]:
        """The sizes that it is for."""
        return self.record.sizes

    @property
    def dtype(self) -> Mapping[str, str]:
        """The type of each operand."""
        return dict(self.record.key.dtypes)

    @property
    def seconds(self) -> float:
        """Seconds of one call, as measured."""
        return self.record.seconds

    @property
    def default_seconds(self) -> float:
        """Seconds of the default design in the same rounds."""
        return self.record.default_seconds

    @property
    def speedup(self) -> float:
        """How many times faster than the default design."""
        return self.record.speedup


def search(
    operator: Operator | TileProgram | str,
    *,
    dtype: str | DType | Mapping[str, str | DType] | None = None,
    machine: Machine | str | None = None,
    budget: str | Budget = "60s",
    objective: str | Objective = "latency",
    target: str | float | None = None,
    numerics: str = "free",
    threads: int | None = None,
    seed: int = 0,
    strategy: str = "evolve",
    book: Book | None = None,
    progress: Callable[[Progress], None] | None = None,
    again: bool = False,
    options: Mapping[str, Any] | None = None,
    present: Collection[str] = (),
    unit: Mapping[str, int] | None = None,
    crew: Crew | None = None,
    **sizes: int,
) -> Designed:
    """The best design of `operator` at `sizes`: `search(matmul, M=16, N=4096, K=4096, dtype="bf16", budget="60s")`.

    What the book knows is returned at once (`again=True` searches nevertheless, and tries what is in quarantine too).
    Otherwise candidates are compiled, checked against the reference and timed in processes that may die of them,
    until the `budget` ("60s", "16 trials") is used up, the roofline is near, or a `target` ("50us") is met. Every
    trial is in the book as soon as it is made: a search that was cut off goes on where it was. `operator` may be
    `file.py:name`; `unit` names the dimension with stride one of tensors that are not row-major. `numerics="pinned"`
    keeps every decision that sets the order or the type of a sum as in the default design. A `crew` keeps the processes
    of one search on a GPU for the next.

    Raises ArgumentError for arguments that are not understood, MachineError for a machine that this host cannot stand
    in for, and VerificationError if not one design works.
    """
    if numerics not in NUMERICS:
        raise ArgumentError(f"numerics={numerics!r} is unknown; it is one of {', '.join(NUMERICS)}")
    check_strategy(strategy)
    goal, room = parse_objective(objective, target), parse_budget(budget)
    subject = Subject.of(
        operator, sizes, dtype, options=options, present=present, unit=unit, machine=machine, threads=threads
    )
    task = _Task(subject, subject.key(goal, numerics), book or open_book(), goal, seed, crew=crew)
    known = None if again else task.book.get(task.key)
    if known is not None:
        return Designed(known, subject.options, "book", machine=subject.machine)
    return task.run(room, strategy, progress, again)


def search_for(
    subject: Subject,
    *,
    budget: Budget,
    numerics: str = "free",
    seed: int = 0,
    book: Book | None = None,
    progress: Callable[[Progress], None] | None = None,
    final_seconds: float = FINAL_SECONDS,
    beside: Design | None = None,
    crew: Crew | None = None,
    deeper: bool = False,
) -> Designed:
    """As `search`, of a subject that was put together already: the design of least latency.

    `final_seconds`: how long each finalist is timed before it is decided; in less time more designs tie. Where a
    program has a generic kernel of another design than the default one, that stands `beside` what was found: the
    record that is given, not the one of the book, tells what it takes as its `default_seconds`. A `deeper` search goes
    on from what the book knows: the trials of an earlier, shorter one.
    """
    goal = parse_objective("latency", None)
    task = _Task(subject, subject.key(goal, numerics), book or open_book(), goal, seed, final_seconds, beside, crew)
    known = None if deeper else task.book.get(task.key)
    if known is None:
        return task.run(budget, "evolve", progress, False)
    judged = known if beside is None else task.judged(known)
    return Designed(judged, subject.options, "book", machine=subject.machine)


def retrust(key: Key, book: Book, subject: Subject, runner: TrialRunner, seed: int = 0) -> Record | None:
    """Verify and measure here what others say of `key`; the best of it beside the default, now trusted, or None.

    A design that fails is put in quarantine. Only designs for this very key count as found; see `Book.untrusted`.
    """
    hints = [r for r in book.untrusted(key) if r.key == key][:_HINTS]
    default = default_design(subject.kernel, subject.facts)
    designs = list(dict.fromkeys([default, *(r.design for r in hints)]))
    if not hints:
        return None
    outcomes = dict(zip(designs, runner.evaluate(designs), strict=True))
    _quarantine(book, key, outcomes)
    right = [d for d in designs if outcomes[d].seconds is not None]
    if not any(r.design in right for r in hints):
        return None
    standings = runner.compare(right)
    best = min(standings, key=lambda s: s.ratio)
    origin = next((r.origin for r in hints if r.design == best.design), "search")
    default_seconds = next((s.seconds for s in standings if s.design == default), best.seconds)
    return book.trust(
        key, Record(key, best.design, best.seconds, default_seconds, best.noise, True, seed, now(), origin=origin)
    )


@dataclass
class _Task:
    """One search under way."""

    subject: Subject
    key: Key
    book: Book
    goal: Objective
    seed: int
    final_seconds: float = FINAL_SECONDS
    beside: Design | None = None
    crew: Crew | None = None

    def judged(self, record: Record) -> Record:
        """A record of the book beside the generic design."""
        with self._runner() as runner:
            return self._beside(record, runner, [record.design])

    def _runner(self) -> TrialRunner:
        return TrialRunner(self.subject, seed=self.seed, final_seconds=self.final_seconds, crew=self.crew)

    def _beside(self, record: Record, runner: TrialRunner, untried: Sequence[Design] = ()) -> Record:
        """The record with the seconds of the generic design, where there is one that works."""
        if self.beside is None or self.beside == record.design:
            return record
        outcomes = runner.evaluate([self.beside, *untried])
        if any(outcome.seconds is None for outcome in outcomes):
            return record
        generic, found = runner.compare([self.beside, record.design])
        return replace(record, seconds=found.seconds, default_seconds=generic.seconds, noise=found.noise)

    def run(self, room: Budget, strategy: str, progress: Callable[[Progress], None] | None, again: bool) -> Designed:
        """Search, keep what was found, and give it."""
        from tilewright.design.search import search as explore

        begun = time.monotonic()
        with self._runner() as runner:
            if not again and (record := retrust(self.key, self.book, self.subject, runner, self.seed)) is not None:
                self._keep(record)
                return self._designed(record, "hint", runner, begun, None)
            run, resumed = self._earlier(again)

            def keep(seen: Progress) -> None:
                self.book.add_trials(self.key, run, seen.new, seed=self.seed)
                _quarantine(self.book, self.key, {t.design: t.outcome for t in seen.new})
                if progress is not None:
                    progress(seen)

            default = self.beside or default_design(self.subject.kernel, self.subject.facts)
            pinned = default if self.key.numerics == "pinned" else None
            model = self._model(pinned, run)
            result = explore(
                self.subject.kernel,
                self.subject.facts,
                runner if pinned is None else _Pinned(runner, pinned, self.subject),
                model=model,
                word=_word(self.subject, model) if self.subject.machine.kind == "nvidia" else None,
                budget=room,
                objective=self.goal,
                strategy=strategy,
                seed=self.seed,
                resume=resumed,
                quarantined={} if again else self.book.quarantined(self.key),
                floor=self._floor(),
                progress=keep,
            )
            record = _record(self.key, result, self.seed)
            if result.stopped == "interrupted":  # to be resumed
                return self._designed(record, "search", runner, begun, result)
            self._keep(record)
            return self._designed(self._beside(record, runner), "search", runner, begun, result)

    def _designed(
        self, record: Record, found: str, runner: TrialRunner, begun: float, result: Result | None
    ) -> Designed:
        taken = time.monotonic() - begun
        return Designed(
            record, self.subject.options, found, runner.tried, runner.compiled, taken, result, runner.noise_class,
            runner.cache, not self.book.database.in_memory, self.subject.machine,
        )  # fmt: skip

    def _keep(self, record: Record) -> None:
        """Under the key, and for operands that do not start at cache lines too where the design allows them."""
        self.book.put(record)
        loose = self.key.unaligned
        facts = replace(self.subject.facts, aligned=frozenset())
        relies = any(name.startswith("nontemporal.") for name, _ in record.design.decisions)
        relies = relies or bool(legal(self.subject.kernel, record.design, facts))
        if loose != self.key and not relies and self.book.get(loose) is None:
            self.book.put(replace(record, key=loose))
        dispatch.forget_chosen()

    def _earlier(self, again: bool) -> tuple[str, list[Trial]]:
        """The run to go on with and its trials: the last one, where no record came of it; else a new one."""
        if not again:
            known = [m for m in self.book.measurements(self.key) if m.versions == versions() and m.seed == self.seed]
            if known:
                run = known[-1].run
                return run, [m.trial for m in known if m.run == run]
        return uuid.uuid4().hex[:12], []

    def _model(self, pinned: Design | None, run: str) -> Callable[[Design], float]:
        """Seconds by the cost model, corrected by what earlier runs of its program taught where that is better."""
        from tilewright.design.cost import estimate, features
        from tilewright.runtime.learned import learned

        kernel, facts = self.subject.kernel, self.subject.facts
        correction = learned(self.book, self.key, kernel, facts.machine, without=run)

        def seconds(design: Design) -> float:
            if pinned is not None and differs(kernel, design, pinned):
                return math.inf
            said = estimate(kernel, design, facts)
            if correction is None:
                return said.seconds
            return correction.predict(features(kernel, design, facts, said), said.seconds)

        return seconds

    def _floor(self) -> float | None:
        """Seconds that no design can beat: arithmetic at the peak, and the bytes where they come from main memory."""
        machine, sizes = self.subject.machine, self.subject.sizes
        work = work_of(self.subject.kernel, sizes)
        element = next((p.dtype.name for p in self.subject.kernel.params if p.dims is not None), "f32")
        peak = machine.peak(element) or machine.peak("f32")
        if not peak:
            return None
        share = min(1.0, self.subject.threads / machine.cores) if machine.is_cpu else 1.0
        floor = work.flops / (peak * share)
        if work.bytes > last_level_cache_bytes():
            seconds, _ = work.bound(machine, element)
            floor = max(floor, seconds or 0.0)
        return floor


@dataclass(frozen=True)
class _Pinned:
    """An evaluator that refuses what would change the bits of the result."""

    runner: TrialRunner
    default: Design
    subject: Subject

    def evaluate(self, designs: Sequence[Design]) -> list[Outcome]:
        """As the runner, for those that are allowed."""
        why = {d: differs(self.subject.kernel, d, self.default) for d in designs}
        allowed = [d for d in designs if not why[d]]
        found = dict(zip(allowed, self.runner.evaluate(allowed), strict=True)) if allowed else {}
        return [found.get(d) or Outcome("illegal", reason=f"pinned numerics: {why[d]}") for d in designs]

    def usages(self, designs: Sequence[Design]) -> Mapping[Design, Usage]:
        """As the runner, of those that are allowed."""
        return self.runner.usages([d for d in designs if not differs(self.subject.kernel, d, self.default)])

    def compare(self, designs: Sequence[Design]) -> list[Standing]:
        """As the runner."""
        return self.runner.compare(designs)

    def renew(self) -> None:
        """As the runner."""
        self.runner.renew()


def _word(subject: Subject, model: Callable[[Design], float]) -> Informed:
    """The model's word for a design whose kernel's use of the GPU is known: changed as the analytical model's is."""
    from tilewright.design.cost import estimate

    def seconds(design: Design, usage: Usage) -> float:
        before = estimate(subject.kernel, design, subject.facts).seconds
        return model(design) * estimate(subject.kernel, design, subject.facts, usage).seconds / before

    return seconds


def _quarantine(book: Book, key: Key, outcomes: Mapping[Design, Outcome]) -> None:
    for design, outcome in outcomes.items():
        if outcome.status in FAILURES:
            book.quarantine(key, design, outcome.status, outcome.reason)


def _record(key: Key, result: Result, seed: int) -> Record:
    """The record of a search; a default that does not work has no time of its own, and a loser none to keep."""
    record = Record.of(key, result, seed)
    if not math.isfinite(record.default_seconds):
        record = replace(record, default_seconds=record.seconds)
    lost = record.runner_up is not None and not math.isfinite(record.runner_up.ratio)
    return replace(record, runner_up=None) if lost else record


__all__ = ["Designed", "retrust", "search", "search_for"]
