"""How long a stage takes on its units: compute passes, ports, and main memory; closed forms over tile sizes.

A unit takes `lanes` elements a cycle through `simd_stages` operations, so a chain of more operations takes further
passes; a copy is one. A product takes lanes x simd_stages multiplications a cycle. What is read and written passes
ports of `port_bytes` a cycle, streams side by side. Main memory is shared: a transfer holds it for its bytes.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

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


@dataclass
class _Meter:
    """Adds up what statements ask for; `tensors` lie in main memory, `buffers` on chip."""

    extent: Extent
    tensors: Mapping[str, DType]
    buffers: Mapping[str, DType]
    types: Mapping[str, ir.TileType]
    operations: dict[int, int] = field(default_factory=lambda: defaultdict(int))  # by the elements they are done on
    ports: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    products: int = 0
    memory: float = 0.0
    flops: float = 0.0

    def size(self, axes: tuple[ir.Dim, ...]) -> int:
        return math.prod(self.extent(a) for a in axes)

    def moved(self, ref: ir.Ref, elements: int) -> None:
        dtype = self.tensors.get(ref.buffer) or self.buffers[ref.buffer]
        self.ports[ref.buffer] += elements * dtype.bytes
        self.memory += elements * dtype.bytes if ref.buffer in self.tensors else 0

    def applied(self, elements: int, operations: int, counts: bool = True) -> None:
        self.operations[elements] += operations
        self.flops += elements * counts

    def read(self, stmt: ir.Stmt) -> None:
        """Count one statement; loops inside a stage are counted by whoever walks them."""
        match stmt:
            case ir.Let(_, type_, ir.Load(ref)):
                self.moved(ref, self.size(type_.axes))
            case ir.Let(_, type_, ir.Map(op, _)):
                self.applied(self.size(type_.axes), OPERATIONS.get(op, 1), op != "cast")
            case ir.Let(_, _, ir.Reduce(_, arg, _)):
                self.applied(self.size(self.types[arg].axes), 1)
            case ir.Let(_, type_, ir.Dot(_, _, axis)):
                self.products += self.size(type_.axes) * self.extent(axis)
                self.flops += 2 * self.size(type_.axes) * self.extent(axis)
            case ir.Store(ref, value):
                self.moved(ref, self.size(self.types[value].axes))
            case ir.Copy(dst, src):
                elements = self.size(tuple(i for i in dst.index if isinstance(i, str)))
                self.applied(elements, 1, counts=False)
                self.moved(src, elements)
                self.ports[dst.buffer] += elements * self.buffers[dst.buffer].bytes
            case _:
                pass


def work(
    body: tuple[ir.Stmt, ...], extent: Extent, tensors: Mapping[str, DType], buffers: Mapping[str, DType],
    types: Mapping[str, ir.TileType], array: DataflowArray, units: int,
) -> Work:  # fmt: skip
    """The work of the statements of a stage, without the loops inside it; `tensors` lie in main memory."""
    meter = _Meter(extent, tensors, buffers, types)
    for stmt in body:
        meter.read(stmt)
    lanes, stages = array.lanes, array.simd_stages
    passes = sum(math.ceil(n / lanes) * math.ceil(ops / stages) for n, ops in meter.operations.items())
    compute = passes + math.ceil(meter.products / array.macs_per_cycle)
    port = max(meter.ports.values(), default=0) / array.port_bytes
    memory = meter.memory / array.bytes_per_cycle
    return Work(math.ceil(compute / units), math.ceil(port / units), memory, meter.flops)
