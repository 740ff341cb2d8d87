"""Politeness: Python that runs beside a program lets it have the interpreter back after some microseconds.

One thread of a process runs Python at a time. A thread that is asked for the interpreter gives it up after the switch
interval, five milliseconds unless somebody says otherwise: a request that calls a driver ten times waits ten times as
long as that beside a thread that computes.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

INTERVAL = 2e-5
"""Seconds for which a polite thread keeps the interpreter after another one has asked for it."""


@contextmanager
def polite() -> Iterator[None]:
    """Within the `with` block no thread keeps the interpreter from another for longer than INTERVAL.

    The interval is the process's: an interval that somebody sets meanwhile stays.
    """
    before = sys.getswitchinterval()
    sys.setswitchinterval(min(before, INTERVAL))
    own = sys.getswitchinterval()
    try:
        yield
    finally:
        if sys.getswitchinterval() == own:
            sys.setswitchinterval(before)


__all__ = ["INTERVAL", "polite"]
