"""Whether a scheduled program fits a dataflow array: units of compute and of memory, counted at given sizes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from tilewright.errors import IllegalDesign
from tilewright.language import ir
from tilewright.machines.dataflow import DataflowArray


@dataclass(frozen=True)
class Footprint:
    """What one copy of a program takes: bytes of each buffer with all its slots, units of each role; and the copies."""

    buffers: tuple[tuple[str, int], ...]
    units: tuple[tuple[str, int], ...]
    copies: int

    @property
    def bytes(self) -> int:
        """Of one copy."""
        return sum(n for _, n in self.buffers)

    def compute_units(self) -> int:
        """Of all copies."""
        return self.copies * sum(n for _, n in self.units)

    def memory_units(self, array: DataflowArray) -> int:
        """Of all copies; a memory unit belongs to one copy."""
        return self.copies * max(1, math.ceil(self.bytes / array.unit_bytes))


def footprint(kernel: ir.Kernel, sizes: Mapping[str, int]) -> Footprint:
    """The footprint of a scheduled program at its sizes (dimension -> elements)."""
    tiles = {**sizes, **{a.name: 1 for a in _axes(kernel)}}
    for axis in _axes(kernel):
        tiles[axis.name] = 1 if axis.each else min(axis.step or 1, tiles[axis.over])
    buffers = []
    for alloc in (s for s in ir.walk(kernel.body) if isinstance(s, ir.Alloc)):
        slots = ir.number(alloc.notes, "stages", 1)
        elements = math.prod(d if isinstance(d, int) else tiles[d] for d in alloc.dims)
        buffers.append((alloc.name, slots * elements * alloc.dtype.bytes))
    units = [(r.name, ir.number(r.notes, "units", 1)) for r in _leaves(kernel.body)]
    copies = [math.prod(math.ceil(tiles[a.over] / (a.step or 1)) for a in s.axes) for s in ir.walk(kernel.body)
              if isinstance(s, ir.Loop) and ir.note(s.notes, "bind") == "core"]  # fmt: skip
    return Footprint(tuple(buffers), tuple(units), max(copies, default=1))


def check_fit(kernel: ir.Kernel, sizes: Mapping[str, int], array: DataflowArray) -> Footprint:
    """The footprint, or IllegalDesign that says what does not fit and what to split."""
    found = footprint(kernel, sizes)
    reasons = [*_memory(kernel, found, array), *_compute(found, array), *_main_memory(kernel, sizes, array)]
    if reasons:
        raise IllegalDesign(f"{kernel.name} does not fit {array.name}: {'; '.join(reasons)}")
    return found


def _memory(kernel: ir.Kernel, found: Footprint, array: DataflowArray) -> list[str]:
    need = found.memory_units(array)
    if need <= array.memory_units:
        return []
    name, most = max(found.buffers, key=lambda b: b[1])
    alloc = next(s for s in ir.walk(kernel.body) if isinstance(s, ir.Alloc) and s.name == name)
    axes = [d for d in alloc.dims if d in {a.name for a in _axes(kernel)}]
    whole = [str(d) for d in alloc.dims if d not in axes]
    split = f"take a smaller tile.{axes[0]}" if axes else f"loop over tiles of {' or '.join(whole)}"
    more = f" or fewer copies than {found.copies} (par)" if found.copies > 1 else ""
    return [
        f"{need} memory units of {array.memory_units}; {name} takes most, {most:,} bytes: {split}{more}, "
        "or fewer stages"
    ]


def _compute(found: Footprint, array: DataflowArray) -> list[str]:
    need = found.compute_units()
    if need <= array.compute_units:
        return []
    name, most = max(found.units, key=lambda u: u[1])
    split = f"take fewer copies than {found.copies} (par)" if found.copies > 1 else "split the program into kernels"
    return [
        f"{need} compute units of {array.compute_units}; stage {name} takes {most} in each copy: "
        f"lower units.{name}, or {split}"
    ]


def _main_memory(kernel: ir.Kernel, sizes: Mapping[str, int], array: DataflowArray) -> list[str]:
    tensors = {p.name: math.prod(d if isinstance(d, int) else sizes[d] for d in p.dims) * p.dtype.bytes
               for p in kernel.params if p.dims is not None}  # fmt: skip
    if sum(tensors.values()) <= array.memory_bytes:
        return []
    name = max(tensors, key=lambda t: tensors[t])
    return [f"{sum(tensors.values()):,} bytes of tensors of {array.memory_bytes:,}: split {name} over more chips"]


def _axes(kernel: ir.Kernel) -> list[ir.Axis]:
    return [a for s in ir.walk(kernel.body) if isinstance(s, ir.Loop) for a in s.axes]


def _leaves(body: tuple[ir.Stmt, ...]) -> list[ir.Role]:
    """Roles that hold no other roles: they are what units execute."""
    roles = [s for s in ir.walk(body) if isinstance(s, ir.Role)]
    return [r for r in roles if not any(isinstance(s, ir.Role) for s in ir.walk(r.body))]
