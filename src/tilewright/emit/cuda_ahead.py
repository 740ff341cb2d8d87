"""Loads that are made some steps of their loops ahead (`@prefetch`), through a ring of shared memory of each warp.

Either each thread copies what it will hold itself, and reads it back when its step comes (`tw/ahead.cuh`), or one lane
hands boxes to the copy engine (`@engine=tma`, `tw/boxed.cuh`). The steps may lie in two loops, one inside the other: a
cursor runs through them ahead of the loops themselves. Where registers hold the next step there is no ring: see
`cuda_held`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from tilewright.emit.cuda_abi import TensorMap
from tilewright.emit.cuda_cursor import Cursor, bounds, enter, stride
from tilewright.emit.cuda_layouts import Layouts
from tilewright.emit.cuda_text import cname
from tilewright.emit.cuda_values import Values
from tilewright.emit.cuda_warp import WarpDots
from tilewright.errors import IllegalDesign
from tilewright.language import ir

_ROW = 128
"""Bytes of a row of a box."""


@dataclass(frozen=True)
class Ring:
    """The loads of one step, by name with the byte at which each lies in a slot; how many slots a warp has."""

    loops: tuple[ir.Loop, ...]
    loads: Mapping[str, int]
    slots: int
    slot_bytes: int
    boxed: bool

    @property
    def bytes(self) -> int:
        """Of one warp."""
        return self.slots * self.slot_bytes

    @property
    def align(self) -> int:
        """Where it may begin."""
        return 1024 if self.boxed else 16


def ring_of(body: tuple[ir.Stmt, ...], layouts: Layouts, found: WarpDots) -> Ring | None:
    """The ring that the loads of a warp's loops want, if any: those of the innermost loop."""
    loops = steps_of(body)
    noted = [s for s in (loops[-1].body if loops else ()) if isinstance(s, ir.Let) and ir.note(s.notes, "prefetch")]
    if not noted:
        return None
    boxed = ir.note(noted[0].notes, "engine") == "tma"
    at, loads = 0, {}
    for let in noted:
        loads[let.name] = at
        extents = [layouts.of[a].points for a in found.along_twins(let).type.axes]
        row = extents[-1] * let.type.dtype.bytes
        at += math.prod(extents[:-1]) * (-(-row // _ROW) * _ROW if boxed else row)  # boxes: panels of 128 bytes
    return Ring(tuple(loops), loads, ir.number(noted[0].notes, "prefetch", 1), at, boxed)


def steps_of(body: tuple[ir.Stmt, ...]) -> list[ir.Loop]:
    """The serial loops around the innermost statements, one inside the other, where nothing follows them."""
    loops = [s for s in body if isinstance(s, ir.Loop)]
    return [loops[0], *steps_of(loops[0].body)] if len(loops) == 1 else []


@dataclass
class Ahead:
    """Writes such loops of one warp; the rings of all warps begin at `offset` of the block's shared memory."""

    ring: Ring
    offset: int
    warps: int
    maps: list[TensorMap] = field(default_factory=list)

    @property
    def end(self) -> int:
        """The byte behind the rings and their barriers."""
        barriers = 8 * self.ring.slots * self.warps if self.ring.boxed else 0
        return self.begins + self.ring.bytes * self.warps + barriers

    @property
    def begins(self) -> int:
        """The first byte of the rings."""
        return -(-self.offset // self.ring.align) * self.ring.align

    def starts(self, loop: ir.Loop) -> bool:
        """Whether this is the outermost loop of the steps."""
        return loop is self.ring.loops[0]

    def steps(self, loop: ir.Loop) -> bool:
        """Whether this is the innermost loop."""
        return loop is self.ring.loops[-1]

    def holds(self, let: ir.Let) -> bool:
        """Whether a load passes through the ring."""
        return let.name in self.ring.loads

    # ------------------------------------------------------------------------------------------------- text
    def begin(self, values: Values) -> None:
        """The cursor, and the first steps on their way."""
        out, ring = values.out, self.ring
        out.line(f"unsigned char* const ring = shared + {self.begins} + warp * {ring.bytes};")
        if ring.boxed:
            at = self.begins + ring.bytes * self.warps
            out.line(f"tw::Barrier* const full = (tw::Barrier*)(shared + {at}) + warp * {ring.slots};")
            with out.block(f"if ({values.team}.thread == 0)"):
                out.line(f"for (int n = 0; n < {ring.slots}; ++n) full[n].init(1);")
                out.line("tw::fence_barriers();")
            out.line("__syncwarp();")
        kept, types = dict(values.scope.ranges), dict(values.types)
        axis = ring.loops[0].axes[0]
        low, high = bounds(values, axis)
        out.line(f"int {axis.name}_next = {low};")
        if self.cursor:
            self.cursor.begin(values, low, high)
        with out.block("const auto ahead = [&](int slot)"):
            if self.cursor:
                self._nested(values, self.cursor, low, high)
            else:
                self._one(values, low, high)
            if not ring.boxed:
                out.line("tw::commit();")
        out.line(";")
        values.scope.ranges, values.types = kept, types
        out.line("#pragma unroll 1")
        out.line(f"for (int n = 0; n < {ring.slots}; ++n) {'find(), ' if self.cursor else ''}ahead(n);")
        out.line(f"tw::Slot<{ring.slots}> slot;")

    @property
    def cursor(self) -> Cursor | None:
        """What runs ahead of two loops; of one loop its place says all."""
        if len(self.ring.loops) > 2:
            raise IllegalDesign("stages: steps lie in more than two loops; drop the decision")
        return Cursor(*self.ring.loops) if len(self.ring.loops) == 2 else None

    def before(self, values: Values) -> None:
        """Which step will come so many later is found while this one is waited for."""
        if self.cursor:
            values.out.line("find();")
        plain = f"tw::wait_all_but<{self.ring.slots - 1}>();"
        values.out.line("full[slot.index].wait(slot.phase);" if self.ring.boxed else plain)

    def after(self, values: Values) -> None:
        """Its slot is free, and the step that comes so many later goes on its way there."""
        if self.ring.boxed:
            values.out.line("__syncwarp();")
        values.out.line("ahead(slot.index);")
        values.out.line("slot.next();")

    def used(self, values: Values, names: tuple[str, ...]) -> None:
        """Slots are free behind their step, not sooner."""

    def _one(self, values: Values, low: str, high: str) -> None:
        axis = self.ring.loops[0].axes[0]
        at, step = f"{axis.name}_next", stride(self.ring.loops[0])
        with values.out.block(f"if ({at} < {high})"):
            enter(values, axis, at, low, high, not self.ring.boxed)
            self._send(values)
        values.out.line(f"{at} += {step};")

    def _nested(self, values: Values, cursor: Cursor, low: str, high: str) -> None:
        """Two loops: the step at the cursor goes on its way."""
        with values.out.block("if (there)"):
            cursor.told(values, low, high, not self.ring.boxed)
            self._send(values)
            values.out.line(f"{cursor.onward};")

    def _send(self, values: Values) -> None:
        lets = [s for s in self.ring.loops[-1].body if isinstance(s, ir.Let) and s.name in self.ring.loads]
        if not self.ring.boxed:
            for let in lets:
                values.send(values.matrix.along_twins(let), self._place(let, "slot"))
            return
        with values.out.block(f"if ({values.team}.thread == 0)"):
            values.out.line(f"full[slot].expect({self.ring.slot_bytes});")
            for let in lets:
                self._boxes(values, let)

    def _boxes(self, values: Values, let: ir.Let) -> None:
        """The boxes of one tile: as many as its rows have panels of 128 bytes."""
        assert isinstance(let.expr, ir.Load)
        ref, bytes_ = let.expr.ref, let.type.dtype.bytes
        strides = values.places[ref.buffer].strides
        unit = strides.index("1")
        rows, width = self._rows(values, let), _ROW // bytes_
        dims = (unit, *(d for d in reversed(range(len(strides))) if d != unit))
        box = (width, *(rows if ref.index[d] in let.type.axes else 1 for d in dims[1:]))
        described = TensorMap(ref.buffer, dims, box, _ROW, 256)
        if described not in self.maps:
            self.maps.append(described)
        at = ", ".join(values.addresses.point(ref.index[d]) for d in dims[1:])
        hint = "tw::EVICT_FIRST" if ir.note(let.notes, "cache") in ("cs", "evict_first") else "tw::EVICT_NORMAL"
        column = values.matrix.along_twins(let).type.axes[let.type.axes.index(str(ref.index[unit]))]
        points = values.layouts.of[column].points
        for panel in range(-(-points // width)):
            to = f"{self._place(let, 'slot')} + {panel * rows * _ROW}"
            map_ = f"args.maps[{self.maps.index(described)}]"
            values.out.line(f"tw::load_box({to}, {map_}, full[slot], {hint}, {panel * width}, {at});")

    def _rows(self, values: Values, let: ir.Let) -> int:
        return values.layouts.of[values.matrix.along_twins(let).type.axes[0]].points

    def _place(self, let: ir.Let, slot: str) -> str:
        return f"ring + {slot} * {self.ring.slot_bytes} + {self.ring.loads[let.name]}"

    def taken(self, values: Values, let: ir.Let, most: int, terms: list[str]) -> str:
        """C++ of a load of the step at hand; `let` is along its twins."""
        place, tile = self._place(let, "slot.index"), values.tile(let.type)
        if not self.ring.boxed:
            return f"tw::sent<{tile}, {most}>({', '.join([place, values.team, *terms])})"
        row, column = let.type.axes
        zero = str(values.matrix.second.get(let.name) == values.matrix.named(row)).lower()
        rows = values.layouts.of[row].points
        return f"tw::boxed<{tile}, {rows}, {zero}>({place}, {cname(row)}, {cname(column)})"


__all__ = ["Ahead", "Ring", "ring_of", "steps_of"]
