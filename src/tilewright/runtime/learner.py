"""The learner: a thread that watches the table, has kernels designed in the background, and swaps them in.

It is beside the program and never on its path: it counts nothing, holds no lock that a call takes, compiles and
searches in another process, and only loads what is finished; while it runs Python here it lets others have the
interpreter back at once (`polite`). `step` is one round of it; tests call that themselves.
"""

from __future__ import annotations

import atexit
import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tilewright.design.book.record import Record
from tilewright.errors import TilewrightError
from tilewright.runtime import dispatch, modes, promotion
from tilewright.runtime.agenda import Agenda
from tilewright.runtime.background import Background, BackgroundProcess, Budget, Spent
from tilewright.runtime.child import ChildDied, ChildError
from tilewright.runtime.events import tell
from tilewright.runtime.polite import breathe, polite
from tilewright.runtime.shadow import Shadow
from tilewright.runtime.table import Slot, Table
from tilewright.runtime.trigger import Clock, Evidence, Trigger, Watch

POLL_SECONDS = 0.1
SHARE = 0.05
"""Of this process's time that looking at the table may take: where it is long, it is looked at less often."""

FIRST_LOOK = 1
"""Trials of a first look: the default design for the sizes of a slot."""


@dataclass(frozen=True)
class Status:
    """What a learner is doing and did: `seconds` are those that its background process was at work.

    Of the `searches` so many were first `looks`; `queued` are slots that wait for one or the other.
    """

    state: str
    queued: int
    searches: int
    promoted: int
    kept: int
    crashes: int
    compiles: int
    seconds: float
    looks: int = 0


