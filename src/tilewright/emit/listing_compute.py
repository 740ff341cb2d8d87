"""Arithmetic of a thread listing: one line for each register that an elementwise operator or a reduction makes."""

from __future__ import annotations

from dataclasses import replace

from tilewright.emit import listing_dot
from tilewright.emit.listing_page import applied, shifted
from tilewright.emit.listing_values import Scene, accumulators, read
from tilewright.emit.llvm_values import Key, Tile, table, uniform
from tilewright.language import ir


def coord(scene: Scene, axis: str, type_: ir.TileType, root: str) -> Tile:
    """The positions along an axis: numbers, or registers of them where the axis has the lanes."""
    state, lane = scene.cx.axes[axis], scene.cx.lane_of((axis,))
    if state.each:
        return uniform(type_, state.base)
    if lane is None:
        return Tile(type_, None, lambda key: shifted(state.base, key[0] * state.apart))
    parts: dict[Key, str] = {}
    for key in scene.cx.keys((axis,), lane):
        parts[key] = scene.names.new(root, state.width)
        first, last = (n * state.width * state.apart for n in (key[0], key[0] + 1))
        step = f", {state.apart}" if state.apart != 1 else ""
        ends = f"{shifted(state.base, first)}, {shifted(state.base, last)}{step}"
        scene.page.line(f"{parts[key]} = arange({ends})")
    return table(type_, lane, parts)


def elementwise(scene: Scene, let: ir.Let, op: str, args: list[Tile], home: Tile | None = None) -> Tile:
    """`op` on every element; operands are broadcast by axis name."""
    cx, type_ = scene.cx, let.type
    lane = cx.lane_of(type_.axes)
    if lane is not None and not any(lane in a.axes for a in args):
        lane = None
    target = scene.parts(type_, lane, let.name, home)
    word = str(type_.dtype) if op == "cast" else op
    parts: dict[Key, str] = {}
    for key in cx.keys(type_.axes, lane):
        point = scene.point(type_.axes, key)
        operands = [read(scene, a, point, lane) for a in args]
        parts[key] = target(key)
        scene.page.line(f"{parts[key]} = {applied(word, operands)}")
    return table(type_, lane, parts)


def reduce(scene: Scene, let: ir.Let, arg: Tile, into: Tile | None) -> Tile:
    """The reduction of `arg`, joined lane by lane with `into` where it is spread over the lanes of the axis."""
    expr = let.expr
    assert isinstance(expr, ir.Reduce)
    cx, type_, combine = scene.cx, let.type, {"sum": "add"}.get(expr.op, expr.op)
    along = arg.lane == expr.axis or into is not None
    lane, width = (None, cx.width(expr.axis)) if along else (arg.lane, cx.width(arg.lane))
    state = cx.axes[expr.axis]
    parts: dict[Key, str] = {}
    for key in cx.keys(type_.axes, lane):
        point = scene.point(type_.axes, key)
        places = range(state.chunks if along else state.extent)
        terms = [read(scene, arg, {**point, expr.axis: n}, expr.axis if along else lane) for n in places]
        if into is not None:
            held = accumulators(into, key)
            for n, name in enumerate(held):
                scene.page.line(f"{name} = {applied(combine, [name, *terms[n :: len(held)]])}")
            continue
        parts[key] = terms[0]
        if len(terms) > 1:
            parts[key] = scene.names.new(let.name, width)
            scene.page.line(f"{parts[key]} = {applied(combine, terms)}")
    if into is not None:
        return replace(into, type=type_)
    if not along:
        return table(type_, lane, parts)
    spread = table(type_, None, parts, spread=width)
    return listing_dot.fold(scene, expr.op, spread, let.name)


__all__ = ["coord", "elementwise", "reduce"]
