"""Politeness: Python that runs beside a program works in short pieces and lets others have the interpreter at once.

One thread of a process runs Python at a time. A thread that is asked for the interpreter gives it up after the switch
interval, five milliseconds unless somebody says otherwise: a request that calls a driver ten times waits ten times as
long as that beside a thread that computes, and even ten short waits add up. So a polite thread asks for a short
interval, and between pieces of its work it sleeps for several times as long as they took.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

INTERVAL = 2e-5
"""Seconds for which a polite thread keeps the interpreter after another one has asked for it."""

PIECE, SLEEP = 2e-4, 1e-3
"""Seconds of work between two sleeps, and of a sleep."""

_own = threading.local()


@contextmanager
def polite() -> Iterator[None]:
    """Within the `with` block this thread breathes, and no thread keeps the interpreter from another for long.

    The interval is the process's: one that somebody sets meanwhile stays.
    """
    before = sys.getswitchinterval()
    sys.setswitchinterval(min(before, INTERVAL))
    own = sys.getswitchinterval()
    outer, _own.since = getattr(_own, "since", None), time.monotonic()
    try:
        yield
    finally:
        _own.since = outer
        if sys.getswitchinterval() == own:
            sys.setswitchinterval(before)


def breathe() -> None:
    """Between two pieces of work that may be polite: sleep, where this thread is polite and has worked for a while."""
    since: float | None = getattr(_own, "since", None)
    if since is not None and time.monotonic() - since > PIECE:
        time.sleep(SLEEP)
        _own.since = time.monotonic()


__all__ = ["INTERVAL", "PIECE", "SLEEP", "breathe", "polite"]
