"""Buckets: ranges of batch and length that share a kernel, and the shape that calls are counted by."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable, Collection, Mapping
from functools import lru_cache
from typing import NamedTuple

from tilewright.language import ir

EDGES = (1, 4, 16, 64, 256, 1024, 4096, 16384, 65536)
"""The last size of each range: 1, 2-4, 5-16, 17-64, ... Below 16 kernels differ most, so that range is split."""

BATCH, LENGTH = ("B", "M", "N", "T"), ("T", "S", "L", "P")
"""Names of dims by what they count, the likeliest first: sequences or rows; positions of each."""


class Range(NamedTuple):
    """Sizes from `low` to `high`, both included."""

    low: int
    high: int

    def __contains__(self, size: object) -> bool:
        return isinstance(size, int) and self.low <= size <= self.high

    def __str__(self) -> str:
        return str(self.low) if self.low == self.high else f"{self.low}-{self.high}"


class Roles(NamedTuple):
    """The dims of a program that count sequences (or rows), and positions of each; None where there is none."""

    batch: str | None
    length: str | None


class Shape(NamedTuple):
    """What the monitor counts calls by."""

    operator: str
    batch: Range | None
    length: Range | None
    dtype: str
    device: str

    def __str__(self) -> str:
        ranges = [f"{name}={r}" for name, r in (("batch", self.batch), ("length", self.length)) if r is not None]
        return " ".join((self.operator, *ranges, self.dtype, self.device))


Exact = tuple[tuple[str, int], ...]
"""Sizes by the names of dims, in the program's order."""

Place = tuple[tuple[str, int | Range], ...]
"""Sizes that share a kernel: a range for each dim that has a role, exact for the others."""


@lru_cache(maxsize=4096)
def range_of(size: int) -> Range:
    """The range that a size lies in; above the last edge each doubling of it is one."""
    if size < 1:
        return Range(0, 0)
    if size <= EDGES[-1]:
        at = bisect_left(EDGES, size)
        return Range(EDGES[at - 1] + 1 if at else 1, EDGES[at])
    high = 1 << (size - 1).bit_length()
    return Range(high // 2 + 1, high)


@lru_cache(maxsize=4096)
def doubled(size: int) -> Range:
    """The range that a size lies in where each doubling is one: 1, 2, 3-4, 5-8, ..."""
    if size < 1:
        return Range(0, 0)
    high = 1 << (size - 1).bit_length()
    return Range(high // 2 + 1, high)


@lru_cache(maxsize=256)
def roles(kernel: ir.Kernel) -> Roles:
    """By the names that dims have; a program that knows none of them is bucketed by its first output's first dim."""
    stored = {s.ref.buffer for s in ir.walk(kernel.body) if isinstance(s, ir.Store)}
    outputs = [p for p in kernel.params if p.name in stored and p.dims]
    rows = {p.dims[0] for p in outputs if p.dims and isinstance(p.dims[0], str)}  # a weight's dims are no batch
    batch = next((d for d in BATCH if d in rows), None) or next(iter(sorted(rows)), None)
    length = next((d for d in LENGTH if d in kernel.dims and d != batch), None)
    return Roles(batch, length)


def place_of(kernel: ir.Kernel, sizes: Mapping[str, int], whole: Collection[str] = ()) -> Place:
    """The sizes that share a kernel with these; dims that values lie along as a `whole` are a part of it."""
    return placed(sizes, ranged_dims(kernel, whole))


def ranged_dims(kernel: ir.Kernel, whole: Collection[str] = ()) -> frozenset[str]:
    """Dims of which a place holds ranges."""
    return frozenset(d for d in (roles(kernel).batch, *LENGTH) if d is not None and d not in whole)


def placed(sizes: Mapping[str, int], ranged: Collection[str], ranges: Callable[[int], Range] = range_of) -> Place:
    """As `place_of`, where it is known which dims are `ranged`, and by which `ranges`."""
    return tuple([(d, ranges(n) if d in ranged else n) for d, n in sizes.items()])


def nearest_of(place: Place, sizes: Mapping[str, int], known: Collection[Exact]) -> list[Exact]:
    """Those of `known` sizes that lie in a place, the ones most like `sizes` first."""
    fitting = [k for k in known if tuple(d for d, _ in k) == tuple(d for d, _ in place) and _lie_in(k, place)]
    return sorted(fitting, key=lambda k: (sum(abs(math.log((n + 1) / (sizes[d] + 1))) for d, n in k), k))


def _lie_in(known: Exact, place: Place) -> bool:
    return all(n in w if isinstance(w, Range) else n == w for (_, n), (_, w) in zip(known, place, strict=True))


def shape_of(kernel: ir.Kernel, sizes: Mapping[str, int], device: str = "cpu") -> Shape:
    """What a call of these sizes is counted by."""
    batch, length = (None if d is None or d not in sizes else range_of(sizes[d]) for d in roles(kernel))
    dtype = next((p.dtype.name for p in kernel.params if p.dims is not None and p.dtype.kind == "float"), "")
    return Shape(kernel.name, batch, length, dtype, device)


__all__ = [
    "BATCH", "EDGES", "LENGTH", "Exact", "Place", "Range", "Roles", "Shape",
    "doubled", "nearest_of", "place_of", "placed", "range_of", "ranged_dims", "roles", "shape_of",
]  # fmt: skip
