"""Trials: candidates compiled in a pool of processes, checked and timed in one that may die of them.

`TrialRunner` is the evaluator that a search asks. What a candidate can do wrong ends in its outcome, never in the
search: it computes wrong numbers, writes or reads outside its operands, crashes, hangs, or eats memory.
"""

from __future__ import annotations

import math
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from queue import Queue
from typing import Any

from tilewright.design.cost.usage import Usage
from tilewright.design.design import Design
from tilewright.design.legality import legal
from tilewright.design.trial import Outcome, Standing
from tilewright.errors import ArgumentError
from tilewright.language.dtypes import DType
from tilewright.language.printer import show
from tilewright.language.program import TileProgram
from tilewright.machines.machine import Machine
from tilewright.operators import Operator
from tilewright.runtime import answers, measure
from tilewright.runtime.checks import checks_for
from tilewright.runtime.child import Child, ChildDied
from tilewright.runtime.crew import Crew
from tilewright.runtime.crew import threads as crew_threads
from tilewright.runtime.fault import Fault
from tilewright.runtime.guard import PAGE
from tilewright.runtime.scratch import Scratch
from tilewright.runtime.subject import Subject

MEMORY_LIMIT = 2 << 30
"""Bytes that a candidate may take beside its operands."""

COMPILE_SECONDS = 20.0
HANG_SECONDS, HANG_TIMES = 3.0, 20.0
WORKERS = {"nvidia": "tilewright.runtime.cuda.trial_worker"}
"""The module whose process tries designs, by the kind of machine; CPUs share one."""

_AS_FIRST = "the same machine code as "

_MODULE = "tilewright.runtime.trial_worker"

TRIAL_SECONDS = 0.02
"""Seconds in which a candidate that passed the first look is timed beside the best."""

LOOK_ROUNDS, SLOW = 3, 1.15
"""The first look at a candidate: these rounds, and it is dropped if all are slower than the best by this factor."""

BETTER = 0.95
"""What takes less than this share of the best so far is timed once more, and becomes what others are timed beside."""

FAR, FAR_SECONDS = 4.0, 1e-3
"""A candidate whose run in the check takes longer than this many times the best, and this more, is not timed."""

PLACES = 4
"""Places in memory at which finalists are timed, as long as all of them fit the last cache: pages fall differently."""

FINAL_SECONDS, FINAL_ROUNDS, SHORT = 0.25, 12, 10e-3
"""The finals: seconds for each design in them, and at least so many rounds of kernels that take less than SHORT."""

OF_MANY = 0.15
"""Share of these seconds that a meeting takes which is one of many: processes differ by more than a short one errs."""


