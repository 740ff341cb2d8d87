"""Weights of products of few rows on their way some steps ahead (`@prefetch`), through shared memory of each warp.

Each warp copies the rows that it will multiply itself, and reads them back when their step comes: no warp waits for
another, and what is in flight takes no registers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tilewright.design.gpu.straight import slot_pitch
from tilewright.emit.cuda_layouts import Chunks
from tilewright.emit.cuda_maps import ctype
from tilewright.emit.cuda_text import cname
from tilewright.language import ir

if TYPE_CHECKING:
    from tilewright.emit.cuda_layouts import Layouts
    from tilewright.emit.cuda_values import Values

_LANES = 32


@dataclass(frozen=True)
class FragmentRing:
    """The loads of a step that pass through the ring of a warp, and how many steps it holds."""

    loads: tuple[ir.Let, ...]
    steps: int
    warps: int
    sizes: tuple[int, ...]  # bytes of each load

    @property
    def slot_bytes(self) -> int:
        """Of one step."""
        return sum(self.sizes)

    @property
    def bytes(self) -> int:
        """Of all warps."""
        return self.warps * self.steps * self.slot_bytes

    def holds(self, let: ir.Let) -> bool:
        """Whether a load passes through it."""
        return any(let.name == x.name for x in self.loads)

    def begin(self, values: Values, loop: ir.Loop) -> None:
        """The cursor, and the first steps on their way."""
        out, axis = values.out, loop.axes[0]
        low, high = values.scope.bounds(axis)
        at = f"{axis.name}_next"
        out.line("extern __shared__ __align__(16) unsigned char shared[];")
        out.line(f"unsigned char* const ring = shared + {values.team}.warp() * {self.steps * self.slot_bytes};")
        out.line(f"int {at} = {low};")
        kept = dict(values.scope.ranges)
        with out.block("const auto ahead = [&](int slot)"):
            with out.block(f"if ({at} < {high})"):
                values.scope.enter(axis, at, low, high)
                out.line(values.part(axis.name))
                for let in self.loads:
                    self._send(values, let)
            out.line("tw::commit();")
            out.line(f"{at} += {axis.step or 1};")
        out.line(";")
        values.scope.ranges = kept
        out.line("#pragma unroll 1")
        out.line(f"for (int n = 0; n < {self.steps}; ++n) ahead(n);")
        out.line(f"tw::Slot<{self.steps}> slot;")
        out.line("#pragma unroll 1")  # written out, steps would hold the registers of each other's operands

    def _send(self, values: Values, let: ir.Let) -> None:
        assert values.fragments is not None and isinstance(let.expr, ir.Load)
        at, rows, depth = values.fragments.place(values, let)
        values.out.line(f"tw::send_fragments({self._slot(let, 'slot')}, {values.team}, {at}, {rows}, {depth});")

    def take(self, values: Values, let: ir.Let) -> None:
        """The load of the step at hand; behind the last one its slot is free for the step that comes so many later."""
        out = values.out
        if let.name == self.loads[0].name:
            out.line(f"tw::wait_all_but<{self.steps - 1}>();")
        assert values.fragments is not None
        rows, depth = values.fragments.axes_of(let)
        kinds = f"{ctype(let.type.dtype)}, axis::{rows}, axis::{depth}"
        held = f"{self._slot(let, 'slot.index')}, {values.team}"
        out.line(f"const auto {cname(let.name)} = tw::sent_fragments<{kinds}>({held});")
        if let.name == self.loads[-1].name:
            out.line("ahead(slot.index);")
            out.line("slot.next();")

    def _slot(self, let: ir.Let, slot: str) -> str:
        before = sum(self.sizes[: next(n for n, x in enumerate(self.loads) if x.name == let.name)])
        return f"ring + {slot} * {self.slot_bytes}" + (f" + {before}" if before else "")


def ring_of(loads: Sequence[ir.Let], layouts: Layouts, warps: int, across: int) -> FragmentRing | None:
    """The ring that loads ask for; `across` warps of `warps` have rows of their own."""
    noted = tuple(let for let in loads if ir.number(let.notes, "prefetch", 1) > 1)  # 1: in registers
    if not noted:
        return None
    depths = {a for let in noted for a in let.type.axes if isinstance(layouts.of[a], Chunks)}
    sizes = []
    for let in noted:
        rows = math.prod(layouts.of[a].points for a in let.type.axes if a not in depths) // across
        chunks = next(layouts.of[a] for a in let.type.axes if a in depths)
        row_bytes = chunks.points * let.type.dtype.bits // 8
        sizes.append(rows * slot_pitch(row_bytes, chunks.bits < 5))
    return FragmentRing(noted, ir.number(noted[0].notes, "prefetch", 2), warps, tuple(sizes))


__all__ = ["FragmentRing", "ring_of"]
