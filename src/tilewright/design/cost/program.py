"""A tile program as the cost model reads it: what does not depend on the design, found once for each kernel."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace

from tilewright.design.design import Design
from tilewright.design.hold import hold
from tilewright.design.kept import keep
from tilewright.language import ir, structure

Kept = tuple[str, ...]
"""Names of the values that a design keeps."""

_REDUCTION_OF = {"add": "sum", "max": "max", "min": "min"}


@dataclass(frozen=True)
class Program:
    """The structure of a kernel.

    `accumulates` holds reductions and dots whose results go straight into a tile that their loop carries, by the
    name of the reduction: the tile's name. `folded` holds the additions that this makes free. `streamed` are values
    that only dots read: they need no registers of their own.
    """

    kernel: ir.Kernel
    nests: tuple[structure.Nest, ...]
    axes: dict[str, ir.Axis]
    values: dict[str, ir.Let]
    whole: frozenset[str]
    accumulates: dict[str, str]
    folded: frozenset[str]
    streamed: frozenset[str]
    carried: frozenset[str]
    loads: dict[str, tuple[ir.Let, ...]]  # by tensor
    operands: dict[str, tuple[str, str]] = field(default_factory=dict)  # by tensor: lane and summed axis of its dots
    loop_of: dict[str, str] = field(default_factory=dict)  # value -> last axis of the loop it is computed in
    scratch: dict[str, ir.Alloc] = field(default_factory=dict)  # buffers of a tile's own
    alike: dict[str, str] = field(default_factory=dict)  # axis that a design adds -> that whose tiles it has

    def buffer(self, name: str) -> ir.Param | ir.Alloc:
        """The tensor or the scratch of a name: its type and its dimensions."""
        return self.scratch.get(name) or self.kernel.param(name)


_known: dict[tuple[int, Kept], tuple[ir.Kernel, Program]] = {}


def program_of(kernel: ir.Kernel, design: Design | None = None) -> Program:
    """The structure of a kernel, found once and kept while few others are asked for.

    Where `design` keeps values of one loop for a later one, it is that of the program which does so.
    """
    names = () if design is None else tuple(
        f"{kind}.{name}" for kind in ("hold", "keep") for name, wanted in design.prefixed(kind) if wanted
    )  # fmt: skip
    source, found = _known.get((id(kernel), names), (None, None))
    if found is None or source is not kernel:
        if len(_known) > 256:
            _known.clear()
        changed, alike = hold(keep(kernel, design), design) if design is not None and names else (kernel, {})
        found = replace(_program(changed), alike=alike)
        _known[id(kernel), names] = kernel, found
    return found


def _program(kernel: ir.Kernel) -> Program:
    axes, values = structure.axes(kernel), structure.lets(kernel)
    used = {a for let in values.values() for a in let.type.axes}
    whole = frozenset(d for d in kernel.dims if d in used and d not in axes)
    accumulates, folded = _accumulations(kernel, values)
    carried = frozenset(s.name for s in ir.walk(kernel.body) if isinstance(s, ir.Assign))
    loads: dict[str, tuple[ir.Let, ...]] = {}
    for let, ref in structure.loads(kernel):
        loads[ref.buffer] = (*loads.get(ref.buffer, ()), let)
    return Program(
        kernel, tuple(structure.nests(kernel)), axes, values, whole, accumulates, folded, _streamed(kernel, values),
        carried, loads, _operands(values), _loops(kernel),
        {s.name: s for s in ir.walk(kernel.body) if isinstance(s, ir.Alloc)},
    )  # fmt: skip


def _uses(kernel: ir.Kernel, values: dict[str, ir.Let]) -> Counter[str]:
    counts = Counter(n for let in values.values() for n in ir.operands(let.expr))
    counts.update(s.value for s in ir.walk(kernel.body) if isinstance(s, (ir.Assign, ir.Store)))
    return counts


def _accumulations(kernel: ir.Kernel, values: dict[str, ir.Let]) -> tuple[dict[str, str], frozenset[str]]:
    """`t := t op reduction`, where nothing else reads the reduction or the sum."""
    counts, found, folded = _uses(kernel, values), {}, set()
    for stmt in ir.walk(kernel.body):
        if not isinstance(stmt, ir.Assign):
            continue
        total = values[stmt.value]
        if not isinstance(total.expr, ir.Map) or counts[total.name] != 1:
            continue
        for name in (a for a in total.expr.args if a != stmt.name and a in values and counts[a] == 1):
            expr = values[name].expr
            is_sum = isinstance(expr, ir.Dot) and total.expr.op == "add"
            if is_sum or (isinstance(expr, ir.Reduce) and _REDUCTION_OF.get(total.expr.op) == expr.op):
                found[name] = stmt.name
                folded.add(total.name)
    return found, frozenset(folded)


def _streamed(kernel: ir.Kernel, values: dict[str, ir.Let]) -> frozenset[str]:
    stored = {s.value for s in ir.walk(kernel.body) if isinstance(s, (ir.Store, ir.Assign))}
    readers: dict[str, list[ir.Let]] = {}
    for let in values.values():
        for name in ir.operands(let.expr):
            readers.setdefault(name, []).append(let)

    def only_dots(name: str) -> bool:
        return name not in stored and bool(readers.get(name)) and all(
            isinstance(r.expr, ir.Dot) or (isinstance(r.expr, ir.Permute) and only_dots(r.name)) for r in readers[name]
        )  # fmt: skip

    return frozenset(n for n in values if only_dots(n))


def _operands(values: dict[str, ir.Let]) -> dict[str, tuple[str, str]]:
    """(axis across lanes, summed axis) of each tensor that a dot multiplies as loaded: the axes of its panels."""
    found: dict[str, tuple[str, str]] = {}
    for let in values.values():
        if isinstance(let.expr, ir.Dot):
            for name in (let.expr.a, let.expr.b):
                operand = values[name]
                lane = next((a for a in operand.type.axes if a != let.expr.axis), None)
                if isinstance(operand.expr, ir.Load) and lane is not None:
                    found.setdefault(operand.expr.ref.buffer, (lane, let.expr.axis))
    return found


def _loops(kernel: ir.Kernel) -> dict[str, str]:
    found: dict[str, str] = {}
    for loop in (s for s in ir.walk(kernel.body) if isinstance(s, ir.Loop)):
        for stmt in loop.body:
            if isinstance(stmt, ir.Let):
                found[stmt.name] = loop.axes[-1].name
    return found
