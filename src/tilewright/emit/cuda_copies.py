"""Copies by the engine as C++: boxes of a tensor to the slot of a ring, for one block or for several at once."""

from __future__ import annotations

from tilewright.emit.cuda_plan import Plan, Ring, number
from tilewright.emit.cuda_text import Text, cname
from tilewright.language import ir

_HINTS = {"evict_first": "EVICT_FIRST", "evict_last": "EVICT_LAST"}


def tensor_map(plan: Plan, copy: ir.Copy) -> str:
    """C++ of the tensor map of a copy."""
    return f"args.maps[{plan.maps.index(plan.copies[copy])}]"


def copy_in(plan: Plan, text: Text, copy: ir.Copy, full: str, slot: str = "slot") -> None:
    """`copy ring <- tensor`: boxes, those of the same rows one after the other: they lie side by side in memory."""
    ring, near, far = plan.ring_of(copy)
    map_ = tensor_map(plan, copy)
    blocks, height = number(copy, "multicast", 1), plan.box_rows(copy)
    share = ring.rows // blocks
    hint = _HINTS.get(str(ir.note(copy.notes, "cache")), "EVICT_NORMAL")
    place = f"{cname(ring.alloc.name)}[{slot}]"
    first = f" + {multicast_rank(plan, copy)} * {share}" if blocks > 1 else ""
    for row in range(0, share, height):
        shift = f" + {row * ring.pitch}" if row else ""
        if blocks > 1:
            shift += f" + {multicast_rank(plan, copy)} * {share * ring.pitch}"
        at = _coordinates(plan, far, near, f"{first}{f' + {row}' if row else ''}")
        to_all = f"{multicast_mask(plan, copy)}, " if blocks > 1 else ""
        call = _boxes("load", ring, "_to_all" if to_all else "")
        text.line(f"{call}({to_all}{place}{shift}, {map_}, {full}[{slot}], {hint}, {at});")


def leaving(plan: Plan, text: Text) -> None:
    """The slots from which the engine takes results."""
    for name in sorted(plan.leaving):
        ring = plan.rings[name]
        dims = ", ".join(map(str, ring.alloc.dims))
        slots = ring.slots // (plan.groups * plan.pieces)  # of every warpgroup, whether they take turns or not
        type_ = f"Leaving<{slots}, {ring.slot_bytes * plan.pieces}>"
        text.line(f"const {type_} {cname(name)}{{shared + {ring.offset}}};  // {ring.alloc.dtype}[{dims}]")


def copy_out(plan: Plan, text: Text, copy: ir.Copy, how: str, value: str) -> None:
    """`copy tensor <- buffer`: a value leaves by the engine, through a slot of the warpgroup's own."""
    ring, near, far = plan.ring_of(copy)
    map_ = tensor_map(plan, copy)
    name = cname(ring.alloc.name)
    text.line(
        f"{name}.{how}(group, {name}.slot(group, leaving++), {map_}, {value}, {_coordinates(plan, far, near, '')});"
    )


def _boxes(verb: str, ring: Ring, whom: str = "") -> str:
    """The primitive that moves a box, or several side by side: how many, elements of a row of each, bytes of each."""
    if ring.panels == 1:
        return f"{verb}_box{whom}"
    return f"{verb}_boxes{whom}<{ring.panels}, {ring.wide}, {ring.rows * ring.pitch}>"


def _coordinates(plan: Plan, far: ir.Ref, near: ir.Ref, row: str) -> str:
    """Where a box begins, innermost dimension first."""
    dims = plan.dims_of(far, near)
    starts = [_start(plan, far.index[d]) for d in dims]
    if len(near.index) > 1:
        starts[1] += row
    return ", ".join(starts)


def _start(plan: Plan, index: ir.Index) -> str:
    """C++ of the first position of an index: that of the tile of an axis, none of a whole dimension."""
    return str(index) if isinstance(index, int) else "0" if index in plan.kernel.dims else plan.start(index)


def multicast_rank(plan: Plan, copy: ir.Copy) -> str:
    """C++ of a block's number among those that share a copy."""
    axes = plan.spread
    inner = 1
    for axis in reversed(axes):
        if axis.name not in copy.src.index:
            return "int(rank)" if len(axes) == 1 else f"int(rank / {inner} % {plan.trips(axis)})"
        inner *= plan.trips(axis)
    raise AssertionError("every axis of the cluster chooses another tile")


def multicast_mask(plan: Plan, copy: ir.Copy) -> str:
    """C++ of the blocks that receive a copy, a bit each."""
    axes = plan.spread
    if all(a.name not in copy.src.index for a in axes):
        return hex((1 << plan.cluster) - 1)
    outer, inner = axes  # one of two axes shares
    width = plan.trips(inner)
    if outer.name in copy.src.index:
        return f"{hex((1 << width) - 1)} << (rank / {width} * {width})"
    bits = sum(1 << (n * width) for n in range(plan.trips(outer)))
    return f"{hex(bits)} << (rank % {width})"
