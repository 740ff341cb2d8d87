"""What a chain's design takes of a GPU: shared memory and registers, in closed forms, before anything is lowered."""

from __future__ import annotations

import math
from dataclasses import dataclass

from tilewright.design.default import Facts
from tilewright.design.design import Design
from tilewright.design.gpu.chain import Chain, Moved
from tilewright.design.gpu.resources import ATOM_ROWS, ROW_BYTES

_REGISTERS = {1: (56, 240), 2: (24, 240), 3: (32, 160)}
"""Registers of a producer's and of a consumer's thread, where both are warpgroups: what the 64 K of an SM give."""


def producer_warps(design: Design) -> int:
    """Warps of the producer: one, or a warpgroup that hands its registers to the others."""
    return 1 if design.get("producer") == "warp" else 4


def registers_of(design: Design) -> tuple[int, int] | None:
    """Registers of a producer's and a consumer's thread; None where all have the same."""
    return None if design.get("producer") == "warp" else _REGISTERS.get(design.number("warpgroups", 1))


@dataclass(frozen=True)
class ChainResources:
    """A chain's design, and what it takes."""

    chain: Chain
    design: Design
    facts: Facts

    def extent(self, axis: str) -> int:
        """Points of a tile of an axis, or of a whole dimension."""
        return self.design.number(f"tile.{axis}") or self.facts.sizes.get(axis, 1)

    @property
    def packed(self) -> int:
        """Positions of the packed axis, side by side in a tile of rows."""
        axis = self.chain.packed
        return self.design.number(f"tile.{axis.name}", 1) if axis else 1

    @property
    def rows(self) -> int:
        """Rows of a block."""
        return self.design.number(f"tile.{self.chain.row.name}") * self.packed

    @property
    def columns(self) -> int:
        """Columns of a step."""
        return self.design.number(f"tile.{self.chain.step.name}")

    @property
    def groups(self) -> int:
        """Warpgroups that multiply."""
        return self.design.number("warpgroups", 1)

    def bytes_of(self, operand: Moved) -> int:
        """Shared memory of one tile of an operand: rows of 128 bytes."""
        width, rows = operand.depth, operand.axis
        if not operand.runs_along_sum(self.facts):
            width, rows = rows, width
        return math.ceil(self.extent(width) * self.chain.itemsize / ROW_BYTES) * self.extent(rows) * ROW_BYTES

    @property
    def step_bytes(self) -> int:
        """What one step copies."""
        return sum(map(self.bytes_of, self.chain.moving))

    @property
    def still_bytes(self) -> int:
        """What a block copies once."""
        return sum(map(self.bytes_of, self.chain.still)) * self.packed

    @property
    def store_bytes(self) -> int:
        """Through which results leave, where the copy engine takes them."""
        out = [t for t in self.chain.outputs if self.design.get(f"store.{t}") == "tma"]
        return sum(self.rows * self.facts.sizes[w] * self.chain.itemsize for _ in out for w in self.widths[:1])

    @property
    def widths(self) -> list[str]:
        """Dimensions along the columns of the sums."""
        return list(dict.fromkeys(self.chain.width(d) for d in self.chain.second))

    @property
    def shared_bytes(self) -> int:
        """Shared memory of a block, barriers included."""
        stages, items = self.design.number("stages", 1), self.design.number("stages.item", 1)
        slots = items * (len(self.chain.still) + bool(self.design.get("drawn"))) + stages * len(self.chain.moving)
        return items * self.still_bytes + stages * self.step_bytes + self.store_bytes + 16 * slots + 16

    @property
    def accumulators(self) -> int:
        """Registers of a consumer's thread for scores, for what is computed of them, and for sums."""
        scores = len(self.chain.first) * self.columns // 2
        operand = self.columns // 4 * (len(self.chain.second) if self.design.get("overlap") else 1)
        sums = sum(self.extent(self.chain.width(d)) // 2 for d in self.chain.second)
        return self.rows // (ATOM_ROWS * max(1, self.groups)) * (scores + operand + sums)

    @property
    def register_limit(self) -> int:
        """Registers of a consumer's thread."""
        found = registers_of(self.design)
        return found[1] if found else min(255, 65536 // (128 * self.groups + 32) // 8 * 8)

    @property
    def tiles(self) -> int:
        """Blocks of work, at the sizes known."""
        many = math.prod(self.facts.sizes.get(a.over, 1) for a in (*self.chain.each, *self.chain.single))
        if self.packed > 1 and self.chain.packed:
            size = self.facts.sizes.get(self.chain.packed.over, 1)
            many = many // size * -(-size // self.packed)
        return many * -(-self.facts.sizes.get(self.chain.row.over, 1) // (self.rows // self.packed))


__all__ = ["ChainResources", "producer_warps", "registers_of"]