class TrialRunner:
    """An `Evaluator` of designs of one operator at fixed sizes; a context manager, because it owns processes.

    `seconds_limit` is what one run of a candidate on all checks may take, and HANG_TIMES what the first took that was
    right; `memory_limit` what it may add to the memory of its process (MEMORY_LIMIT). `final_seconds` are those of each
    design in a round of the finals. `compiled` counts compilations, `tried` candidates. Raises MachineError for a
    machine whose kernels this host cannot execute.
    """

    def __init__(
        self,
        operator: Operator | TileProgram | str | Subject,
        sizes: Mapping[str, int] | None = None,
        dtypes: str | DType | Mapping[str, str | DType] | None = None,
        machine: Machine | None = None,
        threads: int | None = None,
        *,
        seed: int = 0,
        seconds_limit: float = 20.0,
        memory_limit: int | None = None,
        options: Mapping[str, Any] | None = None,
        present: Collection[str] = (),
        unit: Mapping[str, int] | None = None,
        final_seconds: float = FINAL_SECONDS,
        crew: Crew | None = None,
    ) -> None:
        if isinstance(operator, Subject):
            self.subject = operator
        else:
            self.subject = Subject.of(
                operator, sizes or {}, dtypes, options=options, present=present, unit=unit, machine=machine,
                threads=threads,
            )  # fmt: skip
        self.subject.check_runnable()
        self.tried = 0
        self._renewed = False
        self._usages: dict[Design, Usage] = {}
        self._compilations: list[Design] = []  # appended to by several threads
        self._final_seconds = final_seconds
        self.noise_class = self.cache = ""
        self._limit = seconds_limit
        self._places = 1
        self._codes: dict[Design, str] = {}
        self._tried: dict[str, tuple[Design, Outcome]] = {}
        self._mark: tuple[Design, float] | None = None  # what all are timed beside, and its seconds
        self._all: list[Child] = []
        self._idle: Queue[Child] = Queue()
        self._threads = crew_threads() if crew is None else crew.threads
        self._scratch = Scratch("trial")
        self._crew = crew
        try:
            self._start(seed, MEMORY_LIMIT if memory_limit is None else memory_limit)
        except BaseException:
            self.close()
            raise

    # -------------------------------------------------------------------------------------------- evaluator
    def usages(self, designs: Sequence[Design]) -> dict[Design, Usage]:
        """What the kernels of designs take, where the machine says it; they are compiled now, and found again later."""
        legal_ones = [d for d in dict.fromkeys(designs) if self._illegal(d) is None]
        list(self._threads.map(self._built, legal_ones))
        return {d: self._usages[d] for d in legal_ones if d in self._usages}

    def evaluate(self, designs: Sequence[Design]) -> list[Outcome]:
        """Compile, check and time each design; those that pass are timed beside the best so far."""
        self.tried += len(designs)
        wanted = list(dict.fromkeys(designs))
        outcomes = {d: self._illegal(d) for d in wanted}
        legal_ones = [d for d in wanted if outcomes[d] is None]
        outcomes |= zip(legal_ones, self._threads.map(self._built, legal_ones), strict=True)
        first = self._first_of_code([d for d in legal_ones if outcomes[d] is None])
        for design in first:
            outcomes[design] = self._verified(design)
        outcomes |= self._timed([d for d in first if outcomes[d] is None])
        outcomes |= self._same_code(outcomes)
        return [found for d in designs if (found := outcomes[d]) is not None]

    def compare(self, designs: Sequence[Design]) -> list[Standing]:
        """All designs in paired, interleaved rounds, each beside the first; one that fails now is infinitely slow."""
        texts = [d.to_json() for d in designs]
        rounds = FINAL_ROUNDS if self._mark is None or self._mark[1] < SHORT else measure.MIN_ROUNDS
        seconds = self._final_seconds * (OF_MANY if self._renewed else 1.0) * len(designs)
        self._renewed = False
        try:
            seen = self._measure(texts, seconds=seconds, rounds=rounds, places=self._places)
        except ChildDied:  # of one of them, after it was found right: each by itself shows which
            alone = {d: found for each in designs for d, found in self._timed([each]).items()}
            return [answers.by_itself(d, alone[d], alone[designs[0]]) for d in designs]
        return [answers.standing(d, seen, texts[0]) for d in designs]

    def renew(self) -> None:
        """What is measured from now on is measured in another process; the next comparison is one sample of many."""
        self._worker.stop()
        self._renewed = True

    # ----------------------------------------------------------------------------------- one code, one kernel
    def _first_of_code(self, designs: Sequence[Design]) -> list[Design]:
        """Those whose machine code was not tried, the first of each."""
        firsts = {self._codes.get(d, d.hash): d for d in reversed(designs)}
        return [d for d in designs if firsts[self._codes.get(d, d.hash)] == d and self._codes.get(d) not in self._tried]

    def _same_code(self, outcomes: Mapping[Design, Outcome | None]) -> dict[Design, Outcome]:
        """Outcomes of built designs with their code; what was measured of a code holds for all of its designs."""
        for design, found in outcomes.items():
            if found is not None and (code := self._codes.get(design)):
                self._tried.setdefault(code, (design, replace(found, code=code)))
        answers = {}
        for design in outcomes:
            if code := self._codes.get(design):
                one, known = self._tried[code]
                answers[design] = known if one == design else replace(known, reason=_AS_FIRST + one.hash)
        return answers

    # -------------------------------------------------------------------------------------------- steps
    def _illegal(self, design: Design) -> Outcome | None:
        reasons = legal(self.subject.kernel, design, self.subject.facts)
        return Outcome("illegal", reason=str(reasons[0])) if reasons else None

    def _built(self, design: Design) -> Outcome | None:
        """Compile into the cache on disk; None if that went well."""
        builder = self._idle.get()
        try:
            answer = builder.ask({"job": "build", "design": design.to_json()}, COMPILE_SECONDS)
        except ChildDied as died:
            return Outcome("compile", reason=f"while compiling: {died.reason}")
        finally:
            self._idle.put(builder)
        if answer.get("seconds", 0.0) > 0:
            self._compilations.append(design)
        if "code" in answer:
            self._codes[design] = answer["code"]
        if "usage" in answer:
            self._usages[design] = Usage(**answer["usage"])
        return answers.failure(answer)

    def _verified(self, design: Design) -> Outcome | None:
        begun = time.monotonic()
        try:
            answer = self._worker.ask({"job": "verify", "design": design.to_json()}, self._limit)
        except ChildDied as died:
            return Outcome(died.status, reason=died.reason)
        failure = answers.failure(answer)
        if failure is None:  # from the first that is right on it is known what to expect
            self._limit = min(self._limit, max(HANG_SECONDS, HANG_TIMES * (time.monotonic() - begun)))
        return failure or self._far_slower(answer["once"])

    def _far_slower(self, once: float) -> Outcome | None:
        """The outcome of a design whose check took so long that to time it would be a waste of time."""
        if self._mark is None or once < FAR * self._mark[1] + FAR_SECONDS:
            return None
        return Outcome("ok", once, (once,), 0.5, "far slower than the best so far: timed once, in its check")

    def _timed(self, designs: list[Design]) -> dict[Design, Outcome]:
        """Outcomes of designs that were found right: beside the mark, or alone where one of them kills."""
        if not designs:
            return {}
        mark = self._mark[0] if self._mark else designs[0]
        texts = [d.to_json() for d in dict.fromkeys([mark, *designs])]
        try:
            seconds = TRIAL_SECONDS * len(texts)
            seen = self._measure(texts, slow=SLOW, look=LOOK_ROUNDS, seconds=seconds, rounds=measure.MIN_ROUNDS)
        except ChildDied as died:
            if len(designs) == 1:
                return {designs[0]: Outcome(died.status, reason=f"while it was timed: {died.reason}")}
            return {d: found for each in designs for d, found in self._timed([each]).items()}
        unit = self._mark[1] if self._mark else sorted(seen["samples"][texts[0]])[measure.MIN_ROUNDS // 4]
        found = {d: answers.outcome(d.to_json(), seen, unit) for d in designs}
        self._mark = self._mark or (mark, unit)
        return self._moved(found)

    def _moved(self, found: dict[Design, Outcome]) -> dict[Design, Outcome]:
        """The outcomes, after the mark was moved to the best of them where that is better.

        Times are told in ratios to the mark. The fastest of many looks faster than it is, so its ratio is measured
        anew before others are told by it: else each new mark would hand its luck on to the next.
        """
        assert self._mark is not None
        mark, unit = self._mark
        best = min((d for d in found if found[d].seconds), key=lambda d: found[d].seconds or math.inf, default=mark)
        if best == mark or (found[best].seconds or math.inf) > BETTER * unit:
            return found
        texts = [mark.to_json(), best.to_json()]
        try:
            seen = self._measure(texts, seconds=4 * TRIAL_SECONDS, rounds=2 * measure.MIN_ROUNDS)
            again = answers.outcome(texts[1], seen, unit)
        except ChildDied as died:
            again = Outcome(died.status, reason=f"while it was timed: {died.reason}")
        if again.seconds is not None and again.seconds < BETTER * unit:
            self._mark = (best, again.seconds)
        return {**found, best: again}

    def _measure(self, texts: list[str], **how: Any) -> dict[str, Any]:
        seen = self._worker.ask({"job": "measure", "designs": texts, **how}, self._limit * (2 + 3 * len(texts)))
        if "error" in seen:
            raise ChildDied("crash", str(seen["error"]))
        self.noise_class, self.cache = seen["noise_class"], seen["cache"]
        return seen

    # -------------------------------------------------------------------------------------------- processes
    def __enter__(self) -> TrialRunner:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the processes and remove their files."""
        if self._crew is None:
            for child in self._all:
                child.stop()
            self._threads.shutdown(wait=False)
        self._scratch.remove()

    @property
    def compiled(self) -> int:
        """Compilations so far; a kernel that was found on disk is none."""
        return len(self._compilations)

    @property
    def restarts(self) -> int:
        """How often the process that runs candidates was started again."""
        return max(0, self._worker.starts - 1)

    def _start(self, seed: int, memory_limit: int) -> None:
        """Describe the processes; each starts with its first job."""
        subject = self.subject
        checks = checks_for(subject, seed, None if self._crew is None else self._crew.drawn)
        operands = sum(x.nbytes for x in checks[0].operands.tensors.values())
        if subject.machine.is_cpu:
            self._places = max(1, min(PLACES, measure.last_level_cache_bytes() // max(1, operands)))
        outputs = sum(checks[0].operands.tensors[n].size for n in subject.outputs)
        room = memory_limit + self._places * operands + 64 * outputs  # packed copies; float64 copies to compare with
        setup = {
            "job": "setup",
            "kernel": show(subject.kernel),
            "machine": subject.machine.to_dict(),
            "sizes": subject.sizes,
            "layouts": [[n, list(x.strides), x.align, x.constant] for n, x in subject.layouts],
            "settled": list(subject.settled),
            "outputs": list(subject.outputs),
            "updates": list(subject.updates),
            "threads": subject.threads,
            "cold": operands > measure.last_level_cache_bytes(),
            "address_space": 2 * room,
        }
        environment = {"TILEWRIGHT_THREADS": str(subject.threads), "DEBUG": "0", "OPENBLAS_NUM_THREADS": "1"}
        try:
            saved = [c.save(self._scratch.path) for c in checks]
        except OSError as error:
            raise ArgumentError(
                f"{self._scratch.path}: operands of trials cannot be written there ({error}); make room, or set TMPDIR "
                "to a folder that has it"
            ) from None

        def child(number: int, checked: list[dict[str, Any]]) -> Child:
            told = {**setup, "checks": checked}
            if self._crew is not None and number in self._crew:
                return self._crew[number].renewed(told, room, self._where)
            folder = (self._scratch if self._crew is None else self._crew.scratch).path
            made = Child(
                WORKERS.get(subject.machine.kind, _MODULE), told, folder, memory_limit=room, environment=environment,
                explain=self._where,
            )  # fmt: skip
            if self._crew is not None:
                self._crew[number] = made
            return made

        self._worker = child(0, saved)
        self._all = [self._worker, *(child(1 + n, []) for n in range(self._threads._max_workers))]
        for builder in self._all[1:]:
            self._idle.put(builder)

    def _where(self, found: Fault) -> str:
        """An address in words: beside which operand it lies."""
        for spans in self._worker.ready.get("spans", ()):
            for name, (first, size) in spans.items():
                if first <= found.address < first + size:
                    return f"byte {found.address - first} of {name}, which it may only read"
                if first - PAGE <= found.address < first:
                    return f"{first - found.address} bytes before the first byte of {name}"
                if first + size <= found.address < first + size + PAGE:
                    return f"{found.address - first - size} bytes after the last byte of {name}"
        return f"address {found.address:#x}"


__all__ = ["MEMORY_LIMIT", "Crew", "TrialRunner"]
