"""Designs that the book holds for what a program launches: looked up once for each shape, and never on its hot path."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from functools import cache
from pathlib import Path

from tilewright.design.book.key import Key
from tilewright.design.book.store import FILE, Book
from tilewright.design.default import Facts
from tilewright.design.design import Design
from tilewright.design.legality import legal
from tilewright.knobs import knobs
from tilewright.language import ir

Unit = Mapping[str, tuple[int, ...]]
_lock = threading.Lock()


def book_path() -> Path | None:
    """The file of the book that the knobs name; None where they say that there is to be none."""
    settings = knobs()
    if settings.book is False:
        return None
    return settings.book or settings.cache_dir / FILE


def open_book() -> Book:
    """The book of this process; one in memory where the knobs say off."""
    path = book_path()
    return Book.in_memory() if path is None else _opened(path)


@cache
def _opened(path: Path) -> Book:
    return Book.open(path)


def designed_for(kernel: ir.Kernel, facts: Facts, threads: int) -> Design | None:
    """The design that was found, or confirmed, on this host for just these facts; None to use the default."""
    path = book_path()
    if path is None or knobs().mode == "generic" or not path.exists():
        return None
    key = Key.of(kernel, facts, threads=threads, numerics=knobs().numerics)
    with _lock:
        book = _opened(path)
        record = book.get(key) or (book.get(key.unaligned) if facts.aligned else None)
    return record.design if record is not None and not legal(kernel, record.design, facts) else None


__all__ = ["book_path", "designed_for", "open_book"]
