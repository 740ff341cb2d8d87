"""Designs that the book holds for what a program launches: looked up once for each shape, and never on its hot path."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from tilewright.design.book.key import Key
from tilewright.design.book.record import Record
from tilewright.design.book.semantics import semantics
from tilewright.design.book.store import FILE, Book
from tilewright.design.default import Facts
from tilewright.design.legality import legal
from tilewright.knobs import knobs
from tilewright.language import ir
from tilewright.machines.machine import Machine


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
    """The book of the knobs, which name `path`."""
    return Book.open()


def sizes_of(kernel: ir.Kernel, machine: Machine) -> frozenset[tuple[tuple[str, int], ...]]:
    """The sizes for which the book holds a design of a program that was verified here, each in the program's order."""
    path = _in_use()
    if path is None:
        return frozenset()
    own = semantics(kernel)
    found = (k for k in _verified(path) if k.semantics == own and k.machine == machine.fingerprint)
    return frozenset(tuple((d, dict(k.sizes)[d]) for d in kernel.dims) for k in found)


def record_for(kernel: ir.Kernel, facts: Facts, threads: int) -> Record | None:
    """The design that was found, or confirmed, on this host for just these facts; None to use the default."""
    path = _in_use()
    if path is None:
        return None
    key = Key.of(kernel, facts, threads=threads, numerics=knobs().numerics)
    book = _opened(path)
    record = book.get(key) or (book.get(key.unaligned) if facts.aligned else None)
    return record if record is not None and not legal(kernel, record.design, facts) else None


def forget() -> None:
    """What was read of a book: it has changed."""
    _verified.cache_clear()


def _in_use() -> Path | None:
    """The book to ask, where there is one."""
    path = book_path()
    return path if path is not None and knobs().mode != "generic" and path.exists() else None


@cache
def _verified(path: Path) -> tuple[Key, ...]:
    return tuple(record.key for record in _opened(path).list() if record.verified)


__all__ = ["book_path", "forget", "open_book", "record_for", "sizes_of"]
