"""Default designs of rows on a CPU: norms, softmax, elementwise; what lies across lanes, what is kept, what streams."""

from __future__ import annotations

import math
from collections.abc import Mapping

from tilewright.design.design import Choice, Design
from tilewright.design.facts import Facts
from tilewright.design.twins import twins
from tilewright.language import ir, structure


def unit_axes(kernel: ir.Kernel, facts: Facts) -> dict[str, int]:
    """How many loads and stores run along each axis with stride one."""
    counts: dict[str, int] = {}
    refs = [ref for _, ref in structure.loads(kernel)]
    refs += [s.ref for s in ir.walk(kernel.body) if isinstance(s, ir.Store)]
    for ref in refs:
        for dim in facts.unit.get(ref.buffer, ()):
            index = ref.index[dim]
            if isinstance(index, str):
                counts[index] = counts.get(index, 0) + 1
    return counts


def is_value_axis(kernel: ir.Kernel, dim: str) -> bool:
    """Whether some value lies along the whole of a dimension."""
    return any(dim in let.type.axes for let in structure.lets(kernel).values())


def rows(kernel: ir.Kernel, nest: structure.Nest, facts: Facts) -> tuple[dict[str, Choice], list[str]]:
    """No dots: the axis with unit stride lies across lanes, four vectors at a time, one row after the other."""
    counts = unit_axes(kernel, facts)
    parallel = [a for a in nest.loop.axes if not a.each]
    loops = [s for s in ir.walk(nest.loop.body) if isinstance(s, ir.Loop)]
    serial = [a for loop in loops for a in loop.axes if not a.each]
    around = {a.name for loop in loops if any(isinstance(s, ir.Loop) for s in ir.walk(loop.body)) for a in loop.axes}
    whole = [d for d in kernel.dims if d in counts and is_value_axis(kernel, d)]
    lanes = [*whole, *sorted((a.name for a in (*serial, *parallel) if counts.get(a.name)), key=lambda a: -counts[a])]
    decisions: dict[str, Choice] = {}
    wide = any(is_value_axis(kernel, d) for d in kernel.dims if d not in structure.axes(kernel))
    for axis in serial:  # beside values that lie along a whole dimension, an axis of a few scales is walked one by one
        alone = axis.name not in around  # a loop around another one takes a position at a time, as rows do
        decisions[f"tile.{axis.name}"] = 4 * facts.lanes if axis.name in lanes and alone and not wide else 1
    leading = next((a.name for a in parallel if a.name in lanes), None)
    for axis in parallel:
        decisions[f"tile.{axis.name}"] = 1
        if axis.name == leading and not serial and not whole:
            decisions[f"tile.{axis.name}"] = 4 * facts.lanes
            decisions[f"block.{axis.name}"] = 64 * facts.lanes
        elif whole and axis is parallel[-1] and facts.size(kernel, axis) > 1:
            decisions[f"block.{axis.name}"] = 32
    streaming = _streaming(kernel, nest, parallel, facts, _points(kernel, decisions, lanes, facts))
    return {**decisions, **_kept_rows(kernel, nest, facts, bool(streaming)), **streaming}, lanes


_COSTLY = frozenset({"exp", "exp2", "log", "tanh", "sigmoid", "erf"})  # a polynomial each, where a load would do


def _kept_rows(kernel: ir.Kernel, nest: structure.Nest, facts: Facts, streaming: bool) -> dict[str, Choice]:
    """Functions of a row that a later loop needs again are kept, where the row stays in the caches meanwhile.

    While rows stream from memory, what lies in the second cache is in their way: half of the first one is for it.
    """
    room = (facts.machine.l1_bytes or 32 << 10) // 2 - 1 if streaming else (facts.machine.l2_bytes or 512 << 10) // 4
    return {
        f"keep.{name}": True
        for name, twin in twins(kernel).items()
        if twin.nest == nest
        and isinstance(twin.later.expr, ir.Map)
        and twin.later.expr.op in _COSTLY
        and twin.later.type.dtype.bytes * facts.size(kernel, twin.second.axes[0]) <= room
    }


def _points(kernel: ir.Kernel, decisions: Mapping[str, Choice], lanes: list[str], facts: Facts) -> dict[str, int]:
    """Points of each lane axis, first choice first, that lie in one tile: more than one, or it has no lanes."""
    design = Design.of(decisions)
    sizes = {a: facts.sizes[a] if a in kernel.dims else design.number(f"tile.{a}", 1) for a in lanes}
    return {a: n for a, n in sizes.items() if n != 1}


def _streaming(
    kernel: ir.Kernel, nest: structure.Nest, parallel: list[ir.Axis], facts: Facts, points: Mapping[str, int]
) -> dict[str, Choice]:
    """Tensors larger than the caches: results go around them; the second pass over a row fetches the next row."""
    stores = [s for s in ir.walk(nest.loop.body) if isinstance(s, ir.Store)]
    written = {s.ref.buffer for s in stores}
    cached = min(facts.machine.l3_bytes * 3 // 2, 48 << 20)
    if sum(_bytes(kernel, name, facts) for name in written) < max(cached, 4 << 20):
        return {}
    written &= facts.aligned
    written -= {s.ref.buffer for s in stores if not _stores_vectors(kernel, s, facts, points)}
    decisions: dict[str, Choice] = {f"nontemporal.{name}": True for name in written}
    rows = {a.name for a in parallel}
    for let in (s for loop in nest.serial[1:2] for s in ir.walk(loop.body) if isinstance(s, ir.Let)):
        if isinstance(let.expr, ir.Load) and rows & set(let.expr.ref.index):
            decisions[f"prefetch.{let.name}"] = 1
    return decisions


def _stores_vectors(kernel: ir.Kernel, store: ir.Store, facts: Facts, points: Mapping[str, int]) -> bool:
    """Whether whole vectors are stored, along a stride of one."""
    axes = structure.lets(kernel)[store.value].type.axes
    lane = next((a for a in points if a in axes), None)
    unit = [store.ref.index[d] for d in facts.unit.get(store.ref.buffer, ())]
    return lane is not None and lane in unit and points[lane] % facts.lanes == 0


def _bytes(kernel: ir.Kernel, name: str, facts: Facts) -> int:
    param = kernel.param(name)
    return param.dtype.bytes * math.prod(facts.sizes[d] if isinstance(d, str) else d for d in param.dims or ())


__all__ = ["is_value_axis", "rows", "unit_axes"]
