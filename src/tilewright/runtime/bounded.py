"""A mapping that holds so many entries and no more: what was put in first makes room."""

from __future__ import annotations

from typing import TypeVar

K = TypeVar("K")
V = TypeVar("V")


class Bounded(dict[K, V]):
    """A dict of at most `most` entries, a few more while several threads set some; `d[key] = value` bounds it."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self.most = most

    def __setitem__(self, key: K, value: V) -> None:
        if len(self) >= self.most and key not in self:
            for oldest in list(self)[: len(self) - self.most + 1]:
                self.pop(oldest, None)  # another thread may have been quicker
        super().__setitem__(key, value)


__all__ = ["Bounded"]
