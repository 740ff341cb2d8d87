"""What a fold takes of an array's memories, in elements and bytes: closed forms, before anything is lowered."""

from __future__ import annotations

from dataclasses import dataclass

from tilewright.design.default import Facts
from tilewright.design.design import Design
from tilewright.design.systolic.shape import Shape
from tilewright.machines.systolic import stationary


@dataclass(frozen=True)
class Room:
    """A program's shape beside the array that it is for; None where the machine states no limit."""

    shape: Shape
    facts: Facts

    @property
    def rows(self) -> int:
        return int(self.facts.machine.limit("rows"))

    @property
    def columns(self) -> int:
        return int(self.facts.machine.limit("columns"))

    @property
    def most_cells(self) -> int:
        """Tiles that the cells hold: one that computes, and shadows."""
        return 1 + int(dict(self.facts.machine.limits).get("shadow_weight_tiles", 0))

    @property
    def most_fifo(self) -> int:
        return int(dict(self.facts.machine.limits).get("weight_fifo_tiles", 1))

    @property
    def accumulators(self) -> int | None:
        """Rows of sums, each as wide as the array."""
        found = dict(self.facts.machine.limits).get("accumulator_rows")
        return None if found is None else int(found)

    @property
    def buffer(self) -> int | None:
        """Bytes that operands stream from."""
        return next((m.bytes for m in self.facts.machine.levels if m.name == "unified_buffer"), None)

    @property
    def flows(self) -> tuple[str, ...]:
        """Dataflows of the array: standing sums are other cells; weights and inputs may change places.

        They may not where memory feeds the cells alone (as weights on a TPU v1), and something else the buffer.
        """
        flow = stationary(self.facts.machine)
        rates = {level.name: level.bandwidth for level in self.facts.machine.levels}
        if flow == "os" or (rates.get("weights") is not None and rates.get("unified_buffer") is None):
            return (flow,)
        return (flow, "is" if flow == "ws" else "ws")

    def size(self, axis: int, flow: str) -> int:
        """The size along rows, columns or the stream (0, 1, 2)."""
        return self.facts.sizes[self.shape.roles(flow)[axis].over]

    # ------------------------------------------------------------------------------- what a design takes
    def streamed(self, flow: str, sums: int) -> int:
        """The longest stream that the accumulators and the buffer hold, at least 1."""
        limits = [self.size(2, flow)]
        if self.accumulators is not None:
            limits.append(self.accumulators // sums)
        if self.buffer is not None:
            limits.append(self.buffer // (self.size(0, flow) * self.shape.product.itemsize))
        return max(1, min(limits))

    def buffered_bytes(self, design: Design) -> int:
        """Bytes of what lies ready to stream."""
        flow = self.shape.dataflow(design)
        rows, columns, streamed = (design.number(f"tile.{a.name}", 1) for a in self.shape.roles(flow))
        if flow == "os":
            return (rows + columns) * streamed * design.number("stages.fifo", 1) * self.shape.product.itemsize
        return streamed * self.size(0, flow) * self.shape.product.itemsize