class Learner:
    """Watches a table and specialises what is called often. `active` is False where the mode forbids it."""

    def __init__(
        self,
        table: Table,
        trigger: Trigger,
        budget: Budget,
        *,
        background: Callable[[Budget], Background] = BackgroundProcess,
        clock: Clock = time.monotonic,
    ) -> None:
        self.active = modes.may_learn()
        if self.active:
            modes.learning_begins()
        self.table, self.budget = table, budget
        self._watch, self._spent, self._shadow = Watch(trigger, clock), Spent(clock), Shadow()
        self._background = background(budget) if self.active else None
        self._agenda = Agenda()
        self._wake, self._ended, self._busy = threading.Event(), False, False
        self._look_again = 0.0
        self._searches = self._looks = self._promoted = self._kept = self._crashes = self._compiles = 0
        self._seconds = 0.0
        self._pressed = False
        self._thread: threading.Thread | None = None

    # ----------------------------------------------------------------------------------------- for programs
    def pressure(self, queue: int = 0, p99: float | None = None) -> None:
        """How the program is doing: requests that wait, and its latency in seconds; background work makes way."""
        over = self.budget.p99 is not None and p99 is not None and p99 > self.budget.p99
        pressed = queue > self.budget.queue or over
        if pressed == self._pressed or self._background is None:
            return
        self._pressed = pressed
        if pressed:
            self._background.gate.close()
        else:
            self._background.gate.open()
            self._wake.set()

    def status(self) -> Status:
        """What it is doing and did."""
        return Status(
            self._state(), len(self._agenda), self._searches, self._promoted, self._kept, self._crashes,
            self._compiles, self._seconds, self._looks,
        )  # fmt: skip

    def wait_idle(self, seconds: float) -> bool:
        """Wait until nothing is queued or searched, `seconds` at most; whether that came about."""
        until = time.monotonic() + seconds
        while self._collect() or len(self._agenda) or self._busy:
            if time.monotonic() > until or self._ended:
                return False
            time.sleep(POLL_SECONDS / 4)
        return True

    def start(self) -> Learner:
        """Begin, on a thread of its own."""
        if self.active and self._thread is None:
            self._thread = threading.Thread(target=self._run, name="tilewright-learner", daemon=True)
            self._thread.start()
        return self

    def stop(self) -> None:
        """End the thread and the background process; swaps that were made stay."""
        self._ended = True
        self._wake.set()
        if self._background is not None:
            self._background.stop()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(timeout=10.0)

    # ----------------------------------------------------------------------------------------------- rounds
    def step(self, collect: bool = True) -> bool:
        """One round: see what triggers (unless that is for later), and have one job done; whether there was one."""
        if collect:
            self._collect()
        if self._background is None or self._state() in ("paused", "over budget", "stopped"):
            return False
        slot = self._agenda.next()
        if slot is not None:
            self._busy = True
            self._design(slot)
            return True
        check = self._shadow.next(self.table.slots())
        if check is None:
            return False
        self._verify(*check)
        return True

    def _run(self) -> None:
        while not self._ended:
            try:
                worked = self.step(time.monotonic() >= self._look_again)
            except Exception as error:  # whatever it is, callers go on without a learner
                worked = False
                if not self._ended:
                    give_up_all(self._agenda.pop_all(), f"{type(error).__name__}: {error}")
            if not worked:
                self._wake.wait(POLL_SECONDS)
                self._wake.clear()

    def _collect(self) -> bool:
        """Queue the slots that trigger now; whether any did."""
        if not self.active or self._ended:
            return False
        over, found, begun = self._watch.tick(), False, time.thread_time()
        with polite():
            self._agenda.drop_evicted(self.table)
            for slot in self.table.slots():
                known = slot.fixed and slot.origin.looks and slot.state in ("specialised", "kept generic")
                if slot.state != "generic" and not known:
                    continue
                breathe()
                calls, spent = slot.spent
                seconds = spent / calls if calls else 0.0
                saving = self._agenda.saving(slot) * seconds
                reason = self._watch.fires(slot.key, Evidence(calls, seconds, saving), over)
                if reason is not None:
                    slot.state, slot.reason, found = "queued", reason, True
                    if known:  # what the book brought may be the design of a first look
                        self._agenda.look_over(slot)
                    else:
                        self._agenda.add(slot)
                    tell("trigger", slot.shape, reason)
        self._look_again = time.monotonic() + (time.thread_time() - begun) / SHARE
        return found

    def _design(self, slot: Slot) -> None:
        try:
            with polite():
                job = job_of(slot)
            if job is None:
                self._give_up(slot, "its operands have no dimension of stride one")
                return
            look = "beside" in job and not self._agenda.looked(slot)
            slot.state = "searching"
            tell("search", slot.shape, f"{'a first look' if look else 'at length'}: {slot.reason}")
            self._searches, self._looks = self._searches + 1, self._looks + look
            limits = {"trials": FIRST_LOOK if look else self.budget.trials, "seconds": self.budget.job_seconds}
            more = {"look": look, "deeper": self._agenda.looked(slot), "seed": 0}
            answer = self._asked(slot, {"job": "design", **job, **limits, **more})
            if answer is not None:
                with polite():
                    self._took(slot, answer, look)
        finally:
            self._busy = False

    def _took(self, slot: Slot, answer: dict[str, Any], look: bool) -> None:
        self._account(answer)
        self._compiles += int(answer.get("compiles", 0))
        if answer.get("status") == "paused":
            slot.state = "queued"
            if self._pressed:
                self._agenda.add(slot)
            else:  # its own time was over, and not the program's
                self._died(slot, "a search took longer than it may")
        elif answer.get("status") == "searched":
            promotion.keep(slot, "the book holds the best of a longer search")
        elif look and answer.get("status") != "found":
            promotion.keep(slot, str(answer.get("error", "the default design for its sizes is no better")))
            self._agenda.look_over(slot)
        elif answer.get("status") == "found":
            try:
                promoted = promotion.promote(slot, Record.from_dict(answer["record"]))
            except (TilewrightError, ValueError, KeyError) as error:  # what comes from outside is not trusted
                self._give_up(slot, str(error))
                return
            self._promoted, self._kept = self._promoted + promoted, self._kept + (not promoted)
            self._agenda.learnt(slot, promoted, look)
            if look:
                self._agenda.look_over(slot)
        else:
            self._give_up(slot, str(answer.get("error", "the background process gave no answer")))

    def _verify(self, slot: Slot, seed: int) -> None:
        special, job = slot.special, job_of(slot)
        if special is None or job is None:
            return
        named = {"design": special.kernel.design.to_json(), "sizes": list(special.sizes), "seed": seed}
        answer = self._asked(None, {"job": "verify", **job, **named})
        if answer is None:
            return
        self._account(answer)
        if answer.get("status") == "wrong" and slot.special is special:
            promotion.roll_back(slot, f"a check in spare time failed: {answer.get('reason')}")

    def _asked(self, slot: Slot | None, job: dict[str, Any]) -> dict[str, Any] | None:
        """The answer of the background process, or None where it died; callers notice nothing of that."""
        assert self._background is not None
        begun = time.monotonic()
        try:
            return self._background.ask(job)
        except (ChildDied, ChildError, OSError) as error:
            self._account({"seconds": time.monotonic() - begun})
            if not self._ended:
                self._crashes += 1
                if slot is not None:
                    self._died(slot, str(error))
            return None

    def _died(self, slot: Slot, reason: str) -> None:
        """Count a death; a shape that the background process died of twice is not tried again."""
        slot.state, slot.reason = "queued", reason
        if self._agenda.died(slot):
            self._give_up(slot, reason)

    @staticmethod
    def _give_up(slot: Slot, reason: str) -> None:
        slot.state, slot.reason = "given up" if slot.special is None else "specialised", reason
        tell("give up", slot.shape, reason)

    # --------------------------------------------------------------------------------------------- what it knows
    def _account(self, answer: dict[str, Any]) -> None:
        seconds = float(answer.get("seconds", 0.0))
        self._seconds += seconds
        self._spent.add(seconds)

    def _state(self) -> str:
        if self._ended or not self.active:
            return "stopped"
        if self._pressed:
            return "paused"
        if self._busy:
            return "searching"
        return "over budget" if self._spent.seconds >= self.budget.seconds_an_hour else "idle"


