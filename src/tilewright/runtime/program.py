"""A traced program, and what every call wants to know of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

from tilewright.language import ir, structure
from tilewright.language.printer import show
from tilewright.runtime.buckets import ranged_dims
from tilewright.runtime.buffer import Buffer


@dataclass(frozen=True, eq=False)
class Program:
    """A traced program and what every call wants to know of it; equal only to itself, so that look-ups are quick."""

    kernel: ir.Kernel
    whole: tuple[str, ...]  # dims that values lie along as a whole: their sizes are part of a kernel
    multiplications: tuple[tuple[str, ...], ...]  # for each dot, the dims whose product counts them

    @classmethod
    def of(cls, kernel: ir.Kernel) -> Program:
        """The program of a trace."""
        return cls(kernel, whole_dims(kernel), _multiplications(kernel))

    @cached_property
    def ranged(self) -> frozenset[str]:
        """Dims of which a slot holds ranges."""
        return ranged_dims(self.kernel, self.whole)

    @cached_property
    def text(self) -> str:
        """The program as another process can read it."""
        return show(self.kernel)

    def significant(self, sizes: dict[str, int]) -> tuple[tuple[str, int], ...]:
        """Sizes as far as a default design tells them apart: exact when small or whole, else by powers of two."""
        return tuple((d, n if n <= 32 or d in self.whole else 1 << (n - 1).bit_length()) for d, n in sizes.items())


def described(
    operator: Any, buffers: Mapping[str, Buffer], options: Mapping[str, object]
) -> tuple[Program, dict[str, int]]:
    """The traced program of a call, and the size of each of its dims."""
    dtypes = tuple((n, b.dtype.name) for n, b in buffers.items())
    program = _traced(operator.kernel, dtypes, tuple(sorted(options.items())))
    return program, _sizes(program.kernel, buffers)


@lru_cache(maxsize=1024)
def _traced(program: Any, dtypes: tuple[tuple[str, str], ...], options: tuple[tuple[str, Any], ...]) -> Program:
    return Program.of(program.trace(dict(dtypes), options=dict(options)))


def _sizes(program: ir.Kernel, buffers: Mapping[str, Buffer]) -> dict[str, int]:
    sizes: dict[str, int] = {}
    for p in program.params:
        if p.dims is not None:
            for dim, n in zip(p.dims, buffers[p.name].shape, strict=True):
                if isinstance(dim, str):
                    sizes[dim] = n
    return sizes


def whole_dims(program: ir.Kernel) -> tuple[str, ...]:
    """Dims that values lie along as a whole: their sizes are part of the kernel."""
    loops = structure.axes(program)
    used = {a for let in structure.lets(program).values() for a in let.type.axes}
    return tuple(d for d in program.dims if d in used and d not in loops)


def _multiplications(program: ir.Kernel) -> tuple[tuple[str, ...], ...]:
    loops, values = structure.axes(program), structure.lets(program)

    def dim(axis: str) -> str:
        while axis in loops:
            axis = loops[axis].over
        return axis

    around = tuple(a.over for n in structure.nests(program) for a in n.loop.axes if a.each)
    dots = [v for v in values.values() if isinstance(v.expr, ir.Dot)]
    return tuple(
        (*around, *(dim(a) for a in d.type.axes), dim(d.expr.axis)) for d in dots if isinstance(d.expr, ir.Dot)
    )


__all__ = ["Program", "described", "whole_dims"]
