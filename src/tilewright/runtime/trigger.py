"""Triggers: when a shape has been met often enough for a search. Plain data, judged by a clock that is given.

The clock counts seconds and never goes back (`time.monotonic`): setting the time of the system triggers nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass, field

from tilewright.errors import ArgumentError
from tilewright.runtime.bounded import Bounded

Clock = Callable[[], float]

MOST_FIRED = 4096
"""Keys that are remembered to have fired: more than a table holds."""


@dataclass(frozen=True)
class Evidence:
    """What is known of a shape: its calls, seconds that each takes and that the best kernel may save of them."""

    calls: int
    seconds: float = 0.0
    saving: float = 0.0


@dataclass(frozen=True)
class Trigger:
    """Fires for a shape that was called `count` times; or at all, within each `interval` seconds; or that pays.

    It pays when what its calls so far would have saved is `payback` times the `cost` of a search in seconds: traffic
    is expected to go on for as long as it did (the rule for renting skis). Whichever comes first; None is off.
    """

    count: int | None = 1000
    interval: float | None = None
    payback: float | None = 1.0
    cost: float = 30.0

    def __post_init__(self) -> None:
        for name in ("count", "interval", "payback", "cost"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ArgumentError(f"a trigger's {name}={value!r} never ends; give more than 0, or None for none")

    def reason(self, evidence: Evidence, interval_over: bool) -> str | None:
        """Why a shape is to be specialised now; None if it is not."""
        if self.count is not None and evidence.calls >= self.count:
            return f"{evidence.calls} calls, {self.count} are enough"
        saved = evidence.calls * evidence.saving
        if self.payback is not None and saved >= self.payback * self.cost:
            return f"{saved:.3g} s could have been saved, a search costs {self.cost:.3g} s"
        if interval_over and evidence.calls:
            return f"{evidence.calls} calls when {self.interval:g} s were over"
        return None


@dataclass
class Watch:
    """A trigger at work: it fires once for each key; again only if MOST_FIRED others fired after it."""

    trigger: Trigger
    clock: Clock
    _fired: Bounded[Hashable, bool] = field(default_factory=lambda: Bounded(MOST_FIRED))
    _since: float | None = None

    def tick(self) -> bool:
        """Whether an interval has ended since the last one did; to be asked once in each round over the shapes."""
        if self.trigger.interval is None:
            return False
        now = self.clock()
        if self._since is None:
            self._since = now
        if now - self._since < self.trigger.interval:
            return False
        self._since = now
        return True

    def fires(self, key: Hashable, evidence: Evidence, interval_over: bool = False) -> str | None:
        """Why `key` is to be specialised, the one time that it is; else None."""
        if key in self._fired:
            return None
        reason = self.trigger.reason(evidence, interval_over)
        if reason is not None:
            self._fired[key] = True
        return reason


__all__ = ["Clock", "Evidence", "Trigger", "Watch"]
