"""Operands of a tile program checked against it: names, ranks, sizes, dtypes, and memory that must not be shared."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from typing import Any

from tilewright.errors import ArgumentError, DTypeError
from tilewright.language import ir
from tilewright.language.dtypes import DType, f64
from tilewright.language.program import Tensor, TileProgram
from tilewright.runtime.buffer import Buffer

_MOST_F32 = (2 - 2**-24) * 2.0**127
"""What is not below this rounds to no finite f32."""


def operands_of(
    program: TileProgram, given: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, float | int], dict[str, Any]]:
    """(tensors, scalars, static options) of a call by name; ArgumentError for a name that is unknown or missing."""
    specs = {p.name: p for p in program.signature.params}
    options = {name for name, _ in program.signature.options}
    unknown = sorted(set(given) - set(specs) - options)
    if unknown:
        raise ArgumentError(
            f"{program.name} has no operand {unknown[0]!r}; it takes {', '.join([*specs, *sorted(options)])}"
        )
    there = {n: x for n, x in given.items() if n in specs and x is not None}
    missing = [p.name for p in specs.values() if not p.optional and p.name not in there]
    if missing:
        raise ArgumentError(f"{program.name} was not given {', '.join(missing)}; it takes {', '.join(specs)}")
    tensors = {n: there[n] for n, p in specs.items() if n in there and isinstance(p.spec, Tensor)}
    scalars = {n: there[n] for n, p in specs.items() if n in there and not isinstance(p.spec, Tensor)}
    return tensors, scalars, {n: x for n, x in given.items() if n in options}


def check_operands(program: ir.Kernel, buffers: Mapping[str, Buffer]) -> dict[str, int]:
    """The size of every dim; ArgumentError or DTypeError naming the operand that does not fit the program."""
    sizes: dict[str, int] = {}
    first: dict[str, str] = {}
    for p in program.params:
        if p.dims is None:
            continue
        buffer, what = buffers[p.name], f"{program.name}: {p.name} of shape {list(buffers[p.name].shape)}"
        if buffer.dtype != p.dtype:
            raise DTypeError(f"{what} is {buffer.dtype}, not {p.dtype}; convert it")
        if len(buffer.shape) != len(p.dims):
            raise ArgumentError(
                f"{what} has {len(buffer.shape)} dimensions, not [{', '.join(map(str, p.dims))}]; reshape it"
            )
        for dim, n in zip(p.dims, buffer.shape, strict=True):
            wanted = dim if isinstance(dim, int) else sizes.setdefault(dim, n)
            why = f"that of {first[dim]}" if isinstance(dim, str) and dim in first else "the program's"
            if n != wanted:
                raise ArgumentError(f"{what} has {n} where {dim} is {wanted}, {why}; give one that fits")
            if isinstance(dim, str):
                first.setdefault(dim, p.name)
    _check_memory(program, buffers)
    return sizes


def _check_memory(program: ir.Kernel, buffers: Mapping[str, Buffer]) -> None:
    """Outputs are written tile by tile in any order: they must be writable, and nobody else's input."""
    for name in dict.fromkeys(s.ref.buffer for s in ir.walk(program.body) if isinstance(s, ir.Store)):
        output = buffers[name]
        if not output.writable:
            raise ArgumentError(f"{program.name}: the output {name} is read-only; pass an array that can be written")
        if output.size and any(n > 1 and stride == 0 for n, stride in zip(output.shape, output.strides, strict=True)):
            raise ArgumentError(f"{program.name}: elements of the output {name} share memory; pass one of its own")
        for other, buffer in buffers.items():
            if other != name and output.overlaps(buffer):
                raise ArgumentError(
                    f"{program.name}: the output {name} shares memory with {other}; pass one of its own"
                )


def scalar_of(program: ir.Kernel, param: ir.Param, given: Mapping[str, Any]) -> float | int:
    """The value of a scalar parameter; ArgumentError if it is missing, no number of its kind, or beyond its type."""
    if param.name not in given:
        raise ArgumentError(f"{program.name} was not given the scalar {param.name}")
    value = given[param.name]
    kinds = (int, float) if param.dtype.kind == "float" else (int,)
    try:
        value = value.item() if hasattr(value, "item") else value
    except (ValueError, RuntimeError):
        value = None  # more than one element
    if isinstance(value, bool) or not isinstance(value, kinds):
        raise ArgumentError(
            f"{program.name}: {param.name}={given[param.name]!r} is no {param.dtype}; pass a plain number"
        )
    number: float | int = value
    if not _holds(param.dtype, number):
        raise ArgumentError(
            f"{program.name}: {param.name}={number!r} does not fit {param.dtype}; pass a smaller number"
        )
    return number


def _holds(dtype: DType, number: float | int) -> bool:
    """Whether a number has a place in a type: floats may round, but not become infinite."""
    if dtype.kind == "int":
        return -(1 << (dtype.bits - 1)) <= number < 1 << (dtype.bits - 1)
    if isinstance(number, float) and not math.isfinite(number):
        return True
    return abs(number) <= sys.float_info.max if dtype == f64 else abs(number) < _MOST_F32


__all__ = ["check_operands", "operands_of", "scalar_of"]