def job_of(slot: Slot) -> dict[str, Any] | None:
    """What the background process has to know of a slot, as JSON; None where it could not draw operands like these."""
    at = slot.origin.searched(slot) if slot.common else ()
    told: dict[str, Any] | None = slot.origin.job(dict(at)) if at else None
    return None if told is None else {**told, "sizes": [list(pair) for pair in at]}


def give_up_all(slots: list[Slot], reason: str) -> None:
    """Give up what was queued when the learner itself failed."""
    for slot in slots:
        slot.state, slot.reason = "given up", reason
        tell("give up", slot.shape, reason)


# ------------------------------------------------------------------------------------------------ of this process
_current: Learner | None = None
_starting = threading.Lock()


def start(*, trigger: Trigger | None = None, budget: Budget | None = None) -> Learner:
    """The learner of this process, started if there is none; it does nothing unless TILEWRIGHT_MODE=learn."""
    global _current
    with _starting:
        if _current is None:
            atexit.register(stop)  # the background process leaves no files behind
            _current = Learner(dispatch.TABLE, trigger or Trigger(), budget or Budget()).start()
        return _current


def stop() -> None:
    """End the learner of this process, if there is one."""
    global _current
    with _starting:
        ending, _current = _current, None
    atexit.unregister(stop)
    if ending is not None:
        ending.stop()


def current() -> Learner | None:
    """The learner of this process."""
    return _current


def _after_fork() -> None:
    """A child has no thread that learns; its calls go on with the kernels that were in use."""
    global _current, _starting
    _current, _starting = None, threading.Lock()


os.register_at_fork(after_in_child=_after_fork)

__all__ = ["Learner", "Status", "current", "job_of", "start", "stop"]
