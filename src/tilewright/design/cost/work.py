"""What a program has to do at its sizes, whatever its design: operations, and bytes that move at least once.

Ranges that depend on data (ragged lengths, causal masks) count in full, and what is computed once a tile counts as if
once an operand; gathers count the elements they can read at most.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from tilewright.language import ir

# One operation an element, as roofline plots count: a comparison, a choice or a change of type is none.
_FREE = ir.COMPARISONS | ir.LOGICAL | {"select", "cast"}


def flops_of(program: ir.Kernel, sizes: Mapping[str, int]) -> float:
    """Floating-point operations of a program."""
    return _flops(program.body, sizes, {}, ())


def _flops(
    body: tuple[ir.Stmt, ...], sizes: Mapping[str, int], axes: Mapping[str, int], singles: tuple[int, ...]
) -> float:
    """Operations of `body`; `singles` are the lengths of the enclosing loops over single positions."""
    total, repeats = 0.0, math.prod(singles)
    lets = {s.name: s for s in ir.walk(body) if isinstance(s, ir.Let)}
    for stmt in body:
        if isinstance(stmt, ir.Loop):
            inner, each = dict(axes), list(singles)
            for axis in stmt.axes:
                inner[axis.name] = inner[axis.over] if axis.over in inner else sizes[axis.over]
                if axis.each:
                    each.append(inner[axis.name])
            total += _flops(stmt.body, sizes, inner, tuple(each))
        elif isinstance(stmt, ir.Let):
            points = math.prod(axes[a] if a in axes else sizes[a] for a in _points(stmt))
            total += repeats * points * _operations(stmt, lets)
        else:
            total += _flops(ir.blocks(stmt), sizes, axes, singles)
    return total


def _operations(let: ir.Let, lets: Mapping[str, ir.Let]) -> int:
    """Floating-point operations for each point that `_points` counts; adding up a dot or reduction is part of it."""
    match let.expr:
        case ir.Dot():
            return 2
        case ir.Reduce():
            return int(let.type.dtype.kind == "float")
        case ir.Map("add" | "max" | "min", args) if any(
            isinstance(lets[a].expr, (ir.Dot, ir.Reduce)) for a in args if a in lets
        ):
            return 0
        case ir.Map(op, _) if op not in _FREE:
            return int(let.type.dtype.kind == "float")
        case _:
            return 0


def _points(let: ir.Let) -> tuple[str, ...]:
    match let.expr:
        case ir.Dot(_, _, axis) | ir.Reduce(_, _, axis):
            return (*let.type.axes, axis)
        case _:
            return let.type.axes


def bytes_of(program: ir.Kernel, sizes: Mapping[str, int]) -> int:
    """Every tensor once; of one that is gathered from, no more than the gathers read."""
    axes: dict[str, int] = {}
    for loop in (s for s in ir.walk(program.body) if isinstance(s, ir.Loop)):
        for axis in loop.axes:
            axes[axis.name] = axes[axis.over] if axis.over in axes else sizes[axis.over]
    types = {s.name: s.type for s in ir.walk(program.body) if isinstance(s, ir.Let)}
    touched: dict[str, dict[tuple[object, ...], int]] = {}
    for ref in _refs(program.body):
        used = {a for i in ref.index if isinstance(i, str) for a in (types[i].axes if i in types else (i,))}
        if any(isinstance(i, str) and i in types for i in ref.index):
            used |= {a.name for s in ir.walk(program.body) if isinstance(s, ir.Loop) for a in s.axes if a.each}
        count = math.prod(axes[a] if a in axes else sizes[a] for a in used)
        # Places that are named by different numbers, as the halves of a head, are parts of a tensor beside each other.
        part, parts = tuple(i if isinstance(i, int) else None for i in ref.index), touched.setdefault(ref.buffer, {})
        parts[part] = max(parts.get(part, 0), count)
    total = 0
    for p in program.params:
        if p.dims is not None and p.name in touched:
            size = math.prod(sizes[d] if isinstance(d, str) else d for d in p.dims)
            total += min(size, sum(touched[p.name].values())) * p.dtype.bytes
    return total


def _refs(body: tuple[ir.Stmt, ...]) -> list[ir.Ref]:
    found = []
    for stmt in ir.walk(body):
        if isinstance(stmt, ir.Store):
            found.append(stmt.ref)
        elif isinstance(stmt, ir.Let) and isinstance(stmt.expr, ir.Load):
            found.append(stmt.expr.ref)
    return found


__all__ = ["bytes_of", "flops_of"]
