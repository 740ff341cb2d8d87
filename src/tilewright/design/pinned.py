"""Pinned numerics: the decisions that set in which order, and in which type, a sum is made.

A design that has all of them as another one gives the same bits: sums run over the same tiles, split over the same
lanes and accumulators, by the same instruction. Tiles, blocks and order of axes that no sum runs along, packing, and
threads change no bit.
"""

from __future__ import annotations

from functools import lru_cache

from tilewright.design.design import Design
from tilewright.language import ir

_BY_AXIS = ("tile", "apart", "block", "unroll", "split")
_ALWAYS = ("atom", "unpack", "keep", "how", "part", "swap", "warps", "turns", "vec", "overlap", "schedule")
"""Decisions that may change bits on any axis; those from `how` on are of GPUs: who adds what, and in which lanes."""


@lru_cache(maxsize=64)
def summed(kernel: ir.Kernel) -> frozenset[str]:
    """Axes that sums run along: those of dots and reductions, and of loops that carry a value."""
    found = set()
    for stmt in ir.walk(kernel.body):
        match stmt:
            case ir.Let(_, _, ir.Dot(_, _, axis)) | ir.Let(_, _, ir.Reduce(_, _, axis)):
                found.add(axis)
            case ir.Loop(axes, body, False):
                if any(isinstance(s, ir.Assign) for s in ir.walk(body)):
                    found |= {a.name for a in axes}
    return frozenset(found)


def differs(kernel: ir.Kernel, design: Design, pinned: Design) -> str:
    """A decision of `design` that may change a bit of what `pinned` computes; empty where there is none."""
    if any(how == "atomic" for _, how in design.prefixed("how")):
        return "how=atomic: parts of a sum are added in the order in which they come"
    one, other = (_relevant(kernel, d) for d in (design, pinned))
    name = next((n for n in sorted({*one, *other}) if one.get(n) != other.get(n)), None)
    return "" if name is None else f"{name}={one.get(name)}, not {other.get(name)}"


def _relevant(kernel: ir.Kernel, design: Design) -> dict[str, object]:
    axes = summed(kernel)
    kept: dict[str, object] = {}
    for name, choice in design.decisions:
        kind, _, what = name.partition(".")
        if kind in _ALWAYS or (kind in _BY_AXIS and what in axes):
            kept[name] = choice
    # Whether a sum is split over lanes: only if its axis comes before the others that a value has.
    kept["lanes"] = design.names("lanes") if axes & set(design.names("lanes")) else ()
    return kept


__all__ = ["differs", "summed"]
