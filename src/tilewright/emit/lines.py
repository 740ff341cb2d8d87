"""Text that is written line by line, each at the depth of the block it stands in."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


class Lines:
    """Lines of an emitted text; what opens and ends a block is the text's own."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.depth = 0

    def line(self, text: str) -> None:
        """Append a line."""
        self.lines.append("  " * self.depth + text)

    @contextmanager
    def deeper(self) -> Iterator[None]:
        """What is written inside the `with` stands one level deeper."""
        self.depth += 1
        try:
            yield
        finally:
            self.depth -= 1

    def text(self) -> str:
        """All lines."""
        return "\n".join(self.lines) + "\n"


__all__ = ["Lines"]
