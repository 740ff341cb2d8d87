"""A model checker for small pieces of Python: threads run the real code, and a schedule says which of them goes on.

Before each line of the files under watch a thread stops until it is chosen, so that at any time one of them runs. All
schedules with at most `preemptions` switches away from a thread that could have gone on are tried, by backtracking (as
in Musuvathi and Qadeer, PLDI 2007): a race that needs no more of them than that is found, whichever lines it takes.
"""

from __future__ import annotations

import gc
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

Body = Callable[[], None]
_PATIENCE = 20.0  # seconds for a step that takes microseconds: a thread that waits for another one, which is stopped


@dataclass
class _Step:
    """A point of choice: who could go on, the one that was chosen, and how many preemptions led here."""

    able: tuple[int, ...]
    chosen: int
    before: int | None
    preemptions: int

    def costs(self, choice: int) -> int:
        return self.preemptions + (self.before in self.able and choice != self.before)


@dataclass
class _Run:
    """One schedule: the choices of `plan`, and then each thread for as long as it goes."""

    bodies: Sequence[Body]
    watched: tuple[str, ...]
    plan: list[int]
    steps: list[_Step] = field(default_factory=list)
    errors: list[BaseException] = field(default_factory=list)

    def __post_init__(self) -> None:
        count = len(self.bodies)
        self._go = [threading.Semaphore(0) for _ in range(count)]
        self._stopped = threading.Semaphore(0)
        self._done = [False] * count

    def run(self) -> None:
        threads = [threading.Thread(target=self._body, args=(n,), daemon=True) for n in range(len(self.bodies))]
        for thread in threads:
            thread.start()
            self._wait()  # each stands before its first line
        last, preemptions = None, 0
        while not all(self._done):
            able = tuple(n for n, done in enumerate(self._done) if not done)
            at = len(self.steps)
            chosen = self.plan[at] if at < len(self.plan) else last if last in able else able[0]
            step = _Step(able, chosen, last, preemptions)
            preemptions, last = step.costs(chosen), chosen
            self.steps.append(step)
            self._go[chosen].release()
            self._wait()
        for thread in threads:
            thread.join()

    def _wait(self) -> None:
        if not self._stopped.acquire(timeout=_PATIENCE):
            raise AssertionError("a thread waits for one that is stopped: a lock is held across a watched line")

    def _body(self, number: int) -> None:
        def trace(frame, event, _argument):
            if frame.f_code.co_filename.endswith(self.watched):
                if event == "line":
                    self._stopped.release()
                    self._go[number].acquire()
                return trace
            return None

        self._stopped.release()
        self._go[number].acquire()
        sys.settrace(trace)
        try:
            self.bodies[number]()
        except BaseException as error:
            self.errors.append(error)
        finally:
            sys.settrace(None)
            self._done[number] = True
            self._stopped.release()


def explore(
    make: Callable[[], tuple[Sequence[Body], Callable[[], None]]], watched: tuple[str, ...], preemptions: int
) -> int:
    """Run every schedule; how many there were. `make` gives the threads of a run, and what must hold after it."""
    plan: list[int] | None = []
    runs = 0
    collects = gc.isenabled()
    gc.disable()  # what it would call in the middle of a run is no step of the threads
    try:
        while plan is not None:
            bodies, check = make()
            run = _Run(bodies, watched, plan)
            run.run()
            for error in run.errors:
                raise AssertionError(f"schedule {[s.chosen for s in run.steps]}") from error
            check()
            runs += 1
            plan = _next(run.steps, preemptions)
            del bodies, check, run
            if runs % 64 == 0:
                gc.collect()
    finally:
        if collects:
            gc.enable()
    return runs


def _next(steps: list[_Step], most: int) -> list[int] | None:
    """The choices of the schedule after this one; None after the last."""
    for at in reversed(range(len(steps))):
        step = steps[at]
        later = [n for n in _order(step) if step.costs(n) <= most]
        rest = later[later.index(step.chosen) + 1 :]
        if rest:
            return [*(s.chosen for s in steps[:at]), rest[0]]
    return None


def _order(step: _Step) -> list[int]:
    """All that could be chosen; the one that a run takes by itself first."""
    own = step.before if step.before in step.able else step.able[0]
    return [own, *(n for n in step.able if n != own)]
