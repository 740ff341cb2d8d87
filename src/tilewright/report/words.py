"""Mutations and decisions in the words of a report: short enough to stand beside an edge."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator

from tilewright.design.design import Choice

ENDED = {
    "budget": "until the budget was used up",
    "roofline": "until the roofline was near",
    "target": "until the target was met",
    "exhausted": "until no design was left to try",
    "interrupted": "until it was interrupted",
}
"""How long a search went on, by why it stopped."""

# The mutation that sets a decision, by the decision's kind; a kind that is not here is written as it is.
_SETS = {
    "tile": "SetTile", "block": "Block", "unroll": "Unroll", "lanes": "Vectorise", "pack": "Pack",
    "local": "PackLocally", "unpack": "Widen", "atom": "UseAtom", "nontemporal": "Stream", "prefetch": "Prefetch",
    "order": "Reorder order", "inner": "Reorder inner", "threads": "UseThreads",
    "dealt": "Deal",
}  # fmt: skip

# Flags of these mutations say how a change is derived, not what changes.
_DERIVED = frozenset({"Block", "Vectorise"})


def mutation_words(text: str) -> str:
    """`SetTile(n, 48)` as `SetTile n 48`, several together joined by +; what is no such value stays as it is."""
    try:
        return _value(ast.parse(text, mode="eval").body)
    except (SyntaxError, ValueError):
        return text


def _value(node: ast.expr) -> str:
    match node:
        case ast.Call(ast.Name("Together"), [ast.Tuple(parts)]):
            return " + ".join(map(_value, parts))
        case ast.Call(ast.Name("Together"), [part]):
            return _value(part)
        case ast.Call(ast.Name(name), arguments, keywords):
            return " ".join([name, *_arguments(name, [*arguments, *(k.value for k in keywords)])])
        case ast.Tuple(parts):
            return f"({', '.join(map(_value, parts))})"
        case ast.Constant(value):
            return "none" if value is None else str(value)
        case ast.Name(name):
            return name
    raise ValueError(f"not a mutation: {ast.dump(node)}")


def _arguments(name: str, values: list[ast.expr]) -> Iterator[str]:
    """Arguments that say something: no empty lists, no flag that is set, no None after the second."""
    for n, node in enumerate(values):
        match node:
            case ast.Tuple([]):
                continue
            case ast.Constant(bool(flag)):
                if not flag and name not in _DERIVED:
                    yield "off"
            case ast.Constant(None) if n > 1:
                continue
            case _:
                yield _value(node)


def change_words(changes: Iterable[tuple[str, Choice | None]]) -> str:
    """Decisions as the mutations that set them: `Vectorise n + SetTile n 48`; `none` where a decision goes."""
    return " + ".join(_change(name, value) for name, value in changes)


def _change(name: str, value: Choice | None) -> str:
    kind, _, what = name.partition(".")
    said = "none" if value is None else choice_words(value)
    if kind not in _SETS:
        return f"{name}={said}"
    return " ".join(word for word in (_SETS[kind], what, "" if value is True else said) if word)


def choice_words(value: Choice) -> str:
    """A decision's value: a list of names by commas in brackets, one name alone, on or off for flags."""
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, tuple):
        return value[0] if len(value) == 1 else f"({', '.join(value)})"
    return str(value)
