"""Element types, elementwise operators and constants as C++."""

from __future__ import annotations

import math

from tilewright.language.dtypes import DType

_TYPES = {
    "f64": "double",
    "f32": "float",
    "bf16": "tw::bf16",
    "f16": "tw::f16",
    "f8e4m3": "tw::f8e4m3",
    "i64": "tw::i64",
    "i32": "int",
    "i8": "tw::i8",
    "bool": "bool",
}
_REDUCTIONS = {"sum": "Add", "max": "Max", "min": "Min"}


def ctype(dtype: DType) -> str:
    """The C++ type of an element."""
    return _TYPES[dtype.name]


def functor(op: str, result: DType) -> str:
    """The function object of an elementwise operator; `cast` takes its target from the result."""
    if op == "cast":
        return f"tw::Cast<{ctype(result)}>{{}}"
    return f"tw::{op.capitalize()}{{}}"


def shifting(op: str, result: DType, divisor: float | int | str | None) -> str | None:
    """The function object of a division of integers by a known power of two, which a shift does; None for others."""
    if op not in ("div", "mod") or result.kind != "int" or not isinstance(divisor, int) or divisor.bit_count() != 1:
        return None
    return f"tw::{op.capitalize()}By<{divisor.bit_length() - 1}>{{}}" if divisor > 0 else None


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


__all__ = ["ctype", "functor", "literal", "reducer", "shifting"]
