"""Twins: values that two serial loops of a nest compute alike: the later loop may read what the earlier one had."""

from __future__ import annotations

from dataclasses import dataclass

from tilewright.language import ir, structure


@dataclass(frozen=True)
class Twin:
    """`later`, a value of one loop, equals `earlier`, a value of a loop before it, position by position."""

    nest: structure.Nest
    first: ir.Loop
    second: ir.Loop
    earlier: ir.Let
    later: ir.Let

    @property
    def is_computed(self) -> bool:
        """Whether it is more than loaded: what is loaded is read from memory one way or the other."""
        return isinstance(self.later.expr, ir.Map)


@structure.asked_once
def twins(kernel: ir.Kernel) -> dict[str, Twin]:
    """Every twin of a program, by the name of its later value; the earliest loop that has it counts."""
    found: dict[str, Twin] = {}
    for nest in structure.nests(kernel):
        loops = [s for s in nest.loop.body if isinstance(s, ir.Loop) and is_plain(s, kernel)]
        for n, second in enumerate(loops):
            for first in loops[:n]:
                for twin in _between(nest, first, second):
                    found.setdefault(twin.later.name, twin)
    return found


def is_plain(loop: ir.Loop, kernel: ir.Kernel) -> bool:
    """Whether a loop goes once through a whole dimension."""
    axis = loop.axes[0]
    return (
        not loop.parallel
        and len(loop.axes) == 1
        and not axis.each
        and axis.start is axis.stop is None
        and axis.over in kernel.dims
    )


def _between(nest: structure.Nest, first: ir.Loop, second: ir.Loop) -> list[Twin]:
    """Twins of two loops: what both compute from the same things, none of which changes from the first loop on."""
    body = nest.loop.body
    passed = body[body.index(first) : body.index(second) + 1]
    changed = {s.name for s in ir.walk(passed) if isinstance(s, ir.Assign)}
    stored = {s.ref.buffer for s in ir.walk(passed[:-1]) if isinstance(s, ir.Store)}
    # An output that lies where an input lies changes it; what is stored once a row has another shape than the input.
    walked = any(isinstance(s, ir.Store) for p in passed[:-1] if isinstance(p, ir.Loop) for s in ir.walk((p,)))
    if walked or first.axes[0].over != second.axes[0].over:
        return []
    axis, renamed = second.axes[0].name, {second.axes[0].name: first.axes[0].name}
    one, two = ({s.name: s for s in loop.body if isinstance(s, ir.Let)} for loop in (first, second))

    def same(x: str, y: str) -> bool:
        """Whether y, seen from the second loop, is x, seen from the first."""
        if y not in two:
            return x == renamed.get(y, y) and y not in changed
        return x in one and _alike(one[x], two[y])

    def _alike(x: ir.Let, y: ir.Let) -> bool:
        if x.type.dtype != y.type.dtype or x.type.axes != tuple(renamed.get(a, a) for a in y.type.axes):
            return False
        match x.expr, y.expr:
            case ir.Map(op, args), ir.Map(other, others):
                return op == other and all(same(*pair) for pair in zip(args, others, strict=True))
            case ir.Load(ref), ir.Load(other_ref):
                pairs = zip(ref.index, other_ref.index, strict=True) if ref.buffer == other_ref.buffer else ()
                return (
                    ref.buffer == other_ref.buffer
                    and ref.buffer not in stored
                    and all(same(a, b) if isinstance(a, str) and isinstance(b, str) else a == b for a, b in pairs)
                )
            case ir.Coord(a), ir.Coord(b):
                return a == renamed.get(b, b)
            case ir.Full(a), ir.Full(b):
                return same(a, b) if isinstance(a, str) and isinstance(b, str) else a == b
            case _:
                return False

    pairs = [(x, y) for y in two.values() if axis in y.type.axes for x in one.values() if _alike(x, y)]
    return [Twin(nest, first, second, x, y) for x, y in pairs]
