"""What the host and an emitted CUDA kernel agree on: one parameter, with tensor maps first and 64-bit words after them.

Words, in order: a pointer for each scratch buffer; for each tensor its pointer and one stride per dimension
(in elements); every symbolic size; every scalar (floats by their bits in the low 32).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from tilewright.emit.abi import Reserve
from tilewright.language.ir import Kernel
from tilewright.machines.machine import Machine

MAP_BYTES = 128
"""Bytes of a CUtensorMap, which is also its alignment here."""


@dataclass(frozen=True)
class TensorMap:
    """A tensor as the copy engine sees it (CUDA driver API, cuTensorMapEncodeTiled).

    `dims` are dimensions of the tensor, the one with stride one first; `box` is what one copy moves, in elements, in
    the same order. `swizzle` is 0, 32, 64 or 128 bytes; `l2_promotion` 0, 64, 128 or 256 bytes.
    """

    tensor: str
    dims: tuple[int, ...]
    box: tuple[int, ...]
    swizzle: int = 128
    l2_promotion: int = 128


@dataclass(frozen=True)
class Grid:
    """How many blocks a launch has.

    The product over `axes` of ceil(size / points), times `splits`; each axis that a cluster spans is rounded up to
    whole clusters (`cluster_axes`: axis number -> blocks). `parts` is a dimension of which each block takes so many
    points, or none: then there is one block for it. A persistent launch has at most as many clusters as are resident at
    once.
    """

    axes: tuple[tuple[str, int], ...]
    splits: int = 1
    cluster: int = 1
    cluster_axes: tuple[tuple[int, int], ...] = ()
    persistent: bool = False
    parts: tuple[str, int] | tuple[()] = ()

    def tiles(self, sizes: Mapping[str, int]) -> int:
        """Blocks of work, splits and padding to whole clusters included."""
        spans = dict(self.cluster_axes)
        counts = [-(-sizes[dim] // points) for dim, points in self.axes]
        padded = [-(-n // spans.get(i, 1)) * spans.get(i, 1) for i, n in enumerate(counts)]
        parts = max(1, -(-sizes[self.parts[0]] // self.parts[1])) if self.parts else 1
        return math.prod(padded) * self.splits * parts

    def blocks(self, sizes: Mapping[str, int], resident: int) -> int:
        """Blocks to launch where `resident` blocks fit on the device at once."""
        tiles = self.tiles(sizes)
        if not self.persistent:
            return tiles
        return max(self.cluster, min(tiles, resident) // self.cluster * self.cluster)


@dataclass(frozen=True)
class Scratch:
    """Device memory that a launch needs beside its operands: partial results, or tickets that start and end as zero."""

    reserve: Reserve
    zeroed: bool = False

    @property
    def name(self) -> str:
        """The name of the buffer."""
        return self.reserve.name


@dataclass(frozen=True)
class CudaModule:
    """The CUDA C++ of one kernel, and all that a launch has to know of it.

    `pdl`: it waits by itself for the kernel before it, and may be launched while that one still runs.
    """

    source: str
    entry: str
    threads: int
    grid: Grid
    maps: tuple[TensorMap, ...] = ()
    shared_bytes: int = 0
    scratch: tuple[Scratch, ...] = ()
    pdl: bool = False

    def words(self, kernel: Kernel) -> Words:
        """Where its words lie."""
        return Words(kernel, tuple(s.name for s in self.scratch))


@dataclass(frozen=True)
class Words:
    """Places of the words of a kernel's argument."""

    kernel: Kernel
    scratch: tuple[str, ...] = ()
    _tensors: Mapping[str, int] = field(init=False, repr=False, compare=False)
    _dims: Mapping[str, int] = field(init=False, repr=False, compare=False)
    _scalars: Mapping[str, int] = field(init=False, repr=False, compare=False)
    count: int = field(init=False, compare=False)

    def __post_init__(self) -> None:
        at, tensors = len(self.scratch), {}
        for p in self.kernel.params:
            if p.dims is not None:
                tensors[p.name] = at
                at += 1 + len(p.dims)
        dims = {d: at + n for n, d in enumerate(self.kernel.dims)}
        at += len(dims)
        scalars = {p.name: at + n for n, p in enumerate(q for q in self.kernel.params if q.dims is None)}
        for name, value in (("_tensors", tensors), ("_dims", dims), ("_scalars", scalars)):
            object.__setattr__(self, name, value)
        object.__setattr__(self, "count", at + len(scalars))

    def scratch_word(self, name: str) -> int:
        """The pointer of a scratch buffer."""
        return self.scratch.index(name)

    def tensor(self, name: str) -> int:
        """The pointer of a tensor; its strides follow."""
        return self._tensors[name]

    def stride(self, name: str, dim: int) -> int:
        """The stride of a tensor along one of its dimensions."""
        return self._tensors[name] + 1 + dim

    def dim(self, name: str) -> int:
        """A symbolic size."""
        return self._dims[name]

    def scalar(self, name: str) -> int:
        """A scalar parameter."""
        return self._scalars[name]


def overlaps(machine: Machine) -> bool:
    """Whether a kernel there may begin before the one before it has ended (programmatic dependent launch, sm_90)."""
    return machine.limit("compute_capability") >= 90


def args_struct(maps: int, words: int) -> str:
    """C++ of the kernel's only parameter; `CUtensorMap` is declared in the tile library."""
    first = f"CUtensorMap maps[{maps}]; " if maps else ""
    return f"struct Args {{ {first}long long words[{max(words, 1)}]; }};"


def argument_bytes(maps: int, words: int) -> int:
    """Size of that parameter."""
    size = MAP_BYTES * maps + 8 * max(words, 1)
    align = MAP_BYTES if maps else 8
    return -(-size // align) * align


__all__ = [
    "MAP_BYTES",
    "CudaModule",
    "Grid",
    "Scratch",
    "TensorMap",
    "Words",
    "args_struct",
    "argument_bytes",
    "overlaps",
]
