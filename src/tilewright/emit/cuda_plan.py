"""What a scheduled program needs on a GPU before its text is written: shared memory, barriers, tensor maps, threads."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from tilewright.emit.abi import Extent, Reserve, TensorLayout
from tilewright.emit.cuda_abi import Scratch, TensorMap, Words
from tilewright.emit.cuda_text import cname
from tilewright.language import ir, structure

C_TYPES = {"f32": "float", "f64": "double", "bool": "bool"}
PANEL = 128
"""Bytes of a swizzled row."""

ROWS = 64
"""Rows of the atom."""

TICKETS = 1 << 14
"""Tiles of a grid whose sums are split: each has a ticket."""


@dataclass(frozen=True)
class Ring:
    """A buffer in shared memory that rotates through `slots` copies: panels of `rows` rows of `pitch` bytes."""

    alloc: ir.Alloc
    rows: int
    panels: int
    slots: int
    offset: int
    pitch: int = PANEL

    @property
    def slot_bytes(self) -> int:
        """Bytes of one copy."""
        return self.panels * self.rows * self.pitch

    @property
    def wide(self) -> int:
        """Elements of a row."""
        return self.pitch * 8 // self.alloc.dtype.bits


@dataclass(frozen=True)
class Barrier:
    """An mbarrier for each slot of a ring (or one alone), completed by `count` arrivals."""

    name: str
    count: int
    slots: int
    offset: int
    bytes: int = 0  # that arrive from other blocks, where that completes it


@dataclass(frozen=True)
class Team:
    """The warps of a role: how many, from which one on, and the registers of their threads (None: as launched)."""

    name: str
    warps: int
    first: int
    registers: int | None


class Plan:
    """Everything about a scheduled program that its text refers to by number."""

    def __init__(self, kernel: ir.Kernel, layouts: Mapping[str, TensorLayout], sizes: Mapping[str, int]) -> None:
        self.kernel, self.layouts, self.sizes = kernel, layouts, sizes
        self.axes = structure.axes(kernel)
        self.statements = list(ir.walk(kernel.body))
        self.words = Words(kernel, tuple(s.name for s in self.scratch))
        self.same: dict[str, str] = {}  # axes whose tiles begin where those of another one do, which has the name

    # ------------------------------------------------------------------------------------------ axes
    def extent(self, dim: ir.Dim) -> int:
        """Points of a whole tile of an axis, or of a dimension of known size."""
        if isinstance(dim, int):
            return dim
        if dim in self.axes:
            return 1 if self.axes[dim].each else self.axes[dim].step or self.extent(self.axes[dim].over)
        return self.sizes[dim]

    def root(self, axis: str) -> str:
        """The dimension that an axis is a range of."""
        while axis in self.axes:
            axis = self.axes[axis].over
        return axis

    def edge(self, axis: str) -> int:
        """0 where every tile of an axis exists whole, else a power of two of which each tile ends at a multiple."""
        size = self.sizes.get(self.root(axis))
        if size is None:
            return 1
        chain = [axis]
        while chain[-1] in self.axes:
            chain.append(self.axes[chain[-1]].over)
        if all(size % self.extent(a) == 0 for a in chain[:-1]):
            return 0
        return math.gcd(size, 64)

    # ---------------------------------------------------------------------------------------- threads
    @cached_property
    def teams(self) -> dict[str, Team]:
        """The roles: those that compute first, so that their warpgroups are aligned."""
        found = {s.name: s for s in self.statements if isinstance(s, ir.Role)}
        teams, first = {}, 0
        for role in sorted(found.values(), key=lambda r: r.name == "producer"):
            warps, registers = number(role, "warps", 4), ir.note(role.notes, "registers")
            teams[role.name] = Team(role.name, warps, first, registers if isinstance(registers, int) else None)
            first += warps
        return teams

    @property
    def threads(self) -> int:
        """Threads of a block."""
        return 32 * sum(t.warps for t in self.teams.values())

    @cached_property
    def along_only(self) -> bool:
        """Whether some operands of dots are not of 16 bits: those run along the sum."""
        lets = {s.name: s for s in self.statements if isinstance(s, ir.Let)}
        dots = [s.expr for s in lets.values() if isinstance(s.expr, ir.Dot)]
        return any(lets[d.a].type.dtype.bits != 16 for d in dots if d.a in lets)

    @cached_property
    def stagger(self) -> int:
        """Steps after which the next warpgroup begins; 0 where all begin together."""
        return max((number(s, "stagger", 0) for s in self.statements if isinstance(s, ir.Role)), default=0)

    @cached_property
    def cluster(self) -> int:
        """Blocks of a cluster."""
        together = self.split is not None and ir.note(self.split.notes, "bind") == "cluster"
        return math.prod(self.trips(a) for a in self.spread) * (self.splits if together else 1)

    @cached_property
    def early(self) -> frozenset[str]:
        """Constant tensors that the copy engine may read before the kernel before this one has ended.

        Blocks that stay, and those that share what they read, begin as their neighbours allow: they read nothing early.
        """
        if self.spread or any(isinstance(s, ir.Loop) and ir.note(s.notes, "persistent") for s in self.statements):
            return frozenset()
        copied = {s.src.buffer for s in self.statements if isinstance(s, ir.Copy) and s.dst.buffer in self.rings}
        return frozenset(t for t in copied if t in self.layouts and self.layouts[t].constant)

    @cached_property
    def spread(self) -> list[ir.Axis]:
        """Axes along which a cluster's blocks have tiles of their own."""
        found = [
            s
            for s in self.statements
            if isinstance(s, ir.Loop) and s.parallel and ir.note(s.notes, "bind") == "cluster"
        ]
        return [a for s in found if any(isinstance(x, ir.Role) for x in ir.walk(s.body)) for a in s.axes]

    @cached_property
    def share(self) -> ir.Axis | None:
        """The axis of which each block of a cluster ends its share."""
        found = [
            s
            for s in self.statements
            if isinstance(s, ir.Loop) and s.parallel and ir.note(s.notes, "bind") == "cluster"
        ]
        return next((a for s in found for a in s.axes if a not in self.spread), None)

    @property
    def shares(self) -> int:
        """Blocks of a cluster that end a part of the tile each."""
        return self.trips(self.share) if self.share else 1

    def trips(self, axis: ir.Axis) -> int:
        """How many tiles of an axis lie in a whole tile of what it splits."""
        return -(-self.extent(axis.over) // self.extent(axis.name))

    # ---------------------------------------------------------------------------------- shared memory
    @cached_property
    def rings(self) -> dict[str, Ring]:
        """Buffers that copies fill, by name."""
        rings, offset = {}, 0
        for s in self.statements:
            if isinstance(s, ir.Alloc) and ir.note(s.notes, "place") == "shared" and ir.note(s.notes, "layout"):
                row_bytes = self.extent(s.dims[-1]) * s.dtype.bits // 8
                rows = math.prod(self.extent(d) for d in s.dims[:-1])
                slots = number(s, "stages", 1) * (self.groups * self.pieces if s.name in self.leaving else 1)
                pitch = int(str(ir.note(s.notes, "layout")).removeprefix("swizzle"))
                rings[s.name] = Ring(s, rows, -(-row_bytes // pitch), slots, offset, pitch)
                offset += rings[s.name].slots * rings[s.name].slot_bytes
        return rings

    @cached_property
    def short(self) -> frozenset[str]:
        """Axes whose tiles have fewer rows than the atom."""
        rows = [a for s in self.statements if isinstance(s, ir.Loop) and s.parallel for a in s.axes]
        return frozenset(a.over for a in rows if a.step == ROWS and a.over in self.axes and self.extent(a.over) < ROWS)

    @property
    def beyond(self) -> int:
        """Bytes behind the rings that the atom reads too, where a tile has fewer rows than it: whatever lies there."""
        return max([0, *(ROWS - self.extent(a) for a in self.short)]) * PANEL

    @cached_property
    def pieces(self) -> int:
        """Tiles of rows that a warpgroup has: several where a tile has few rows of each position of another axis."""
        rows = [s for s in self.statements if isinstance(s, ir.Loop) and ir.note(s.notes, "bind") == "warpgroup"]
        return max([1, *(ROWS // self.extent(s.axes[-1].name) for s in rows if len(s.axes) > 1)])

    @cached_property
    def leaving(self) -> frozenset[str]:
        """Buffers from which copies lead out: each warpgroup has its own."""
        return frozenset(
            s.src.buffer for s in self.statements if isinstance(s, ir.Copy) and s.dst.buffer in self.tensors
        )

    @cached_property
    def tensors(self) -> frozenset[str]:
        """Names of tensor parameters."""
        return frozenset(p.name for p in self.kernel.params if p.dims is not None)

    @property
    def groups(self) -> int:
        """Warpgroups that multiply."""
        return max(1, next((t.warps for t in self.teams.values() if t.name != "producer"), 4) // 4)

    @cached_property
    def parts(self) -> dict[str, ir.Alloc]:
        """Buffers through which parts of a sum pass, in shared memory or in memory that all blocks see."""
        return {
            s.name: s
            for s in self.statements
            if isinstance(s, ir.Alloc)
            and ir.note(s.notes, "layout") is None
            and ir.note(s.notes, "place") in ("shared", "memory")
        }

    @cached_property
    def split(self) -> ir.Loop | None:
        """The loop over parts of a sum."""
        return next((s for s in self.statements if isinstance(s, ir.Loop) and ir.note(s.notes, "how")), None)

    @property
    def atomic(self) -> bool:
        """Whether parts of a sum are added to one in memory, in whatever order; it is 0 before and after a launch."""
        return self.split is not None and ir.note(self.split.notes, "how") == "atomic"

    @property
    def splits(self) -> int:
        """Parts of each sum."""
        return self.trips(self.split.axes[0]) if self.split else 1

    def elements(self, alloc: ir.Alloc) -> int:
        """Elements of a buffer of sums: whole rows of the atom."""
        return math.prod(ROWS if d in self.short else self.extent(d) for d in alloc.dims)

    @cached_property
    def part_offsets(self) -> dict[str, int]:
        """Where parts lie in shared memory: one for each block of the cluster."""
        at = sum(r.slots * r.slot_bytes for r in self.rings.values()) + self.beyond
        offsets = {}
        for name, alloc in self.parts.items():
            if ir.note(alloc.notes, "place") == "shared":
                offsets[name] = at
                at += 4 * self.elements(alloc) * self.splits // self.shares
        return {**offsets, "": at}

    @property
    def parts_bytes(self) -> int:
        """Bytes of the parts that other blocks send to the shared memory of one."""
        return sum(
            4 * self.elements(a) * (self.splits - 1) // self.shares
            for n, a in self.parts.items()
            if n in self.part_offsets
        )

    @cached_property
    def barriers(self) -> dict[str, Barrier]:
        """Barriers by name, after the buffers in shared memory."""
        found: dict[str, Barrier] = {}
        at = self.part_offsets[""]
        loops = {a.name: s for s in self.statements if isinstance(s, ir.Loop) for a in s.axes}
        for s in self.statements:
            if not isinstance(s, ir.Sync) or s.name in found or s.action == "fence":
                continue
            scope, stage = ir.note(s.notes, "scope"), ir.note(s.notes, "stage")
            if stage is None:
                continue  # a named barrier
            if s.action == "barrier" and scope != "cluster":
                continue
            slots = number(loops[str(stage)], "stages", 1) if s.action != "barrier" else 1
            arriving = self.parts_bytes if s.action == "barrier" else 0
            found[s.name] = Barrier(s.name, number(s, "count", 1), slots, at, arriving)
            at += 8 * slots
        return found

    @property
    def shared_bytes(self) -> int:
        """Dynamic shared memory: buffers, barriers, and a word for what the threads of a block tell one another."""
        return self.part_offsets[""] + 8 * sum(b.slots for b in self.barriers.values()) + 16

    # ---------------------------------------------------------------------------------- memory and maps
    @cached_property
    def scratch(self) -> tuple[Scratch, ...]:
        """Parts of split sums, and tickets."""
        found = []
        for name, alloc in self.parts.items():
            if ir.note(alloc.notes, "place") == "memory":
                each = [a.name for s in self.kernel.body if isinstance(s, ir.Loop) for a in s.axes if a.each]
                extents = [Extent(self.root(str(d)), self._grid_step(str(d))) for d in alloc.dims]
                extents += [Extent(self.root(a)) for a in each]
                each_tile = 4 if self.atomic else 4 * self.splits
                found.append(Scratch(Reserve(name, each_tile, tuple(extents)), zeroed=self.atomic))
        drawn = any(isinstance(s, ir.Loop) and ir.note(s.notes, "drawn") for s in self.statements)
        if found or drawn:
            found.append(Scratch(Reserve("tickets", 4, (Extent(TICKETS),)), zeroed=True))
        return tuple(found)

    def _grid_step(self, axis: str) -> int:
        while self.axes[axis].over in self.axes:
            axis = self.axes[axis].over
        return self.extent(axis)

    @cached_property
    def copies(self) -> dict[ir.Copy, TensorMap]:
        """The tensor map of each copy by the engine."""
        return {
            s: self._map(s) for s in self.statements if isinstance(s, ir.Copy) and ir.note(s.notes, "engine") == "tma"
        }

    @property
    def maps(self) -> tuple[TensorMap, ...]:
        """Tensor maps, each once."""
        return tuple(dict.fromkeys(self.copies.values()))

    def ring_of(self, copy: ir.Copy) -> tuple[Ring, ir.Ref, ir.Ref]:
        """The buffer of a copy, its side of it, and the tensor's side."""
        inward = copy.dst.buffer in self.rings
        near, far = (copy.dst, copy.src) if inward else (copy.src, copy.dst)
        return self.rings[near.buffer], near, far

    def dims_of(self, ref: ir.Ref, near: ir.Ref) -> tuple[int, ...]:
        """Dimensions of a tensor in the order of a map: as the buffer has them, innermost first; then others."""
        inner = [ref.index.index(i) for i in reversed(near.index)]
        return (*inner, *(d for d in reversed(range(len(ref.index))) if d not in inner))

    def box_rows(self, copy: ir.Copy) -> int:
        """Rows that one copy instruction moves: a block's share of a multicast, at most 256, or what is noted."""
        ring, _, _ = self.ring_of(copy)
        return min(number(copy, "box", 256), ring.rows // number(copy, "multicast", 1))

    def _map(self, copy: ir.Copy) -> TensorMap:
        ring, near, far = self.ring_of(copy)
        dims = self.dims_of(far, near)
        heights = (self.box_rows(copy),) if len(near.index) < 3 else tuple(map(self.extent, near.index[-2::-1]))
        box = (ring.wide, *heights, *(1 for _ in dims[1 + len(heights) :]))
        return TensorMap(far.buffer, dims, box[: len(dims)], swizzle=ring.pitch, l2_promotion=256)

    # ------------------------------------------------------------------------------------- expressions
    def start(self, axis: str) -> str:
        """C++ of where the tile of an axis begins."""
        return cname(self.same.get(axis, axis))

    def size(self, dim: str) -> str:
        """C++ of a dimension's size."""
        return str(self.sizes[dim]) if dim in self.sizes else cname(dim)

    def stride(self, tensor: str, dim: int) -> str:
        """C++ of a stride in elements."""
        known = self.layouts[tensor].strides[dim]
        if known == 1:
            return "unit"
        return str(known) if known is not None else f"args.words[{self.words.stride(tensor, dim)}]"

    def vector(self, tensor: str) -> int:
        """Neighbouring elements that one access may move."""
        param = self.kernel.param(tensor)
        wide = max(1, min(16, self.layouts[tensor].align) * 8 // param.dtype.bits)
        return 1 << (wide.bit_length() - 1)


def number(node: ir.Stmt, key: str, default: int) -> int:
    """A note that is a number."""
    return ir.number(getattr(node, "notes", ()), key, default)


def c_type(name: str) -> str:
    """C++ of an element type."""
    return C_TYPES.get(name, name)
