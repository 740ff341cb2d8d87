"""The starter book on this host: its designs for this machine, verified and measured here so that they may be used."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from tilewright.design.book import starter
from tilewright.design.book.key import Key
from tilewright.design.book.semantics import semantics
from tilewright.design.book.store import Book
from tilewright.errors import ArgumentError, MachineError, TilewrightError
from tilewright.machines import nvidia
from tilewright.machines.machine import Machine
from tilewright.operators import OPERATORS
from tilewright.operators.activation import ACTIVATIONS
from tilewright.runtime import dispatch, pool
from tilewright.runtime.chosen import open_book
from tilewright.runtime.compiled import dtypes_of
from tilewright.runtime.designer import Designed, search

_ONE_LOOK = "1 trials"
"""Of a search, where no shipped design is right here: the default design is confirmed, and that is all."""


@dataclass(frozen=True)
class Adopted:
    """What came of a shipped design: `found` is `book` (known before), `hint` (confirmed now), `search` or an error."""

    key: Key
    found: str
    speedup: float = 1.0


def shipped(machine: Machine, threads: int) -> Sequence[Key]:
    """The keys of the starter book that are for `machine` and so many threads, each once."""
    keys = (r.key for name in OPERATORS for r in starter.records(name))
    return list(dict.fromkeys(k for k in keys if k.machine == machine.fingerprint and k.threads == threads))


def adopt(
    book: Book | None = None,
    progress: Callable[[Adopted], None] | None = None,
    wanted: Callable[[Key], bool] = lambda _key: True,
) -> list[Adopted]:
    """Verify and measure here each shipped design for this machine that the book does not hold, and keep what wins.

    For as many threads as this process uses, for its GPU if there is one, and keys that are `wanted`. Takes a second or
    two for each; what the book knows costs nothing.
    """
    known, found = book or open_book(), list[Adopted]()
    for machine, threads in _machines():
        for key in filter(wanted, shipped(machine, threads)):
            found.append(_adopted(key, known, machine))
            if progress is not None:
                progress(found[-1])
    return found


def _machines() -> list[tuple[Machine, int]]:
    """What designs can be measured on here, with the threads of their keys: this host, and its GPU."""
    found = [(dispatch.machine(), pool.available_threads())]
    try:
        return [*found, (nvidia.detect(), 1)]
    except MachineError:
        return found


def _adopted(key: Key, book: Book, machine: Machine) -> Adopted:
    sizes: dict[str, Any] = dict(key.sizes)
    try:
        result: Designed = search(
            key.operator, dtype=dict(key.dtypes), budget=_ONE_LOOK, objective=key.objective, numerics=key.numerics,
            threads=key.threads, book=book, present=[t for t, _ in key.layouts], machine=machine,
            options=options_of(key), **sizes,
        )  # fmt: skip
    except TilewrightError as error:
        return Adopted(key, str(error))
    return Adopted(key, result.found, result.speedup)


def options_of(key: Key) -> dict[str, Any]:
    """The static options that the program of a key was traced with: a key knows it by what it means alone."""
    tile, present = OPERATORS[key.operator].kernel, [t for t, _ in key.layouts]
    choices = [{}, *({"activation": a} for a in ACTIVATIONS if "activation" in dict(tile.signature.options))]
    for options in choices:
        traced = tile.trace(dtypes_of(tile, dict(key.dtypes), present), options=options)
        if semantics(traced) == key.semantics:
            return options
    raise ArgumentError(
        f"{key.operator}: the shipped design {key.hash} is for another version of it; it is passed over"
    )


__all__ = ["Adopted", "adopt", "options_of", "shipped"]
