"""Who is told of the launches of passes: a replayed graph runs its kernels without Python seeing them one by one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

Watcher = Callable[[Sequence[Any]], None]
"""Is given the launches of a pass (`recording.Later`) each time that it has been queued."""

_watchers: list[Watcher] = []


@contextmanager
def watched(watcher: Watcher) -> Iterator[None]:
    """Tell `watcher` of every pass that any thread queues inside the `with` block."""
    _watchers.append(watcher)
    try:
        yield
    finally:
        _watchers.remove(watcher)


def tell(launches: Sequence[Any]) -> None:
    """A pass was queued."""
    for watcher in _watchers:
        watcher(launches)


__all__ = ["Watcher", "tell", "watched"]
