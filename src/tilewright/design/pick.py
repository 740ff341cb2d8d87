"""What a draw asks for each of its choices, so that one description serves random draws and enumeration."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, TypeVar

T = TypeVar("T")


class Pick(Protocol):
    """Chooses one of the options for `what`; the first is the most usual one."""

    def __call__(self, what: str, options: Sequence[T], /) -> T:
        """The option chosen."""
        ...


__all__ = ["Pick"]
