"""Where the tensors and buffers of a thread listing lie: what `llvm` knows of them, without pointers and strides."""

from __future__ import annotations

from collections.abc import Mapping

from tilewright.emit import abi
from tilewright.emit.llvm_places import Panel, Place, grouped
from tilewright.language import ir, structure


def places(kernel: ir.Kernel, layouts: Mapping[str, abi.TensorLayout]) -> dict[str, Place]:
    """The place of every tensor and buffer; a stride is "1" or unknown."""
    found: dict[str, Place] = {}
    for p in kernel.params:
        if p.dims is not None:
            strides = tuple("1" if s == 1 else "" for s in layouts[p.name].strides)
            found[p.name] = Place(p.name, "", p.dtype, strides, layouts[p.name].align)
    _buffers(kernel, kernel.body, {}, found)
    return found


def _buffers(kernel: ir.Kernel, body: tuple[ir.Stmt, ...], around: dict[str, ir.Axis], found: dict[str, Place]) -> None:
    for stmt in body:
        if isinstance(stmt, ir.Alloc):
            origin = tuple(d if isinstance(d, str) and d in around else None for d in stmt.dims)
            panel = _panel(kernel, stmt)
            strides = ("",) * (len(stmt.dims) - 1) + ("" if panel else "1",)
            padded = panel is not None
            found[stmt.name] = Place(stmt.name, "", stmt.dtype, strides, 64, panel, origin, padded=padded)
        inside = {a.name: a for a in stmt.axes} if isinstance(stmt, ir.Loop) else {}
        _buffers(kernel, ir.blocks(stmt), {**around, **inside}, found)


def _panel(kernel: ir.Kernel, alloc: ir.Alloc) -> Panel | None:
    """The packed order of a buffer: blocks as wide as the lanes of the copy that fills it."""
    layout = str(ir.note(alloc.notes, "layout", "row"))
    if layout == "row":
        return None
    axes = structure.axes(kernel)
    copy = next(s for s in ir.walk(kernel.body) if isinstance(s, ir.Copy) and s.dst.buffer == alloc.name)
    lane = str(ir.note(copy.notes, "lanes"))
    dim = copy.dst.index.index(lane)
    depth = next(n for n, i in enumerate(copy.dst.index) if n != dim and isinstance(i, str) and not axes[i].each)
    while axes[lane].over in axes:  # a panel may be filled in several parts
        lane = axes[lane].over
    return Panel(dim, depth, axes[lane].step or 1, grouped(layout, alloc.dtype))


def dims_text(dims: tuple[ir.Dim, ...] | None) -> str:
    """`[M, K]`; nothing for a scalar."""
    return f"[{', '.join(map(str, dims))}]" if dims else ""


def described(alloc: ir.Alloc, place: Place) -> str:
    """A comment that declares a buffer: its type, and the order of its elements where it is packed."""
    panel = place.panel
    order = f", panels of {panel.block} along {alloc.dims[panel.dim]}" if panel else ""
    groups = f", {panel.pair} of {alloc.dims[panel.depth]} together" if panel and panel.pair > 1 else ""
    return f"# {alloc.name}: {alloc.dtype}{dims_text(alloc.dims)}{order}{groups}"


__all__ = ["described", "dims_text", "places"]
