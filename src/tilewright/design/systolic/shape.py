"""A product as a systolic array takes it: which operand stands still in the cells, and which axes lie along what."""

from __future__ import annotations

from dataclasses import dataclass

from tilewright.design.design import Design
from tilewright.design.gpu.product import Product, product
from tilewright.language import ir, structure


@dataclass(frozen=True)
class Shape:
    """One sum of products between two axes.

    `operands` are the tensors of the left and the right operand, `total` is the value that carries the sum; any of
    the three may stand still.
    """

    product: Product
    dot: ir.Let
    loop: ir.Loop
    main: ir.Loop
    total: str
    operands: tuple[str, str]

    @property
    def choices(self) -> dict[str, str]:
        """What may stand still, by the dataflow that it makes."""
        left, right = self.operands
        return {"ws": right, "is": left, "os": self.total}

    def dataflow(self, design: Design) -> str:
        """ws, os or is: what a design holds still; ws where it does not say."""
        held = design.get("stationary", self.operands[1])
        return next((flow for flow, name in self.choices.items() if name == held), "ws")

    def roles(self, flow: str) -> tuple[ir.Axis, ir.Axis, ir.Axis]:
        """The axes along rows of cells, along columns, and of what streams through."""
        m, n, k = self.product.m, self.product.n, self.product.k
        return {"ws": (k, n, m), "is": (k, m, n), "os": (m, n, k)}[flow]


def shape(kernel: ir.Kernel) -> Shape | str:
    """The product that a program is; or why an array cannot take it as one."""
    found = product(kernel)
    if isinstance(found, str):
        return found
    if len(found.dots) != 1 or len(found.operands) != 2:
        return f"an array adds up one product of two tensors at a time, and {kernel.name} has {len(found.dots)}"
    nest = structure.nests(kernel)[0]
    assert nest.main is not None
    sums = [s.name for s in nest.main.body if isinstance(s, ir.Assign)]
    starts = {s.name: s.expr for s in nest.loop.body if isinstance(s, ir.Let)}
    if len(sums) != 1 or not (isinstance(zero := starts.get(sums[0]), ir.Full) and zero.value == 0):
        return f"accumulators start at 0, and {kernel.name} starts its sum with something else"
    left, right = found.operands
    return Shape(found, found.dots[0], nest.loop, nest.main, sums[0], (left.tensor, right.tensor))


__all__ = ["Shape", "shape"]
