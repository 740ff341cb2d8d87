"""Keys as people name them: the first digits of a hash, or an operator with some of its fields."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tilewright.design.book.key import Key
from tilewright.errors import BookError
from tilewright.operators import OPERATORS
from tilewright.operators.names import CALLS, operator_name

if TYPE_CHECKING:
    from tilewright.design.book.store import Book

SHORTEST = 4
"""Digits of a hash that are taken for one."""

_WORDS = ("dtype", "threads", "machine", "objective", "numerics")


@dataclass(frozen=True)
class Query:
    """An operator and what is known of the key: sizes, and other fields as text."""

    operator: str
    sizes: dict[str, int]
    fields: dict[str, str]

    @property
    def text(self) -> str:
        """The query as it is written."""
        given = {**{d: str(n) for d, n in self.sizes.items()}, **self.fields}
        return " ".join((self.operator, *(f"{name}={value}" for name, value in given.items())))

    def fits(self, key: Key) -> bool:
        """Whether all that the query says is so for a key."""
        sizes = dict(key.sizes)
        said = all(sizes.get(d) == n for d, n in self.sizes.items())
        told = all(str(getattr(key, name)).startswith(value) for name, value in self.fields.items())
        return self.operator == key.operator and said and told


def query_of(words: Sequence[str]) -> Query | str:
    """`matmul M=16 dtype=bf16` as a query, or the first digits of a hash; BookError for what is neither.

    A call of `tilewright.ops` stands for its operator: linear for matmul.
    """
    first, *rest = " ".join(words).split() or [""]
    if not rest and len(first) >= SHORTEST and set(first) <= set("0123456789abcdef"):
        return first
    sizes, fields = {}, {}
    for word in rest:
        name, sign, value = word.partition("=")
        if name in _WORDS and value:
            fields[name] = value
        elif sign and name.isidentifier() and value.isdigit():
            sizes[name] = int(value)
        else:
            raise BookError(f"{word!r} is no field of a key; write sizes as M=16, and {'=, '.join(_WORDS)}= as words")
    if not first.replace("_", "").isalnum():
        raise BookError(f"{first!r} is no key; give the first digits of one, or as in: matmul M=16 N=4096 dtype=bf16")
    return Query(operator_name(first), sizes, fields)


def found(book: Book, wanted: Query | str, machine: str = "") -> Key | None:
    """The only key of the book that is meant, on `machine` first; None where there is none.

    Raises BookError where several fit (it lists them), or where no key starts with these digits.
    """
    if isinstance(wanted, str):
        fitting = book.known_keys(wanted)
        if not fitting:
            raise BookError(f"no key starts with {wanted}; `tilewright book list` names those there are")
    else:
        fitting = [k for k in book.known_keys() if wanted.fits(k)]
        fitting = [k for k in fitting if k.machine == machine] or fitting
    if len(fitting) > 1:
        raise BookError(
            f"{len(fitting)} keys fit; give one of these:\n" + "\n".join(map(_line, sorted(fitting, key=_line)))
        )
    return fitting[0] if fitting else None


def unknown(book: Book, query: Query) -> BookError:
    """What to say where nothing is known of a query's operator."""
    operators = sorted({k.operator for k in book.known_keys()})
    near = difflib.get_close_matches(query.operator, [*operators, *OPERATORS, *CALLS], 1)
    hint = f"did you mean {near[0]}?" if near else f"it knows {', '.join(operators) or 'no operator yet'}"
    return BookError(f"the book has no {query.text}; {hint}")


def _line(key: Key) -> str:
    details = f"{key.threads} thread(s), {key.objective}, {key.numerics}, machine {key.machine}"
    return f"  {key.hash[:12]} {key.label}, {details}" + (f", aligned {' '.join(key.aligned)}" if key.aligned else "")
