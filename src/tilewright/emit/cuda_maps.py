"""Elementwise operators and constants as C++."""

from __future__ import annotations

import math

from tilewright.emit.cuda_writer import ctype
from tilewright.language.dtypes import DType

_REDUCTIONS = {"sum": "Add", "max": "Max", "min": "Min"}


def functor(op: str, result: DType) -> str:
    """The function object of an elementwise operator; `cast` takes its target from the result."""
    if op == "cast":
        return f"tw::Cast<{ctype(result)}>{{}}"
    return f"tw::{op.capitalize()}{{}}"


def reducer(op: str) -> str:
    """The function object of a reduction."""
    return f"tw::{_REDUCTIONS[op]}{{}}"


def literal(value: float | int, dtype: DType) -> str:
    """A number of a type."""
    match dtype.kind, dtype.bits:
        case "bool", _:
            return "true" if value else "false"
        case "int", bits:
            return f"{int(value)}ll" if bits == 64 else str(int(value))
        case _, 64:
            return _special(float(value), "__longlong_as_double(0x7ff0000000000000ll)") or repr(float(value))
        case _, 32:
            return _special(float(value), "__int_as_float(0x7f800000)") or f"{float(value)!r}f"
    return f"tw::cast<{ctype(dtype)}>({float(value)!r}f)"


def _special(value: float, infinity: str) -> str | None:
    if math.isnan(value):
        return f"({infinity} - {infinity})"
    if math.isinf(value):
        return infinity if value > 0 else f"-{infinity}"
    return None


__all__ = ["functor", "literal", "reducer"]
