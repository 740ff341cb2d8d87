"""What the host and an emitted x86 kernel agree on: one array of 64-bit words, and a workspace.

Words, in order: pool, pool entry, threads, workspace; then for each tensor its pointer and one stride
per dimension (in elements); then every symbolic size; then every scalar (floats by their bits).
"""

from __future__ import annotations

from dataclasses import dataclass

from tilewright.language.ir import Kernel

POOL, ENTRY, THREADS, WORKSPACE = range(4)
FIRST = 4
"""Where the words of tensors begin; those of sizes follow them, then scalars."""


@dataclass(frozen=True)
class TensorLayout:
    """What is known of a tensor when its kernel is emitted: strides in elements (None: at run time) and alignment.

    `align` is a number of bytes that the pointer and every stride but a unit one are multiples of. `constant`: nobody
    writes to it while launches of the kernel are under way (the weights of a model).
    """

    strides: tuple[int | None, ...]
    align: int = 1
    constant: bool = False


@dataclass(frozen=True)
class Extent:
    """A buffer dimension: a fixed or a symbolic size, rounded up to a multiple of `round_to`; one for each `per`."""

    dim: str | int
    round_to: int = 1
    per: int = 1


@dataclass(frozen=True)
class Reserve:
    """A piece of workspace: elements of `itemsize` bytes; one copy for all threads, or one for each."""

    name: str
    itemsize: int
    extents: tuple[Extent, ...]
    per_thread: bool = False

    def bytes(self, sizes: dict[str, int]) -> int:
        """Size of one copy, rounded up to cache lines."""
        total = self.itemsize
        for e in self.extents:
            size = sizes[e.dim] if isinstance(e.dim, str) else e.dim
            total *= -(-size // e.round_to) * e.round_to // e.per
        return -(-total // 64) * 64


def tensor_word(kernel: Kernel, name: str) -> int:
    """Index of the pointer word of a tensor; its strides follow."""
    at = FIRST
    for p in kernel.params:
        if p.dims is None:
            continue
        if p.name == name:
            return at
        at += 1 + len(p.dims)
    raise KeyError(name)


def dim_word(kernel: Kernel, name: str) -> int:
    """Index of the word that holds a symbolic size."""
    tensors = sum(1 + len(p.dims) for p in kernel.params if p.dims is not None)
    return FIRST + tensors + kernel.dims.index(name)


def scalar_word(kernel: Kernel, name: str) -> int:
    """Index of the word that holds a scalar parameter."""
    scalars = [p.name for p in kernel.params if p.dims is None]
    tensors = sum(1 + len(p.dims) for p in kernel.params if p.dims is not None)
    return FIRST + tensors + len(kernel.dims) + scalars.index(name)


def word_count(kernel: Kernel) -> int:
    """Number of words of a call."""
    return FIRST + len(kernel.dims) + sum(1 if p.dims is None else 1 + len(p.dims) for p in kernel.params)
