"""A phase: one top-level loop as a function of its arguments, the thread and the number of threads."""

from __future__ import annotations

import math
from collections.abc import Mapping

from tilewright.emit import abi, llvm_amx
from tilewright.emit import llvm_builder as ll
from tilewright.emit.llvm_body import Body, amortises_masks, uses_amx
from tilewright.emit.llvm_loops import Carry, Span, branch, counted, drawn
from tilewright.emit.llvm_parts import slot_bytes
from tilewright.emit.llvm_places import LINE, Place
from tilewright.emit.llvm_scope import divides, leaf_axes
from tilewright.emit.llvm_values import AxisState, Context, scalar_type, uniform
from tilewright.emit.llvm_workspace import DRAWN, Workspace
from tilewright.language import ir

_DRAWS = 16  # runs that each thread draws, where all are equally fast: what is left at the end is short


class Phase(Body):
    """Emits the function of one top-level loop."""

    def __init__(self, cx: Context, workspace: Workspace, layouts: Mapping[str, abi.TensorLayout]) -> None:
        super().__init__(cx, workspace.kernel.body)
        self.workspace, self.layouts = workspace, layouts
        self.meeting: dict[str, str] = {}  # where the slots of buffers begin through which parts meet

    def emit(self, number: int, loop: ir.Loop) -> None:
        """The whole function: arguments, scalars computed before the loop, this thread's share of it."""
        tiles = uses_amx(loop)
        self.prologue()
        for stmt in self.workspace.kernel.body:
            if isinstance(stmt, ir.Let):
                self.statement(stmt)
        if tiles:
            llvm_amx.configure(self.b)
        self.phase(number, loop)
        if tiles:
            llvm_amx.release(self.b)
        self.b.do("ret void")

    # -------------------------------------------------------------------------------------- prologue
    def _word(self, index: int, ty: str) -> str:
        at = self.b.emit(f"getelementptr i64, ptr %args, i64 {index}")
        return self.b.emit(f"load {ty}, ptr {at}, !invariant.load !1")

    def prologue(self) -> None:
        kernel = self.workspace.kernel
        for dim in kernel.dims:
            fixed = self.workspace.sizes.get(dim)
            self.dims[dim] = str(fixed) if fixed is not None else self._word(abi.dim_word(kernel, dim), "i64")
            self._whole_axis(dim)
        for p in kernel.params:
            if p.dims is None:
                scalar = self._word(abi.scalar_word(kernel, p.name), scalar_type(p.dtype))
                self.cx.values[p.name] = uniform(ir.TileType(p.dtype), scalar)
            else:
                self.places[p.name] = self._tensor(p)
        self._workspace()

    def _whole_axis(self, dim: str) -> None:
        """A dim of fixed size is an axis by itself: the whole of it."""
        fixed = self.workspace.sizes.get(dim)
        if fixed is not None:
            self.cx.axes[dim] = AxisState(dim, "0", fixed, self.width(fixed))

    def _tensor(self, p: ir.Param) -> Place:
        kernel, layout = self.workspace.kernel, self.layouts[p.name]
        word = abi.tensor_word(kernel, p.name)
        pointer = self._word(word, "ptr")
        strides = tuple(
            str(s) if s is not None else self._word(word + 1 + d, "i64") for d, s in enumerate(layout.strides)
        )
        return Place(p.name, pointer, p.dtype, strides, layout.align)

    def _workspace(self) -> None:
        if not self.workspace.reserves:
            return
        base, offset = self._word(abi.WORKSPACE, "ptr"), "0"
        allocs = {a.name: (a, axes) for a, _, axes in self.workspace.allocations}
        for reserve in self.workspace.reserves:
            size = self._reserve_bytes(reserve)
            if reserve.name == DRAWN:
                offset = ll.add(self.b, offset, size)
                continue
            alloc, axes = allocs[reserve.name]
            here = offset
            if reserve.per_thread:
                here = ll.add(self.b, offset, ll.mul(self.b, size, "%thread"))
                size = ll.mul(self.b, size, "%threads")
            pointer = self.b.hoist(f"getelementptr i8, ptr {base}, i64 {here}", base, here)
            if alloc.name in self.workspace.in_parts:
                self.meeting[alloc.name] = pointer
            else:
                self.places[alloc.name] = self._buffer(alloc, reserve, pointer, axes)
            offset = ll.add(self.b, offset, size)

    def _extent(self, e: abi.Extent) -> str:
        size = self.dims[e.dim] if isinstance(e.dim, str) else str(e.dim)
        if e.round_to == 1:
            return size
        return ll.mul(self.b, ll.ceil_div(self.b, size, str(e.round_to)), str(e.round_to // e.per))

    def _reserve_bytes(self, reserve: abi.Reserve) -> str:
        total = str(reserve.itemsize)
        for e in reserve.extents:
            total = ll.mul(self.b, total, self._extent(e))
        return ll.mul(self.b, ll.ceil_div(self.b, total, "64"), "64")

    def _buffer(self, alloc: ir.Alloc, reserve: abi.Reserve, pointer: str, axes: dict[str, ir.Axis]) -> Place:
        extents = [self._extent(e) for e in reserve.extents]
        panel = self.workspace.panel(alloc)
        strides = ["1"] * len(extents)
        order = list(range(len(extents)))
        running = "1"
        if panel is not None:  # block and depth are innermost; the block dimension steps from block to block
            order = [d for d in order if d not in (panel.dim, panel.depth)]
            running = ll.mul(self.b, extents[panel.depth], str(panel.block))
            strides[panel.dim] = running
            running = ll.mul(self.b, extents[panel.dim], extents[panel.depth])
        for d in reversed(order):
            strides[d] = running
            running = ll.mul(self.b, running, extents[d])
        origin = tuple(d if isinstance(d, str) and d in axes else None for d in alloc.dims)
        return Place(alloc.name, pointer, alloc.dtype, tuple(strides), 64, panel, origin, padded=panel is not None)

    def allocate(self, alloc: ir.Alloc) -> None:
        """The slot of this tile and part in a buffer where parts meet; all others are reserved at entry."""
        if alloc.name not in self.meeting:
            return
        parted = self.workspace.in_parts[alloc.name]
        elements = parted.elements(alloc, self.workspace.sizes)
        slot = "0"
        for axis in parted.slots:
            step = str(1 if axis.each else axis.step)
            count = ll.ceil_div(self.b, self.dims[axis.over], step)
            slot = ll.add(self.b, ll.mul(self.b, slot, count), ll.udiv(self.b, self.cx.axes[axis.name].base, step))
        offset = ll.mul(self.b, slot, str(slot_bytes(alloc, elements)))
        base = self.meeting[alloc.name]
        pointer = self.b.hoist(f"getelementptr i8, ptr {base}, i64 {offset}", base, offset)
        strides = tuple(str(math.prod(elements[d + 1 :])) for d in range(len(elements)))
        origin = tuple(d if d in self.spans else None for d in map(str, alloc.dims))
        self.places[alloc.name] = Place(alloc.name, pointer, alloc.dtype, strides, 64, None, origin)

    # ---------------------------------------------------------------------------------------- phases
    def phase(self, number: int, loop: ir.Loop) -> None:
        """This thread's share of a top-level loop; a serial loop is the first thread's."""
        if loop.parallel:
            self._share(number, loop)
            return
        first = self.b.emit("icmp eq i64 %thread, 0")
        branch(self.cx, first, lambda: self.loop(loop), Carry(self.cx, []))

    def _share(self, number: int, loop: ir.Loop) -> None:
        """Tiles are numbered with the last axis fastest; dealt in equal runs, or in turn, or drawn in short runs."""
        b = self.b
        spans = [self.span(a) for a in loop.axes]
        steps = [1 if a.each else self.step(a, s) for a, s in zip(loop.axes, spans, strict=True)]
        self.dealt = tuple(a.name for a in loop.axes)
        counts = [self._tiles(*each) for each in zip(loop.axes, spans, steps, strict=True)]
        total = "1"
        for c in counts:
            total = ll.mul(b, total, c)

        def tile(at: str) -> None:
            self._tile(loop, spans, steps, counts, at)

        if ir.note(loop.notes, "dealt") == "turns":
            counted(self.cx, "%thread", total, 1, tile, Carry(self.cx, []), forward="%threads")
            return
        if ir.note(loop.notes, "drawn"):
            length = ll.maximum(b, ll.udiv(b, total, ll.mul(b, "%threads", str(_DRAWS))), "1")
            drawn(self.cx, self._drawn(number), total, length, tile)
            return
        low = self._cut(total, "%thread")
        high = self._cut(total, ll.add(b, "%thread", "1"))
        counted(self.cx, low, high, 1, tile, Carry(self.cx, []))

    def _drawn(self, number: int) -> str:
        """Where the tiles of this phase that were drawn so far are counted."""
        base = self._word(abi.WORKSPACE, "ptr")
        return self.b.emit(f"getelementptr i8, ptr {base}, i64 {LINE * number}")

    def _tiles(self, axis: ir.Axis, span: Span, step: int) -> str:
        """How many tiles an axis has; apart, a last short block has one for each place of its first run."""
        b, length = self.b, ll.sub(self.b, span.high, span.low)
        if axis.apart == 1:
            return ll.ceil_div(b, length, str(step))
        blocks = ll.udiv(b, length, str(step * axis.apart))
        rest = ll.sub(b, length, ll.mul(b, blocks, str(step * axis.apart)))
        return ll.add(b, ll.mul(b, blocks, str(axis.apart)), ll.minimum(b, rest, str(axis.apart)))

    def _start(self, axis: ir.Axis, span: Span, step: int, number: str) -> str:
        """Where a tile begins; where tiles lie apart, a block passes with every `apart` of them."""
        b = self.b
        if axis.apart == 1:
            return ll.add(b, span.low, ll.mul(b, number, str(step)))
        passed = ll.mul(b, ll.udiv(b, number, str(axis.apart)), str((step - 1) * axis.apart))
        return ll.add(b, span.low, ll.add(b, number, passed))

    def _cut(self, total: str, part: str) -> str:
        product = ll.mul(self.b, total, part)
        return self.b.hoist(f"udiv i64 {product}, %threads", product)

    def _tile(self, loop: ir.Loop, spans: list[Span], steps: list[int], counts: list[str], number: str) -> None:
        b = self.b
        ragged: list[str] = []
        bases: list[str] = []
        rest = number
        for count in reversed(counts[1:]):
            bases.append(b.emit(f"urem i64 {rest}, {count}") if count != "1" else "0")
            rest = b.emit(f"udiv i64 {rest}, {count}") if count != "1" else rest
        bases.append(rest)
        bases.reverse()
        starts = [self._start(*each) for each in zip(loop.axes, spans, steps, bases, strict=True)]
        leaf = leaf_axes(loop.body)
        for axis, span, step, start in zip(loop.axes, spans, steps, starts, strict=True):
            if axis.each or axis.name not in leaf or divides(span, step * axis.apart):
                continue
            beyond = ll.sub(b, span.high, str((step - 1) * axis.apart + 1))
            ragged.append(b.emit(f"icmp sgt i64 {start}, {beyond}"))

        def body(full: bool) -> None:
            for axis, span, step, start in zip(loop.axes, spans, steps, starts, strict=True):
                whole = full if axis.name in leaf else False
                self.enter_axis(axis, span, step, start, whole)
            self.block(loop.body)

        if not ragged or amortises_masks(loop.body):
            body(not ragged)
            return
        any_ragged = ragged[0]
        for r in ragged[1:]:
            any_ragged = b.emit(f"or i1 {any_ragged}, {r}")
        branch(self.cx, any_ragged, lambda: body(False), Carry(self.cx, []), lambda: body(True))
