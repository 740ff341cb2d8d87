"""The starter book: designs for common shapes that ship with Tilewright, to be verified and measured on first use."""

from __future__ import annotations

import warnings
from functools import cache
from pathlib import Path

from tilewright.design.book.document import Document
from tilewright.design.book.record import Record
from tilewright.errors import BookError, BookWarning

FOLDER = Path(__file__).parent / "starter"


def records(operator: str) -> tuple[Record, ...]:
    """Shipped designs of an operator, none of them verified on this host."""
    return tuple(r for r in _shipped(FOLDER) if r.key.operator == operator)


@cache
def _shipped(folder: Path) -> tuple[Record, ...]:
    found: list[Record] = []
    for path in sorted(folder.glob("*.json")):
        try:
            document = Document.load(path)
        except BookError as error:
            warnings.warn(f"a part of the starter book is not used: {error}", BookWarning, stacklevel=3)
            continue
        found += document.hints("starter")
    return tuple(found)
