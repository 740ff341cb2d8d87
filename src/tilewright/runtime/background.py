"""The background: a process of low priority that searches and verifies, within a budget, and may die of it.

It is a `Child` that runs `background_worker`. What it may not do is put together here: how much, how fast, how long;
and that it stops when the program that it works for is busy. It stops between two trials, and what was tried is in the
book, so that it goes on from there.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from tilewright.errors import ArgumentError
from tilewright.machines.cores import affinity
from tilewright.runtime import pool
from tilewright.runtime.child import Child
from tilewright.runtime.scratch import Scratch
from tilewright.runtime.trigger import Clock

_MODULE = "tilewright.runtime.background_worker"
_HOUR = 3600.0
_START_SECONDS = 30.0
_MOST_BLAS = 4  # cores that references are computed on, where the program leaves so many


@dataclass(frozen=True)
class Budget:
    """What background work may take: `trials` a search, a `share` of a core's time, `seconds_an_hour` at work.

    `memory` bounds, in bytes, what its process may add to what it starts with. One search tries designs for
    `job_seconds` at full share, and decides then.
    It pauses while more than `queue` requests wait, or while the 99th percentile of latency is over `p99` seconds.
    """

    trials: int = 24
    share: float = 0.5
    seconds_an_hour: float = 600.0
    memory: int = 2 << 30
    job_seconds: float = 60.0
    queue: int = 4
    p99: float | None = None

    def __post_init__(self) -> None:
        if not 0 < self.share <= 1:
            raise ArgumentError(f"share={self.share!r} is no share of a core; give more than 0 and at most 1")
        for name in ("trials", "seconds_an_hour", "memory", "job_seconds"):
            if not getattr(self, name) > 0:
                raise ArgumentError(f"{name}={getattr(self, name)!r} lets nothing be done; give more than 0")


class Spent:
    """Seconds at work within the last hour."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._work: deque[tuple[float, float]] = deque()

    def add(self, seconds: float) -> None:
        """Note work that has just ended."""
        self._work.append((self._clock(), seconds))

    @property
    def seconds(self) -> float:
        """Of work that ended within the last hour."""
        while self._work and self._work[0][0] < self._clock() - _HOUR:
            self._work.popleft()
        return sum(s for _, s in self._work)


class Gate:
    """A file that says "not now" to the background process, which looks for it between two trials."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def closed(self) -> bool:
        """Whether background work is to stop."""
        return self.path.exists()

    def close(self) -> None:
        """Stop background work at its next trial; a full disk lets it go on."""
        with suppress(OSError):
            self.path.touch()

    def open(self) -> None:
        """Let it go on."""
        with suppress(OSError):
            self.path.unlink(missing_ok=True)


class Background(Protocol):
    """What a learner needs of the process; tests put others in its place."""

    gate: Gate

    def ask(self, job: Mapping[str, Any]) -> dict[str, Any]:
        """The answer to a job; ChildDied where the process died of it, ChildError where none can be started."""
        ...

    def stop(self) -> None:
        """End the process, whatever it is doing."""
        ...


class BackgroundProcess:
    """The process; started by its first job, and again by the next after it died."""

    def __init__(self, budget: Budget) -> None:
        self._budget = budget
        self._scratch = Scratch("background")
        self.gate = Gate(self._scratch.path / "not-now")
        setup = {
            "job": "setup",
            "gate": str(self.gate.path),
            "share": budget.share,
            "memory": budget.memory,
            "threads": pool.available_threads(),
        }
        blas = max(1, min(_MOST_BLAS, len(affinity()) - pool.available_threads()))
        environment = {"DEBUG": "0", "OPENBLAS_NUM_THREADS": str(blas), "TILEWRIGHT_MODE": "learn"}
        self._child = Child(_MODULE, setup, self._scratch.path, memory_limit=budget.memory, environment=environment)

    @property
    def pid(self) -> int | None:
        """Of the process, while there is one."""
        return self._child.pid

    def ask(self, job: Mapping[str, Any]) -> dict[str, Any]:
        """The answer to a job; a job that takes three times `job_seconds` at the share of time it may take hangs."""
        return self._child.ask(job, _START_SECONDS + 3.0 * self._budget.job_seconds / self._budget.share)

    def stop(self) -> None:
        """Kill the process; its files go too."""
        self._child.stop()
        self._scratch.remove()


class Pace:
    """Holds a process to a share of time: sleeps after each piece of work as long as the share asks for."""

    def __init__(self, share: float) -> None:
        self._idle = 1 / share - 1
        self._since = time.monotonic()
        self.worked = 0.0
        """Seconds at work."""

    def rest(self) -> None:
        """To be called between two pieces of work."""
        worked = time.monotonic() - self._since
        self.worked += worked
        time.sleep(worked * self._idle)
        self._since = time.monotonic()


__all__ = ["Background", "BackgroundProcess", "Budget", "Gate", "Pace", "Spent"]
