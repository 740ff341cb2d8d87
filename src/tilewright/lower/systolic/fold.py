"""Stage `fold`: the axes of a product in the order in which an array visits tiles, each in steps of its own."""

from __future__ import annotations

from dataclasses import replace

from tilewright.design.design import Design
from tilewright.design.systolic.shape import Shape
from tilewright.language import ir


def fold(kernel: ir.Kernel, shape: Shape, design: Design) -> ir.Kernel:
    """
    before:  for m in M, n in N parallel { acc = full 0; for k in K { ... }; store c[m, n] = acc }
    after:   for m in M step 2048 { for n in N step 256 { acc = full 0; for k in K step 256 { ... }; store ... } }

    What streams is the outer loop, so that one copy of it serves every tile that stands still; where the outputs
    stand still, it is the inner one, as the author wrote it.
    """
    rows, columns, streamed = shape.roles(shape.dataflow(design))
    outer, inner = (rows, columns) if shape.dataflow(design) == "os" else (streamed, columns)

    def stepped(axis: ir.Axis) -> ir.Axis:
        return replace(axis, step=design.number(f"tile.{axis.name}", 1))

    main = replace(shape.main, axes=(stepped(shape.main.axes[0]),))
    body = tuple(main if s is shape.main else s for s in shape.loop.body)
    nest = ir.Loop((stepped(outer),), (ir.Loop((stepped(inner),), body),))
    for axis in reversed(shape.product.each):
        nest = ir.Loop((axis,), (nest,))
    return replace(kernel, body=tuple(nest if s is shape.loop else s for s in kernel.body))
