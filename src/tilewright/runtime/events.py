"""What happened to shapes: the last thousand events, for whoever looks, and a line in the log for each swap."""

from __future__ import annotations

import itertools
import logging
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field

from tilewright.runtime.buckets import Shape

KINDS = ("trigger", "search", "promote", "keep", "rollback", "evict", "give up")
MOST = 1000
_LOG = logging.getLogger("tilewright.runtime")
_numbers = itertools.count(1)


@dataclass(frozen=True)
class Event:
    """One thing that happened to a shape; `at` is the time of the system, for people."""

    kind: str
    shape: Shape
    detail: str
    number: int = field(default_factory=_numbers.__next__)
    at: float = field(default_factory=time.time)

    def __str__(self) -> str:
        return f"{self.kind}: {self.shape}: {self.detail}"


Listener = Callable[[Event], None]
_events: deque[Event] = deque(maxlen=MOST)
_listeners: list[Listener] = []


def tell(kind: str, shape: Shape, detail: str) -> Event:
    """Remember an event, log it and tell it to all who subscribed; what they raise is theirs."""
    event = Event(kind, shape, detail)
    _events.append(event)
    _LOG.log(logging.INFO if kind in ("promote", "rollback", "give up") else logging.DEBUG, "%s", event)
    for listener in [*_listeners]:
        with suppress(Exception):
            listener(event)
    return event


def events(since: int = 0) -> tuple[Event, ...]:
    """The events whose number is greater than `since`, of the last MOST."""
    return tuple(e for e in [*_events] if e.number > since)


def subscribe(listener: Listener) -> Callable[[], None]:
    """Call `listener` with each event, on the thread that it happens on; what is returned ends that."""
    _listeners.append(listener)

    def end() -> None:
        with suppress(ValueError):
            _listeners.remove(listener)

    return end


__all__ = ["KINDS", "MOST", "Event", "Listener", "events", "subscribe", "tell"]
