"""Rules of legality for loops that are dealt to threads in parts."""

from __future__ import annotations

from collections.abc import Iterator

from tilewright.design.view import View
from tilewright.language import ir, structure
from tilewright.language.recurrences import carried


def broken_parts(v: View) -> Iterator[str]:
    """What hinders a serial loop from being dealt out in parts whose states are joined."""
    for axis, _ in v.design.prefixed("part"):
        points = v.design.number(f"part.{axis}")
        label, nest = f"part.{axis}={points}", nest_of(v, axis)
        if nest is None:
            yield f"{label}: {axis} is no loop in order directly inside a parallel one; drop it"
            continue
        loop = next(s for s in nest.serial if s.axes[0].name == axis)
        at = nest.loop.body.index(loop)
        known = {s.name: s for s in nest.loop.body[:at] if isinstance(s, ir.Let)}
        tile = v.extent(axis)
        if points % tile:
            yield f"{label}: not a multiple of tile.{axis}={tile}; take {-(-points // tile) * tile}"
        if isinstance(why := carried(loop, known), str):
            yield f"{label}: its states cannot be joined: {why}; drop it"
        if any(a.start is not None for a in loop.axes) or any(a.over in v.axes for a in (*nest.loop.axes, *loop.axes)):
            yield f"{label}: parts are counted from the start of a whole dimension; drop it"
        if any(isinstance(s, ir.Loop | ir.Store) for s in nest.loop.body[:at]):
            yield f"{label}: what comes before {axis} would be done for each part; drop it"
        yield from _beside(v, label, axis, nest)


def _beside(v: View, label: str, axis: str, nest: structure.Nest) -> Iterator[str]:
    """Other decisions on the same nest that parts do not go with."""
    axes = {a.name for a in nest.loop.axes} | {s.axes[0].name for s in nest.serial}
    for kind in ("block", "apart"):
        if taken := [a for a, choice in v.design.prefixed(kind) if a in axes and choice != 1]:
            yield f"{label}: the tiles around it are one range each; drop {kind}.{taken[0]}, or this"
    if more := [a for a, _ in v.design.prefixed("part") if a in axes and a < axis]:
        yield f"{label}: one loop of a nest is dealt out; drop it, or part.{more[0]}"
    inside = {s.name for s in ir.walk(nest.loop.body) if isinstance(s, ir.Let)}
    if kept := [n for n, wanted in v.design.prefixed("keep") if wanted and n in inside]:
        yield f"{label}: rows that are kept belong to one thread; drop keep.{kept[0]}, or this"


def nest_of(v: View, axis: str) -> structure.Nest | None:
    """The parallel nest with a serial loop over `axis` directly in it."""
    found = (n for n in v.nests if n.loop.parallel and any(s.axes[0].name == axis for s in n.serial))
    return next(found, None)


__all__ = ["broken_parts", "nest_of"]
