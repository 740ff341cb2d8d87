"""Operators by the names that people give them: their own, and those of the calls of `tilewright.ops` that run them."""

from __future__ import annotations

import difflib

from tilewright.errors import ArgumentError
from tilewright.operators import OPERATORS
from tilewright.operators.operator import Operator

CALLS = {"linear": "matmul", "varlen_attention": "packed_attention"}
"""Calls of `tilewright.ops` that run an operator of another name."""


def operator_name(name: str) -> str:
    """The name of the operator that the call of this name runs; any other name as it is."""
    return CALLS.get(name, name)


def operator_of(name: str) -> Operator:
    """The operator of this name, or that the call of this name runs; ArgumentError that says which there are."""
    found = OPERATORS.get(operator_name(name))
    if found is None:
        like = difflib.get_close_matches(name.lower().replace("-", "_"), [*OPERATORS, *CALLS], 1)
        there = f"did you mean {like[0]}?" if like else f"there are {', '.join(OPERATORS)}."
        raise ArgumentError(f"no operator is called {name!r}; {there} For one of your own write file.py:name")
    return found


__all__ = ["CALLS", "operator_name", "operator_of"]
