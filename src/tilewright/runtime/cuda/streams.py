"""The stream that launches go to: the one that this thread named last, else torch's current one."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from tilewright.runtime.form import current_stream

_named = threading.local()


@contextmanager
def on(stream: int) -> Iterator[None]:
    """Send the launches of this thread to `stream` (its handle) inside the `with` block."""
    before, _named.stream = getattr(_named, "stream", None), stream
    try:
        yield
    finally:
        _named.stream = before


def is_named() -> bool:
    """Whether this thread has named the stream that its launches go to."""
    return getattr(_named, "stream", None) is not None


def stream_of(device: int) -> int:
    """The handle of the stream in use on a device; the default stream's, 0, where torch was never imported."""
    named: int | None = getattr(_named, "stream", None)
    if named is not None:
        return named
    return current_stream()(device) if "torch" in sys.modules else 0


__all__ = ["is_named", "on", "stream_of"]
