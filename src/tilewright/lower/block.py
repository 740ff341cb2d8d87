"""Stage `block`: the tiles of a nest are visited cache block by cache block.

A block of the reduced axis comes outside the tiles, so that its slice of the operands stays in cache
while all tiles of the block use it; tiles that are not finished wait in a scratch buffer.
"""

from __future__ import annotations

from dataclasses import replace

from tilewright.design.design import Design
from tilewright.language import ir
from tilewright.language.structure import Nest, fresh, lets, names, nests


def block(kernel: ir.Kernel, design: Design) -> ir.Kernel:
    """
    before:  for m in M step 8, n in N step 32 parallel { acc = ...; for k in K step 1 { ... }; store ... }
    after:   for m0 in M step 64, n0 in N step 256 parallel {
               alloc part0 : f32[m0, n0]
               for k0 in K step 512 {
                 for n in n0 step 32, m in m0 step 8 parallel {
                   acc = ...; when not_first(k0) { acc := part0[m, n] }
                   for k in k0 step 1 { ... }
                   when last(k0) { store ... }; when not_last(k0) { store part0[m, n] = acc }
                 } } }
    """
    blocks = {name: size for name, size in design.prefixed("block") if isinstance(size, int)}
    if not blocks:
        return kernel
    taken = names(kernel)
    found = {n.loop: n for n in nests(kernel)}
    body = tuple(
        _blocked(found[s], blocks, design, taken, lets(kernel))
        if isinstance(s, ir.Loop) and _applies(found[s], blocks)
        else s
        for s in kernel.body
    )
    return replace(kernel, body=body)


def _applies(nest: Nest, blocks: dict[str, int]) -> bool:
    return nest.loop.parallel and any(a.name in blocks for a in nest.loop.axes)


def _blocked(nest: Nest, blocks: dict[str, int], design: Design, taken: set[str], values: dict[str, ir.Let]) -> ir.Loop:
    outer, inner, renamed = [], [], {}
    for axis in nest.loop.axes:
        if axis.name not in blocks or axis.each:
            outer.append(axis)
            continue
        whole = fresh(f"{axis.name}0", taken)
        renamed[axis.name] = whole
        outer.append(replace(axis, name=whole, step=blocks[axis.name]))
        inner.append(replace(axis, over=whole, start=None, stop=None))
    rank = {name: n for n, name in enumerate(design.names("inner"))}
    inner.sort(key=lambda a: rank.get(a.name, -1))
    if nest.main is None or nest.main.axes[0].name not in blocks:
        tiles = ir.Loop(tuple(inner), nest.loop.body, parallel=True)
        return replace(nest.loop, axes=tuple(outer), body=(tiles,))
    lanes = design.names("lanes")
    return _split_reduction(nest, blocks[nest.main.axes[0].name], outer, inner, renamed, taken, values, lanes)


def _split_reduction(
    nest: Nest, size: int, outer: list[ir.Axis], inner: list[ir.Axis], renamed: dict[str, str], taken: set[str],
    values: dict[str, ir.Let], lanes: tuple[str, ...],
) -> ir.Loop:  # fmt: skip
    main = nest.main
    assert main is not None
    depth = main.axes[0]
    slab = fresh(f"{depth.name}0", taken)
    at = nest.loop.body.index(main)
    before, after = nest.loop.body[:at], nest.loop.body[at + 1 :]
    carried = dict.fromkeys(s.name for s in ir.walk(main.body) if isinstance(s, ir.Assign))
    allocs: list[ir.Stmt] = []
    reloads: list[ir.Stmt] = []
    saves: list[ir.Stmt] = []
    for name in carried:
        type_ = values[name].type
        lane = next((a for a in lanes if a in type_.axes), None)
        order = tuple(sorted(type_.axes, key=lambda a: a == lane))  # what lies across lanes is stored along rows
        part, saved = fresh(f"part_{name}", taken), fresh(f"saved_{name}", taken)
        allocs.append(ir.Alloc(part, type_.dtype, tuple(renamed.get(a, a) for a in order), (("place", "scratch"),)))
        reloads += [*_turned(saved, ir.Load(ir.Ref(part, order)), order, type_, taken), ir.Assign(name, saved)]
        saves += _stored(ir.Ref(part, order), name, type_, taken)
    inside = replace(main, axes=(replace(depth, over=slab),))
    tiles = ir.Loop(
        tuple(inner),
        (
            *before,
            ir.When("not_first", slab, tuple(reloads)),
            inside,
            ir.When("last", slab, after),
            ir.When("not_last", slab, tuple(saves)),
        ),
        parallel=True,
    )
    slabs = ir.Loop((replace(depth, name=slab, step=size),), (tiles,))
    return replace(nest.loop, axes=tuple(outer), body=(*allocs, slabs))


def _turned(name: str, expr: ir.Expr, order: tuple[str, ...], type_: ir.TileType, taken: set[str]) -> list[ir.Stmt]:
    """`name = expr`, where expr has its axes in `order`."""
    if order == type_.axes:
        return [ir.Let(name, type_, expr)]
    first = fresh(f"{name}_rows", taken)
    return [ir.Let(first, replace(type_, axes=order), expr), ir.Let(name, type_, ir.Permute(first))]


def _stored(ref: ir.Ref, name: str, type_: ir.TileType, taken: set[str]) -> list[ir.Stmt]:
    """`store ref = name`, with the axes of the value in the order of the ref."""
    if ref.index == type_.axes:
        return [ir.Store(ref, name)]
    turned = fresh(f"{name}_rows", taken)
    type_ = replace(type_, axes=tuple(str(i) for i in ref.index))
    return [ir.Let(turned, type_, ir.Permute(name)), ir.Store(ref, turned)]
