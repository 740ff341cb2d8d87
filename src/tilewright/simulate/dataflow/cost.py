"""How long a stage takes on its units: compute passes, ports, and main memory; closed forms over tile sizes.

A unit takes `lanes` elements a cycle through `simd_stages` operations, so a chain of more operations takes further
passes; a copy is one. A product
takes lanes x simd_stages multiplications a cycle. What is read and written passes ports of
`port_bytes` a cycle, streams side by side. Main memory is shared: a transfer holds it for its bytes.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from tilewright.language import ir
from tilewright.language.dtypes import DType
from tilewright.machines.dataflow import DataflowArray

# Operations of a unit that one function takes; every other one takes 1. The counts are ours: none are published.
OPERATIONS = {"exp": 4, "exp2": 3, "log": 4, "div": 4, "sqrt": 3, "rsqrt": 3, "tanh": 6, "sigmoid": 6, "erf": 6}

Extent = Callable[[ir.Dim], int]


@dataclass(frozen=True)
class Work:
    """What straight-line statements ask of a stage: cycles of compute and of ports, bytes of main memory, flops."""

    compute: float = 0.0
    port: float = 0.0
    memory: float = 0.0
    flops: float = 0.0


def work(
    body: tuple[ir.Stmt, ...], extent: Extent, tensors: Mapping[str, DType], buffers: Mapping[str, DType],
    types: Mapping[str, ir.TileType], array: DataflowArray, units: int,
) -> Work:  # fmt: skip
    """The work of the statements of a stage, without the loops inside it; `tensors` lie in main memory."""
    operations: dict[int, int] = defaultdict(int)
    ports: dict[str, float] = defaultdict(float)
    products = memory = flops = 0.0

    def moved(ref: ir.Ref, elements: int) -> None:
        nonlocal memory
        dtype = tensors.get(ref.buffer) or buffers[ref.buffer]
        ports[ref.buffer] += elements * dtype.bytes
        memory += elements * dtype.bytes if ref.buffer in tensors else 0

    def size(axes: tuple[ir.Dim, ...]) -> int:
        return math.prod(extent(a) for a in axes)

    for stmt in body:
        match stmt:
            case ir.Let(_, type_, ir.Load(ref)):
                moved(ref, size(type_.axes))
            case ir.Let(_, type_, ir.Map(op, _)):
                operations[size(type_.axes)] += OPERATIONS.get(op, 1)
                flops += size(type_.axes) * (op != "cast")
            case ir.Let(_, _, ir.Reduce(_, arg, _)):
                operations[size(types[arg].axes)] += 1
                flops += size(types[arg].axes)
            case ir.Let(_, type_, ir.Dot(_, _, axis)):
                products += size(type_.axes) * extent(axis)
                flops += 2 * size(type_.axes) * extent(axis)
            case ir.Store(ref, value):
                moved(ref, size(types[value].axes))
            case ir.Copy(dst, src):
                elements = size(tuple(i for i in dst.index if isinstance(i, str)))
                operations[elements] += 1
                moved(src, elements)
                ports[dst.buffer] += elements * buffers[dst.buffer].bytes
            case _:
                pass
    passes = sum(math.ceil(n / array.lanes) * math.ceil(ops / array.simd_stages) for n, ops in operations.items())
    compute = passes + math.ceil(products / array.macs_per_cycle)
    port = max(ports.values(), default=0) / array.port_bytes
    return Work(math.ceil(compute / units), math.ceil(port / units), memory / array.bytes_per_cycle, flops)
