"""Loops that are dealt to threads in parts (`lower/parts.py`), as the phases that they become.

Before the barrier each part of each tile is work of its own; behind it the tiles are dealt again, and each joins its
parts. What a part came to lies in memory, one slot for each tile and part.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

from tilewright.emit.abi import Extent, Reserve
from tilewright.language import ir


@dataclass(frozen=True)
class Parted:
    """A nest whose serial loop `dealt` is dealt out: `slots` are the axes that number what each tile and part has."""

    nest: ir.Loop
    dealt: ir.Loop
    slots: tuple[ir.Axis, ...]

    @classmethod
    def of(cls, nest: ir.Loop) -> Parted | None:
        """The parts of a nest; None where it has none."""
        dealt = next((s for s in nest.body if isinstance(s, ir.Loop) and _meets(s)), None)
        return None if dealt is None else cls(nest, dealt, (*nest.axes, *dealt.axes))

    @property
    def allocs(self) -> tuple[ir.Alloc, ...]:
        """Buffers through which parts meet."""
        return tuple(s for s in self.dealt.body if isinstance(s, ir.Alloc))

    def phases(self) -> tuple[ir.Loop, ir.Loop]:
        """What comes before the barrier, and behind it."""
        at = self.nest.body.index(self.dealt)
        cut = next(n for n, s in enumerate(self.dealt.body) if isinstance(s, ir.Sync))
        before, after = self.nest.body[:at], self.nest.body[at + 1 :]
        # How far a part reaches may be known inside a tile only: the loop in it stops there by itself.
        axes = (*self.nest.axes, *(replace(a, start=None, stop=None) for a in self.dealt.axes))
        first = replace(self.nest, axes=axes, body=(*before, *self.dealt.body[:cut]))
        join = replace(self.dealt, body=(*self.allocs, *self.dealt.body[cut + 1 :]), notes=())
        return first, replace(self.nest, body=(*before, join, *after))

    def elements(self, alloc: ir.Alloc, sizes: Mapping[str, int]) -> tuple[int, ...]:
        """The extent of each dimension of a slot: whole tiles, and dims of fixed size."""
        steps = {a.name: a.step or 1 for a in self.nest.axes}
        return tuple(d if isinstance(d, int) else steps.get(d) or sizes[d] for d in alloc.dims)

    def reserve(self, alloc: ir.Alloc, sizes: Mapping[str, int]) -> Reserve:
        """Memory for all slots of a buffer."""
        extents = [Extent(sizes.get(a.over, a.over), _step(a), _step(a)) for a in self.slots]
        return Reserve(alloc.name, slot_bytes(alloc, self.elements(alloc, sizes)), tuple(extents))


def slot_bytes(alloc: ir.Alloc, elements: tuple[int, ...]) -> int:
    """Bytes of a slot: whole cache lines, so that no two threads write to one."""
    return -(-alloc.dtype.bytes * math.prod(elements) // 64) * 64


def in_parts(kernel: ir.Kernel) -> dict[str, Parted]:
    """The nest of each buffer through which parts meet."""
    found = (Parted.of(s) for s in kernel.body if isinstance(s, ir.Loop))
    return {alloc.name: p for p in found if p is not None for alloc in p.allocs}


def phases(kernel: ir.Kernel) -> list[ir.Loop]:
    """The top-level loops of a program, each cut in two where it deals out parts."""
    return [phase for s in kernel.body if isinstance(s, ir.Loop) for phase in phases_of(s)]


def phases_of(loop: ir.Loop) -> tuple[ir.Loop, ...]:
    """A top-level loop, or the two phases of one that deals out parts."""
    parted = Parted.of(loop)
    return (loop,) if parted is None else parted.phases()


def _meets(loop: ir.Loop) -> bool:
    return ir.note(loop.notes, "how") == "two_pass" and any(isinstance(s, ir.Sync) for s in loop.body)


def _step(axis: ir.Axis) -> int:
    return 1 if axis.each else axis.step or 1


__all__ = ["Parted", "in_parts", "phases", "phases_of", "slot_bytes"]
