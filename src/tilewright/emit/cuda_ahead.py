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
from tilewright.emit.cuda_layouts import Layouts
from tilewright.emit.cuda_scope import Range
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
        bounds = self._cursors(values)
        with out.block("const auto ahead = [&](int slot)"):
            if len(ring.loops) == 1:
                self._one(values, *bounds)
            else:
                self._nested(values, bounds)
            if not ring.boxed:
                out.line("tw::commit();")
        out.line(";")
        values.scope.ranges, values.types = kept, types
        out.line("#pragma unroll 1")
        out.line(f"for (int n = 0; n < {ring.slots}; ++n) ahead(n);")
        out.line(f"tw::Slot<{ring.slots}> slot;")

    def before(self, values: Values) -> None:
        """What every step waits for."""
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

    def _cursors(self, values: Values) -> tuple[str, str]:
        """A variable for the place of each loop; the bounds of the outermost one."""
        low, high = self._bounds(values, self.ring.loops[0].axes[0])
        for n, loop in enumerate(self.ring.loops):
            values.out.line(f"int {loop.axes[0].name}_next = {low if n == 0 else 0};")
        return low, high

    def _bounds(self, values: Values, axis: ir.Axis) -> tuple[str, str]:
        return values.scope.bounds(axis, {n: cname(n) for n in values.types})

    def _one(self, values: Values, low: str, high: str) -> None:
        axis = self.ring.loops[0].axes[0]
        at, step = f"{axis.name}_next", self._stride(self.ring.loops[0])
        with values.out.block(f"if ({at} < {high})"):
            self._enter(values, axis, at, low, high)
            self._send(values)
        values.out.line(f"{at} += {step};")

    def _nested(self, values: Values, bounds: tuple[str, str]) -> None:
        """Two loops: on to the next step of the inner one, or of the one around it."""
        out, (outer, *inner) = values.out, self.ring.loops
        if len(inner) != 1:
            raise IllegalDesign("stages: steps lie in more than two loops; drop the decision")
        axis, (walk,) = outer.axes[0], inner
        at = f"{axis.name}_next"
        with out.block(f"while ({at} < {bounds[1]})"):
            self._enter(values, axis, at, *bounds)
            values.emit(tuple(s for s in outer.body if isinstance(s, ir.Let)))
            step = walk.axes[0]
            low, high = self._bounds(values, step)
            place = f"{step.name}_next"
            out.line(f"{place} = max({place}, {low});")
            with out.block(f"if ({place} < {high})"):
                self._enter(values, step, place, low, high)
                self._send(values)
                out.line(f"{place} += {step.step or 1};")
                out.line("break;")
            out.line(f"{at} += {self._stride(outer)}, {place} = 0;")

    def _enter(self, values: Values, axis: ir.Axis, at: str, low: str, high: str) -> None:
        now = values.scope.enter(axis, at, low, high)
        values.scope.ranges[axis.name] = Range(at, high, now.size, now.grain, now.align, axis.each, now.step, low, high)
        if axis.name in values.layouts.of and not self.ring.boxed:
            values.out.line(values.part(axis.name))

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

    @staticmethod
    def _stride(loop: ir.Loop) -> int:
        """From a step of a loop to the next one of the same warp."""
        axis = loop.axes[0]
        return (1 if axis.each else axis.step or 1) * ir.number(loop.notes, "turns", 1)

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
