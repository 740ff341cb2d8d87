"""Words to the L2 cache of a GPU about rows that are far more than it holds: who of them leaves it last.

Results wait in L2 until a read or a write wants their place, and go to memory then, in no good order. Where what is
read leaves last, results are on their way early; where what is written leaves last, too, in longer runs. That is worth
1 to 4% from some times the bytes of L2 on, and nothing below (notes 0017). From how many times on is a habit that the
description of a GPU states where it was measured; of the policies of others' L2 nothing is known.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

from tilewright.design.design import Choice
from tilewright.design.gpu.shape import Shape
from tilewright.language import ir, structure


def streamed(s: Shape, decisions: Mapping[str, Choice]) -> dict[str, Choice]:
    """A word for each tensor of rows that blocks read or write once, alone; none where L2 has room."""
    reading, writing = (s.facts.machine.habit(f"{what}_stay_below_l2") for what in ("reads", "writes"))
    if reading is None or writing is None:
        return {}
    grid = {a.name for a in s.nest.loop.axes}
    stores = (x.ref for x in ir.walk(s.kernel.body) if isinstance(x, ir.Store))
    read = _aligned(s, _alone(s, decisions))
    written = _aligned(s, {ref.buffer for ref in stores if grid <= set(ref.index)})
    late, out = _bytes(s, read) > reading * _l2(s), _bytes(s, written) > writing * _l2(s)
    reads: dict[str, Choice] = {f"cache.{p.name}": "evict_last" if late else "cg" for p in read if late or out}
    return reads | {f"cache.{p.name}": "evict_last" for p in written if out}


def _aligned(s: Shape, names: set[str]) -> list[ir.Param]:
    """Those of some tensors that have rows, which are moved sixteen bytes at a time."""
    rows = (p for p in s.kernel.params if p.dims is not None and len(p.dims) > 1)
    return [p for p in rows if p.name in names and p.name in s.facts.aligned]


def _alone(s: Shape, decisions: Mapping[str, Choice]) -> set[str]:
    """Tensors with a place for each point of the grid, no place of which a block loads twice."""
    grid = {a.name for a in s.nest.loop.axes}
    kept = {name.partition(".")[2] for name, wanted in decisions.items() if name.startswith("keep.") and wanted}
    refs = [ref for let, ref in structure.loads(s.kernel) if let.name not in kept]
    held = {name.partition(".")[2] for name, wanted in decisions.items() if name.startswith("hold.") and wanted}
    dims = [(ref.buffer, tuple(_over(s, i) for i in ref.index)) for ref in refs]
    again = {buffer for buffer, index in dims if dims.count((buffer, index)) > 1}
    return {r.buffer for r in refs if grid <= set(r.index)} - again - held


def _over(s: Shape, index: ir.Index) -> ir.Index:
    """Where an index points to, the same for loops that go over one dimension one after the other."""
    axes = structure.axes(s.kernel)
    return axes[index].over if isinstance(index, str) and index in axes else index


def _bytes(s: Shape, params: Iterable[ir.Param]) -> int:
    sizes = s.facts.sizes
    return sum(
        math.prod(sizes.get(d, 1) if isinstance(d, str) else d for d in p.dims or ()) * p.dtype.bytes for p in params
    )


def _l2(s: Shape) -> int:
    return next((level.bytes or 0 for level in s.facts.machine.levels if level.name == "l2"), 0)


__all__ = ["streamed"]
