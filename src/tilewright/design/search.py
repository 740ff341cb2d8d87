"""Search: designs of one program are tried, batch by batch, until the budget or the hope of a better one is used up.

Which designs are tried depends on the program, the facts, the model, the seed and the evaluator's answers, never on a
clock: that only says when to stop. So a search that was cut off is resumed by running it again with the trials that
it had made: what they answer is not asked again.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

from tilewright.design.default import Facts
from tilewright.design.design import Design
from tilewright.design.finals import ONE_PROCESS, OWN_PROCESSES, Finals, Rules, Verdict
from tilewright.design.informed import Compiler, Informed, informed
from tilewright.design.strategies import STRATEGIES, Candidate, Model, Strategy, Task, check_strategy
from tilewright.design.trial import (
    Budget,
    Evaluator,
    Objective,
    Outcome,
    Progress,
    Result,
    Standing,
    Stopped,
    Trial,
)
from tilewright.errors import ArgumentError, VerificationError
from tilewright.language import ir

BATCH = 8
"""Candidates that are compiled and measured together."""

LATENCY = Objective()

_ROOFLINE = 1.05  # so close to the floor no search is worth its time: what it found would hardly lead
_FINALS = 0.2  # share of the seconds that is kept for the finals
_MEETING = 1.5  # seconds that a meeting in the finals takes, in a process of its own


def search(
    kernel: ir.Kernel,
    facts: Facts,
    evaluator: Evaluator,
    *,
    model: Model,
    budget: Budget,
    objective: Objective = LATENCY,
    strategy: str = "evolve",
    seed: int = 0,
    resume: Sequence[Trial] = (),
    quarantined: Mapping[str, str] | None = None,
    floor: float | None = None,
    completed: Callable[[Design], Design] = lambda design: design,
    progress: Callable[[Progress], None] | None = None,
    word: Informed | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> Result:
    """The best design of `kernel` that the budget finds, with the evidence.

    `model` gives seconds for a design; `floor` are seconds that no design can beat (the roofline), near which the
    search ends. `resume` are trials of an earlier search of the same key; `quarantined` are designs by their hashes
    that are not to be tried; `completed` decides what a design leaves open. `word` is the model's for a design whose
    kernel's use of the machine is known: where the evaluator can compile before it runs, predictions are made anew by
    it, and what then has no hope is not run. `progress` is told of every batch, and of its new trials, which are to be
    kept.
    The default design is trial 0 and in the finals. Ctrl-C ends the search with what it has.
    Raises ArgumentError for a budget without limits or a target without seconds, and VerificationError where not one
    design works, the default's reason in the message.
    """
    _check(budget, objective, strategy)
    earlier = {t.design: t for t in resume}
    # What the earlier search tried is part of the way that this one goes again, quarantined since or not.
    barred = {h: why for h, why in (quarantined or {}).items() if h not in {d.hash for d in earlier}}
    task = Task(kernel, facts, model, barred, completed)
    finals = Finals(evaluator, _rules(facts, budget))
    run = _Run(evaluator, budget, objective, floor, progress, clock, earlier, tuple(resume), finals, word)
    stopped = run.explore(task, lambda: STRATEGIES[strategy](task, seed))
    return run.result(kernel.name, stopped)


def _check(budget: Budget, objective: Objective, strategy: str) -> None:
    if budget.seconds is None and budget.trials is None:
        raise ArgumentError("the budget has no limit; give it seconds, trials or both")
    if objective.kind == "target" and objective.seconds is None:
        raise ArgumentError("a target needs its seconds, as in Objective('target', 50e-6)")
    check_strategy(strategy)


def _rules(facts: Facts, budget: Budget) -> Rules:
    """By what the finals decide: as many meetings as the seconds allow."""
    if not facts.machine.is_cpu:
        return ONE_PROCESS
    room = math.inf if budget.seconds is None else budget.seconds * _FINALS / _MEETING
    first, meetings = OWN_PROCESSES.first, OWN_PROCESSES.meetings
    return replace(
        OWN_PROCESSES, first=int(max(1, min(first, room))), meetings=int(min(meetings, max(0, room - first)))
    )


@dataclass
class _Run:
    """One search under way."""

    evaluator: Evaluator
    budget: Budget
    objective: Objective
    floor: float | None
    progress: Callable[[Progress], None] | None
    clock: Callable[[], float]
    earlier: dict[Design, Trial]
    record: tuple[Trial, ...]  # the same, in order
    finals: Finals
    word: Informed | None = None
    trials: list[Trial] = field(default_factory=list)
    begun: float = 0.0

    # ------------------------------------------------------------------------------------- the loop
    def explore(self, task: Task, strategy: Callable[[], Strategy]) -> Stopped:
        """Trials until there is a reason to stop, which is given."""
        self.begun = self.clock() - max((t.at for t in self.earlier.values()), default=0.0)
        try:
            self._try([task.start()])
            if reason := self._reason():
                return reason
            chosen = strategy()
            while True:
                count = BATCH if self.budget.trials is None else min(BATCH, self.budget.trials - len(self.trials))
                batch = chosen.propose(self.trials, count, self._champion)
                if not batch:
                    return "exhausted"
                self._try(batch)
                if reason := self._reason(chosen.common):
                    return reason
        except KeyboardInterrupt:
            return "interrupted"

    def _champion(self) -> Design:
        """What the finals would choose now, by the rounds that an earlier search recorded where it held them."""
        ahead = self.record[len(self.trials)].met if len(self.trials) < len(self.record) else ()
        return self.finals.verdict(self.trials, ahead).winner

    def _try(self, batch: Sequence[Candidate]) -> None:
        """Trials of a batch; what an earlier search measured is not measured again."""
        unknown = [c for c in batch if c.design not in self.earlier]
        unknown, measured = self._informed(unknown)
        wanted = [c.design for c in unknown if c.design not in measured]
        measured |= zip(wanted, self.evaluator.evaluate(wanted) if wanted else [], strict=True)
        at = self.clock() - self.begun
        new = [_trial(c, measured[c.design], at) for c in unknown]
        if new:
            new[0] = replace(new[0], met=self.finals.drain())
        made = {t.design: t for t in new}
        self.trials += [made.get(c.design) or self.earlier.pop(c.design) for c in batch]
        if self.progress is not None:
            self.progress(self._progress(tuple(new)))

    def _informed(self, candidates: list[Candidate]) -> tuple[list[Candidate], dict[Design, Outcome]]:
        """Candidates with what is known of their kernels before they run, and outcomes of those that need not run."""
        if self.word is None or not candidates or not isinstance(self.evaluator, Compiler):
            return candidates, {}
        return informed(candidates, self.evaluator.usages([c.design for c in candidates]), self.word, self._best())

    def _progress(self, new: tuple[Trial, ...]) -> Progress:
        left = None if self.budget.seconds is None else max(0.0, self.budget.seconds - (self.clock() - self.begun))
        trials = None if self.budget.trials is None else self.budget.trials - len(self.trials)
        return Progress(tuple(self.trials), new, self._best(), left, trials)

    def _best(self) -> Trial | None:
        ok = [t for t in self.trials if t.outcome.seconds is not None]
        return min(ok, key=lambda t: t.outcome.seconds or math.inf, default=None)

    def _reason(self, common: Collection[Design] = ()) -> Stopped | None:
        """Why to stop now, if there is a reason; near the roofline not before all that is `common` was tried.

        When that is done hangs on the noise of one trial: it may not decide between which designs the finals choose.
        """
        best = self._best()
        seconds = math.inf if best is None or best.outcome.seconds is None else best.outcome.seconds
        if self.objective.kind == "target" and seconds <= (self.objective.seconds or 0.0):
            return "target"
        near = self.floor is not None and seconds <= self.floor * _ROOFLINE
        if near and {t.design for t in self.trials}.issuperset(common):
            return "roofline"
        if self.budget.trials is not None and len(self.trials) >= self.budget.trials:
            return "budget"
        if self.budget.seconds is not None:
            used = self.clock() - self.begun
            return "budget" if used >= self.budget.seconds * (1.0 - _FINALS) else None
        return None

    # ----------------------------------------------------------------------------------- the verdict
    def result(self, name: str, stopped: Stopped) -> Result:
        """The verdict on all trials, those of an earlier search that this one did not come to included."""
        self.trials += self.earlier.values()
        ok = [t for t in self.trials if t.outcome.seconds is not None]
        if not ok:
            reason = self.trials[0].outcome if self.trials else Outcome("hang", reason="interrupted before any trial")
            raise VerificationError(f"no design of {name} works; the default: {reason.status}, {reason.reason}")
        if stopped == "target":
            met = next(t for t in ok if (t.outcome.seconds or math.inf) <= (self.objective.seconds or 0.0))
            return self._found(Verdict(met.design, ()), stopped)
        if stopped == "interrupted":
            return self._found(Verdict(_safest(self.trials), ()), stopped)
        try:
            return self._found(self.finals.verdict(self.trials), stopped)
        except KeyboardInterrupt:
            return self._found(Verdict(_safest(self.trials), ()), "interrupted")

    def _found(self, verdict: Verdict, stopped: Stopped) -> Result:
        default = self.trials[0].design
        others = [s for s in verdict.standings if s.design != verdict.winner]
        return Result(
            verdict.winner, self._seconds(verdict, verdict.winner), self._seconds(verdict, default),
            tuple(self.trials), others[0] if others else None, stopped, verdict.standings,
            max((s.noise for s in verdict.standings), default=0.0),
        )  # fmt: skip

    def _seconds(self, verdict: Verdict, design: Design) -> float:
        """Seconds in the finals, else in its trial; infinite for a default that does not work."""
        if standing := verdict.standing(design):
            return standing.seconds
        trial = next((t for t in self.trials if t.design == design), None)
        return math.inf if trial is None or trial.outcome.seconds is None else trial.outcome.seconds


def _trial(candidate: Candidate, outcome: Outcome, at: float) -> Trial:
    return Trial(candidate.design, candidate.predicted, outcome, candidate.parent, candidate.mutation, at)


def _safest(trials: Sequence[Trial]) -> Design:
    """Without finals: the fastest by its trial, where it beats the default by more than the noise of both."""
    ok = sorted((t for t in trials if t.outcome.seconds is not None), key=lambda t: t.outcome.seconds or math.inf)
    default = next((t for t in ok if t.design == trials[0].design), None)
    if default is None or default.outcome.seconds is None or ok[0].outcome.seconds is None:
        return ok[0].design
    doubt = 1.0 + 2.0 * (default.outcome.noise + ok[0].outcome.noise)
    return ok[0].design if ok[0].outcome.seconds * doubt < default.outcome.seconds else default.design


__all__ = [
    "Budget", "Evaluator", "Objective", "Outcome", "Progress", "Result", "Standing", "Trial", "search",
]  # fmt: skip
