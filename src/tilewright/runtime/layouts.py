"""How the operands of a call lie: what a kernel may rely on, and what is no part of a shape."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

from tilewright.design.default import Facts
from tilewright.emit import abi
from tilewright.machines.machine import Machine
from tilewright.runtime.buffer import Buffer

Layouts = tuple[tuple[str, abi.TensorLayout], ...]


def facts_of(layouts: Layouts, sizes: Mapping[str, int], known: Machine) -> Facts:
    """What a design may rely on for operands that lie so."""
    unit = {n: tuple(d for d, s in enumerate(x.strides) if s == 1) for n, x in layouts}
    return Facts(sizes, unit, known, frozenset(n for n, x in layouts if x.align >= 64))


def layout_of(buffer: Buffer) -> abi.TensorLayout:
    """Unit strides are part of a kernel, all others are passed; alignment is what every row can rely on."""
    unit, step = _steps(buffer)
    return _layout(len(buffer.shape), unit, 64 if (step | buffer.pointer) % 64 == 0 else 1)


def layouts_of(buffers: Mapping[str, Buffer]) -> tuple[Layouts, Layouts]:
    """How operands lie, and how they would if each began at a cache line: where memory lies is no part of a shape."""
    found, best = [], []
    for name, buffer in buffers.items():
        unit, step = _steps(buffer)
        rank, align = len(buffer.shape), 64 if step % 64 == 0 else 1
        best.append((name, _layout(rank, unit, align)))
        found.append(best[-1] if buffer.pointer % 64 == 0 or align == 1 else (name, _layout(rank, unit, 1)))
    return tuple(found), tuple(best)


def _steps(buffer: Buffer) -> tuple[int | None, int]:
    """The last dimension with stride one; and all steps to other rows in bytes, or-ed: their common alignment."""
    unit, step, width = None, 0, buffer.dtype.bytes
    for dim, (size, stride) in enumerate(zip(buffer.shape, buffer.strides, strict=True)):
        if stride == 1:
            unit = dim
        elif size > 1:
            step |= stride * width
    return unit, step


@lru_cache(maxsize=1024)
def _layout(rank: int, unit: int | None, align: int) -> abi.TensorLayout:
    return abi.TensorLayout(tuple(1 if d == unit else None for d in range(rank)), align)


__all__ = ["Layouts", "facts_of", "layout_of", "layouts_of"]
