"""Operands of the matrix unit in shared memory: a buffer for a block's part, the copy that fills it, loads of rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType

from tilewright.design.default import Facts
from tilewright.language import ir
from tilewright.language.structure import fresh


def staged(
    let: ir.Let, facts: Facts, rows: ir.Axis, taken: set[str], packed: Mapping[str, str] = MappingProxyType({})
) -> tuple[ir.Alloc, ir.Copy, ir.Let]:
    """
    before:  x = load a[m, k]
    after:   alloc s_a[m0, k] @layout=swizzle128 @place=shared;  copy s_a[m0, k] <- a[m0, k] @engine=tma
             x = load s_a[m, k]

    `rows` is the axis of row tiles, which are parts of what is copied; axes in `packed` are single positions of the
    tile that lie side by side in the buffer, along the axes that they name. The axis with stride one comes last.
    """
    assert isinstance(let.expr, ir.Load)
    ref = let.expr.ref
    unit = [ref.index[d] for d in facts.unit.get(ref.buffer, ())]
    own = (*packed, *let.type.axes)
    dims = sorted((i for i in ref.index if i in own), key=lambda i: i in unit)
    whole = {rows.name: rows.over, **packed}
    name = fresh(f"s_{ref.buffer}", taken)
    place = (("layout", "swizzle128"), ("place", "shared"))
    alloc = ir.Alloc(name, let.type.dtype, tuple(whole.get(str(d), d) for d in dims), place)
    source = ir.Ref(ref.buffer, tuple(whole.get(i, i) if isinstance(i, str) else i for i in ref.index))
    order = tuple(str(d) for d in dims)
    axes = tuple(d for d in order if d not in packed)
    load = replace(let, type=replace(let.type, axes=axes), expr=ir.Load(ir.Ref(name, order)))
    return alloc, ir.Copy(ir.Ref(name, alloc.dims), source, (("engine", "tma"),)), load


__all__ = ["staged"]
