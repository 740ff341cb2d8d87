"""What a design takes of a GPU: shared memory, registers, blocks on an SM; closed forms, before anything is lowered."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

from tilewright.design.default import Facts
from tilewright.design.design import Design
from tilewright.design.gpu.product import Product
from tilewright.language import ir

ROW_BYTES = 128
"""Bytes of a row of a swizzled tile."""

ATOM_ROWS = 64


@dataclass(frozen=True)
class Resources:
    """A product's design, and what it takes."""

    product: Product
    design: Design
    facts: Facts

    @property
    def swap(self) -> bool:
        """Whether columns of the result lie along the rows of the atom."""
        return bool(self.design.get("swap"))

    @property
    def row(self) -> str:
        """The axis along the rows of the atom."""
        return self.product.n.name if self.swap else self.product.m.name

    @property
    def column(self) -> str:
        """The axis along the columns of the atom."""
        return self.product.m.name if self.swap else self.product.n.name

    def tile(self, axis: str) -> int:
        """Points of an axis that a block works on."""
        return self.design.number(f"tile.{axis}")

    @property
    def depth(self) -> int:
        """Points of the sum in one step."""
        return self.tile(self.product.k.name)

    @property
    def groups(self) -> int:
        """Warpgroups that multiply."""
        return self.design.number("warpgroups", 1)

    @property
    def pingpong(self) -> bool:
        """Whether each warpgroup has a tile of its own."""
        return self.design.get("schedule") == "pingpong"

    @property
    def splits(self) -> int:
        """Parts of the sum."""
        return self.design.number(f"split.{self.product.k.name}", 1)

    @property
    def how(self) -> str:
        """How parts are joined."""
        return str(self.design.get(f"how.{self.product.k.name}", "two_pass"))

    def cluster(self, axis: str) -> int:
        """Blocks of a cluster along an axis."""
        return self.design.number(f"cluster.{axis}", 1)

    @property
    def blocks(self) -> int:
        """Blocks of a cluster."""
        spread = self.cluster(self.row) * self.cluster(self.column)
        return spread * (self.splits if self.how == "cluster" else 1)

    @cached_property
    def stage_bytes(self) -> int:
        """Shared memory of one step: the operands' tiles, in rows of 128 bytes."""
        total = 0
        for o in self.product.operands:
            width, rows = self.depth, self.tile(o.axis)
            if not self.product.runs_along_sum(o, self.facts):
                width, rows = rows, width
            panels = math.ceil(width * self.product.itemsize / ROW_BYTES)
            total += panels * rows * ROW_BYTES
        return total

    @property
    def result_bytes(self) -> int:
        """One tile of every sum in f32."""
        return 4 * max(ATOM_ROWS, self.tile(self.row)) * self.tile(self.column) * len(self.product.dots)

    @property
    def shared_bytes(self) -> int:
        """Shared memory of a block, barriers included."""
        together = self.splits > 1 and self.how == "cluster"
        shares = shares_of(self.tile(self.column), self.splits)
        parts = self.splits * self.result_bytes // shares if together else 0
        stages = self.design.number("stages", 1)
        return stages * self.stage_bytes + self.beyond_bytes + self.store_bytes + parts + 16 * stages + 24

    @property
    def store_bytes(self) -> int:
        """Shared memory through which results leave, where the copy engine takes them."""
        out = [t for t in self.product.outputs if self.design.get(f"store.{t}") == "tma"]
        columns = self.tile(self.column)
        narrow = columns if columns <= ATOM_ROWS else math.gcd(columns, ATOM_ROWS)
        rows = narrow if self.swap else ATOM_ROWS
        pitch = ROW_BYTES if self.swap else math.gcd(columns, ATOM_ROWS) * ROW_BYTES // ATOM_ROWS
        return len(out) * self.groups * STORE_SLOTS * rows * pitch

    @property
    def tiles(self) -> int:
        """Tiles of the result, at the sizes known."""
        p = self.product
        count = math.prod(self.facts.sizes.get(a.over, 1) for a in p.each)
        return count * math.prod(-(-p.size(a, self.facts, 1) // self.tile(a.name)) for a in (p.m, p.n))

    @property
    def threads(self) -> int:
        """Threads of a block."""
        return 128 * self.groups + (32 if self.design.get("producer") == "warp" else 128)

    @property
    def short(self) -> bool:
        """Whether a tile has fewer rows than the atom: others are multiplied as they lie there, and never stored."""
        return self.tile(self.row) < ATOM_ROWS

    @property
    def beyond_bytes(self) -> int:
        """Shared memory behind a short tile that the atom reads too, and that has to be there."""
        return (ATOM_ROWS - self.tile(self.row)) * ROW_BYTES if self.short else 0

    @property
    def accumulators(self) -> int:
        """Registers of a consumer's thread that hold sums; of split sums both parts and totals."""
        rows = max(ATOM_ROWS, self.tile(self.row) // (1 if self.pingpong else self.groups))
        both = self.splits > 1 and self.how != "atomic"
        return rows * self.tile(self.column) * len(self.product.dots) // 128 * (2 if both else 1)

    @property
    def beside(self) -> dict[str, ir.Ref]:
        """Tensors that are read beside the sums, and where."""
        return beside(self.product)

    @property
    def early(self) -> int:
        """Registers of a consumer's thread that hold what was read of such tensors before the main loop."""
        held = 0
        for tensor, ref in self.beside.items():
            if self.design.get(f"early.{tensor}"):
                # Of 64 rows a thread has two, of 8 columns two.
                rows = max(ATOM_ROWS, self.tile(self.row) // self.groups) // 32 if self.row in ref.index else 1
                columns = self.tile(self.column) // 4 if self.column in ref.index else 1
                held += -(-rows * columns * self.product.bits[tensor] // 32)
        return held

    @property
    def register_limit(self) -> int:
        """Registers of a consumer's thread."""
        if self.design.get("producer") == "warp":
            return min(255, 65536 // self.threads // 8 * 8)
        return {1: 232, 2: 232, 3: 160}[self.groups]


def beside(p: Product) -> dict[str, ir.Ref]:
    """Tensors that are read beside the sums, along rows or columns of the result or both, and where."""
    loads = [s.expr.ref for s in p.after if isinstance(s, ir.Let) and isinstance(s.expr, ir.Load)]
    return {x.buffer: x for x in loads if p.m.name in x.index or p.n.name in x.index}


def shares_of(columns: int, parts: int) -> int:
    """How many blocks of a cluster join parts of a sum, each its share of the columns: whole fragments of 8."""
    return math.gcd(columns // 8, parts)


SPARE_REGISTERS = 40
"""Of a consumer's thread, beside its sums: addresses, the epilogue's values."""

STORE_SLOTS = 2
"""Tiles of 64 rows by 128 bytes for each warpgroup: one is written while the other leaves."""
