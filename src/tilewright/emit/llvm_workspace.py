"""Buffers of a scheduled program: how large they are, how they lie, and who fills them."""

from __future__ import annotations

from functools import cached_property

from tilewright.emit import abi
from tilewright.emit.llvm_parts import Parted, in_parts, phases
from tilewright.emit.llvm_places import LINE, Panel, grouped
from tilewright.language import ir

DRAWN = "tiles drawn"
"""What counts the tiles that threads have drawn, for each phase in a cache line of its own; no buffer is called so."""


class Workspace:
    """The buffers that a program allocates; dims in `sizes` are fixed."""

    def __init__(self, kernel: ir.Kernel, sizes: dict[str, int]) -> None:
        self.kernel, self.sizes = kernel, sizes

    @cached_property
    def allocations(self) -> list[tuple[ir.Alloc, bool, dict[str, ir.Axis]]]:
        """Every buffer, whether it is one thread's own, and the loop axes around it."""
        return _allocations(self.kernel.body, False, {})

    @cached_property
    def in_parts(self) -> dict[str, Parted]:
        """The nest of each buffer through which parts of it meet."""
        return in_parts(self.kernel)

    @cached_property
    def reserves(self) -> list[abi.Reserve]:
        """The pieces of memory that a call must bring; counters of drawn tiles first."""
        loops = phases(self.kernel)
        drawn = any(ir.note(loop.notes, "drawn") for loop in loops)
        reserves = [abi.Reserve(DRAWN, LINE, (abi.Extent(len(loops)),))] if drawn else []
        for stmt, per_thread, axes in self.allocations:
            if stmt.name in self.in_parts:
                reserves.append(self.in_parts[stmt.name].reserve(stmt, self.sizes))
                continue
            panel = self.panel(stmt)
            extents = []
            for n, dim in enumerate(stmt.dims):
                round_to = self._rounding(stmt, panel, n)
                if isinstance(dim, str) and dim in axes:
                    step = axes[dim].step
                    assert step is not None
                    extents.append(abi.Extent(step, round_to))
                else:
                    extents.append(abi.Extent(self.sizes.get(dim, dim) if isinstance(dim, str) else dim, round_to))
            reserves.append(abi.Reserve(stmt.name, stmt.dtype.bytes, tuple(extents), per_thread))
        return reserves

    def panel(self, alloc: ir.Alloc) -> Panel | None:
        """The packed order of a buffer: blocks as wide as the lanes of the copy that fills it."""
        layout = ir.note(alloc.notes, "layout", "row")
        if layout == "row":
            return None
        axes, copy = self._filling(alloc.name)
        lane = ir.note(copy.notes, "lanes")
        dim = copy.dst.index.index(lane)
        depth = next(n for n, i in enumerate(copy.dst.index) if n != dim and isinstance(i, str) and not axes[i].each)
        step = self._panel_width(alloc, axes, str(lane))
        return Panel(dim, depth, step, grouped(str(layout), alloc.dtype))

    def _rounding(self, alloc: ir.Alloc, panel: Panel | None, dim: int) -> int:
        if panel is None:
            return _step_of_stores(self.kernel.body, alloc.name, dim, {})
        if dim not in (panel.dim, panel.depth):
            return 1
        axes, copy = self._filling(alloc.name)
        return self._panel_width(alloc, axes, str(copy.dst.index[dim]))

    @staticmethod
    def _panel_width(alloc: ir.Alloc, axes: dict[str, ir.Axis], name: str) -> int:
        """Step of the outermost loop over an axis within the buffer: a panel may be filled in several parts."""
        while axes[name].over in axes and axes[name].over not in alloc.dims:
            name = axes[name].over
        step = axes[name].step
        assert step is not None
        return step

    def _filling(self, name: str) -> tuple[dict[str, ir.Axis], ir.Copy]:
        found = _find_copy(self.kernel.body, name, {})
        assert found is not None, f"nothing fills {name}"
        return found


def _allocations(
    body: tuple[ir.Stmt, ...], inside: bool, axes: dict[str, ir.Axis]
) -> list[tuple[ir.Alloc, bool, dict[str, ir.Axis]]]:
    found = []
    for stmt in body:
        if isinstance(stmt, ir.Alloc):
            found.append((stmt, inside, axes))
        elif isinstance(stmt, ir.Loop):
            found += _allocations(stmt.body, True, {**axes, **{a.name: a for a in stmt.axes}})
        else:
            found += _allocations(ir.blocks(stmt), inside, axes)
    return found


def _step_of_stores(body: tuple[ir.Stmt, ...], name: str, dim: int, steps: dict[str, int]) -> int:
    """Elements of a dimension that a store writes at once: whole tiles, also at a ragged end."""
    found = 1
    for stmt in body:
        if isinstance(stmt, ir.Store) and stmt.ref.buffer == name:
            found = max(found, steps.get(str(stmt.ref.index[dim]), 1))
        inner = {**steps, **{a.name: a.step or 1 for a in stmt.axes}} if isinstance(stmt, ir.Loop) else steps
        found = max(found, _step_of_stores(ir.blocks(stmt), name, dim, inner))
    return found


def _find_copy(
    body: tuple[ir.Stmt, ...], name: str, axes: dict[str, ir.Axis]
) -> tuple[dict[str, ir.Axis], ir.Copy] | None:
    for stmt in body:
        if isinstance(stmt, ir.Copy) and stmt.dst.buffer == name:
            return axes, stmt
        within = {**axes, **{a.name: a for a in stmt.axes}} if isinstance(stmt, ir.Loop) else axes
        found = _find_copy(ir.blocks(stmt), name, within)
        if found:
            return found
    return None
