"""Products as the GPU model reads them: sizes, tiles, clusters, and the bytes that their blocks bring in."""

from __future__ import annotations

import math
from dataclasses import dataclass

from tilewright.design.cost.program import Program
from tilewright.design.default import Facts
from tilewright.design.design import Design
from tilewright.language import ir


@dataclass(frozen=True)
class Product:
    """One dot at its sizes: rows, columns, depth; the points of each that a block covers; copies of it (`batch`)."""

    sizes: tuple[int, int, int]
    tiles: tuple[int, int, int]
    batch: int
    itemsize: int
    split: int
    rows_from: str  # what is multiplied, by name
    columns_from: str
    down: int  # blocks of a cluster along the rows; they share what is read for the columns
    across: int  # and along the columns
    axes: tuple[str, str]  # of rows and of columns
    joined_in_cluster: bool

    @property
    def cluster(self) -> int:
        """Blocks of a cluster."""
        return self.down * self.across

    @property
    def together(self) -> int:
        """Blocks that lie close: those of a cluster, and those that join parts of a sum there."""
        return self.cluster * (self.split if self.joined_in_cluster else 1)

    @property
    def flops(self) -> float:
        """Two operations for each product."""
        return 2.0 * math.prod(self.sizes) * self.batch

    @property
    def blocks(self) -> int:
        """Tiles of the result, times the parts of the sum."""
        (m, n, _), (tm, tn, _) = self.sizes, self.tiles
        return -(-m // tm) * -(-n // tn) * self.batch * self.split

    @property
    def steps(self) -> int:
        """Steps of the main loop of one block."""
        return -(-self.sizes[2] // (self.tiles[2] * self.split))

    @property
    def result_bytes(self) -> float:
        """Bytes of an f32 result."""
        return 4.0 * self.sizes[0] * self.sizes[1] * self.batch


def product_of(program: Program, design: Design, facts: Facts, let: ir.Let) -> Product:
    """One dot of a program at the sizes of the facts."""
    assert isinstance(let.expr, ir.Dot)
    dot = let.expr
    rows = [a for a in program.values[dot.a].type.axes if a != dot.axis]
    columns = [a for a in let.type.axes if a not in rows]
    m, n = rows[0] if rows else let.type.axes[0], columns[0] if columns else let.type.axes[-1]
    if design.get("swap"):
        m, n = n, m
    sizes = tuple(size_of(program, facts, a) for a in (m, n, dot.axis))
    tiles = tuple(_tile(program, design, facts, a, d) for a, d in ((m, 128), (n, 128), (dot.axis, 64)))
    each = [a for nest in program.nests for a in nest.loop.axes if a.each]
    return Product(
        (sizes[0], sizes[1], sizes[2]), (tiles[0], tiles[1], tiles[2]),
        math.prod(size_of(program, facts, a.name) for a in each), program.values[dot.a].type.dtype.bytes,
        max(1, design.number(f"split.{dot.axis}", 1)), *((dot.b, dot.a) if design.get("swap") else (dot.a, dot.b)),
        max(1, design.number(f"cluster.{m}", 1)), max(1, design.number(f"cluster.{n}", 1)), (m, n),
        how_joined(design) == "cluster",
    )  # fmt: skip


def how_joined(design: Design) -> str:
    """How the parts of a split sum are joined."""
    return next((str(v) for _, v in design.prefixed("how")), "two_pass")


def size_of(program: Program, facts: Facts, axis: str) -> int:
    """Points of an axis, or of the axis that it runs over, or of a dimension; 1 where it is not known."""
    while axis in program.axes:
        axis = program.axes[axis].over
    return facts.sizes.get(axis, 1)


def _tile(program: Program, design: Design, facts: Facts, axis: str, default: int) -> int:
    if axis not in program.axes:
        return size_of(program, facts, axis)
    return max(1, design.number(f"tile.{axis}", default))


def step_bytes(products: list[Product]) -> int:
    """Bytes of operands that one step brings in; what several dots multiply comes once."""
    tiles: dict[str, int] = {}
    for p in products:
        tiles |= {p.rows_from: p.tiles[0] * p.tiles[2] * p.itemsize}
        tiles |= {p.columns_from: p.tiles[1] * p.tiles[2] * p.itemsize}
    return sum(tiles.values())


def loaded_once(products: list[Product]) -> float:
    """Bytes of operands that all blocks take from L2; what a cluster shares comes once for all its blocks."""
    found: dict[str, float] = {}
    for p in products:
        (m, n, k), (tm, tn, _) = p.sizes, p.tiles
        down, across = -(-m // tm), -(-n // tn)
        found |= {p.rows_from: float(p.batch * k * p.itemsize * m * across / p.across)}
        found |= {p.columns_from: float(p.batch * k * p.itemsize * n * down / p.down)}
    return sum(found.values())


__all__ = ["Product", "how_joined", "loaded_once", "product_of", "size_of", "step_bytes"]
