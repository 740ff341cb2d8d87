"""Patterns of a loop body that designs and emitters know as accumulation in place.

`acc := acc + dot(a, b)` needs no product tile: the products go straight into the accumulator. A sum
along vector lanes into a tile that the body reads nowhere else can stay spread over the lanes until
the loop ends, so that each iteration costs one addition and no shuffles.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Container
from dataclasses import dataclass, field

from tilewright.language import ir

_REDUCTION_OF = {"add": "sum", "max": "max", "min": "min"}


@dataclass(frozen=True)
class Accumulation:
    """`target := target op reduce(...) over axis` as the only use of target in the loop."""

    target: str
    total: str
    op: str
    axis: str
    rest: tuple[str, ...]  # axes of the reduction's result


@dataclass
class FusedDots:
    """Dots whose only use is an addition: `additions[name of the sum] = (dot, other addend)`."""

    delayed: set[str] = field(default_factory=set)
    additions: dict[str, tuple[ir.Let, str]] = field(default_factory=dict)


def undisturbed(body: tuple[ir.Stmt, ...], buffers: Container[str]) -> frozenset[str]:
    """Loads from `buffers` in `body` whose buffer is not written until they have been read for the last time."""
    found = set()
    for n, let in enumerate(body):
        if isinstance(let, ir.Let) and isinstance(let.expr, ir.Load) and let.expr.ref.buffer in buffers:
            rest = body[n + 1 :]
            read = max((i for i, s in enumerate(rest) if uses((s,))[let.name]), default=-1)
            written = next((i for i, s in enumerate(rest) if _writes(s, let.expr.ref.buffer)), len(rest))
            if read < written or (read == written and isinstance(rest[read], ir.Store)):
                found.add(let.name)
    return frozenset(found)


def _writes(stmt: ir.Stmt, buffer: str) -> bool:
    return any(isinstance(s, ir.Store) and s.ref.buffer == buffer for s in ir.walk((stmt,)))


def read_once(body: tuple[ir.Stmt, ...]) -> set[str]:
    """Loads and elementwise values of `body` that one value, reduction or store reads, with no loop in between.

    Each part of such a value can be computed where that part is read, so that few of them are alive at a time. What is
    read from memory part by part while results are written must not lie where they do: it has other dimensions than the
    result, or is read at the very place that is written next.
    """
    counts, found = uses(body), set[str]()
    ready: dict[str, frozenset[ir.Ref]] = {}  # what can wait, and the loads that wait with it
    for stmt in body:
        match stmt:
            case ir.Let(name=name, expr=expr):
                wait = {a: ready.pop(a) for a in ir.operands(expr) if a in ready}
                found |= wait.keys() if isinstance(expr, ir.Map | ir.Reduce) else set()
                if counts[name] == 1 and isinstance(expr, ir.Map | ir.Load):
                    loads = [expr.ref] if isinstance(expr, ir.Load) else []
                    ready[name] = frozenset(loads).union(*wait.values())
            case ir.Store(ref, value):
                if all(_apart(load, ref) for load in ready.get(value, ())):
                    found |= ready.keys() & {value}
                ready.clear()
            case ir.Assign():
                pass
            case _:
                ready.clear()
    return found


def _apart(load: ir.Ref, store: ir.Ref) -> bool:
    return load.index == store.index or len(load.index) != len(store.index)


def uses(body: tuple[ir.Stmt, ...]) -> Counter[str]:
    """How often each name is read in `body`, nested statements included."""
    counts: Counter[str] = Counter()
    for stmt in ir.walk(body):
        match stmt:
            case ir.Let(_, _, expr):
                counts.update(ir.operands(expr))
            case ir.Assign(_, value):
                counts[value] += 1
            case ir.Store(ref, value):
                counts[value] += 1
                counts.update(i for i in ref.index if isinstance(i, str))
            case ir.Loop(axes):
                counts.update(x for a in axes for x in (a.start, a.stop) if isinstance(x, str))
            case ir.Copy(dst, src):
                counts.update(i for r in (dst, src) for i in r.index if isinstance(i, str))
            case _:
                pass
    return counts


def fused_dots(body: tuple[ir.Stmt, ...]) -> FusedDots:
    """Dots of `body` (this level only) that an addition can take over."""
    result, counts = FusedDots(), uses(body)
    dots = {s.name: s for s in body if isinstance(s, ir.Let) and isinstance(s.expr, ir.Dot)}
    for stmt in body:
        if not (isinstance(stmt, ir.Let) and isinstance(stmt.expr, ir.Map) and stmt.expr.op == "add"):
            continue
        x, y = stmt.expr.args
        for dot, other in ((y, x), (x, y)):
            if dot in dots and counts[dot] == 1 and other not in dots and stmt.type.dtype == dots[dot].type.dtype:
                if set(stmt.type.axes) != set(dots[dot].type.axes):
                    continue
                result.delayed.add(dot)
                result.additions[stmt.name] = (dots[dot], other)
                break
    return result


def together(body: tuple[ir.Stmt, ...]) -> tuple[ir.Stmt, ...]:
    """`body` with its dots before all additions where two of them share an operand, else as it is.

    Then they can be made side by side, each part of the operand meeting all of them when it comes. Only bodies of
    values and assignments are touched, and only where no dot depends on what the body assigns.
    """
    if not _shares_an_operand(body) or not all(isinstance(s, ir.Let | ir.Assign) for s in body):
        return body
    assigned = {s.name for s in body if isinstance(s, ir.Assign)}
    late: set[str] = set(assigned)
    for stmt in body:
        if isinstance(stmt, ir.Let) and not late.isdisjoint(ir.operands(stmt.expr)):
            late.add(stmt.name)
    first = [s for s in body if isinstance(s, ir.Let) and s.name not in late]
    return (*first, *(s for s in body if s not in first))


def _shares_an_operand(body: tuple[ir.Stmt, ...]) -> bool:
    read = Counter(n for s in body if isinstance(s, ir.Let) and isinstance(s.expr, ir.Dot) for n in ir.operands(s.expr))
    return any(n > 1 for n in read.values())


def side_by_side(body: tuple[ir.Stmt, ...], fused: FusedDots) -> dict[str, tuple[ir.Let, ...]]:
    """Additions that can take their dots over at once, by the name of the first: alike, and with a common operand.

    Each adds to a variable of its own from outside of `body`, and its dot stands before the first of the additions,
    where `together` puts those that need nothing of it.
    """
    place = {s.name: n for n, s in enumerate(body) if isinstance(s, ir.Let)}
    groups: list[list[ir.Let]] = []
    taken: set[str] = set()  # variables that the last group adds to
    for stmt in body:
        if not isinstance(stmt, ir.Let) or stmt.name not in fused.additions:
            continue
        dot, addend = fused.additions[stmt.name]
        first = groups[-1][0].name if groups else ""
        joins = first and _alike(fused.additions[first][0], dot) and place[dot.name] < place[first]
        if joins and addend not in taken and addend not in place:
            groups[-1].append(stmt)
            taken.add(addend)
        else:
            groups.append([stmt])
            taken = {addend}
    return {group[0].name: tuple(group) for group in groups}


def _alike(one: ir.Let, other: ir.Let) -> bool:
    """Whether two dots sum over the same axis into tiles alike, by one instruction, and have an operand in common."""
    a, b = one.expr, other.expr
    assert isinstance(a, ir.Dot) and isinstance(b, ir.Dot)
    same = (one.type, a.axis, ir.note(one.notes, "atom")) == (other.type, b.axis, ir.note(other.notes, "atom"))
    return same and not {a.a, a.b}.isdisjoint((b.a, b.b))


def find_accumulations(body: tuple[ir.Stmt, ...]) -> dict[str, Accumulation]:
    """Accumulations of a loop body, by the name of the reduction that feeds each.

    What is broadcast into its target, or lies in another order, is computed first and added then: it is none.
    """
    counts = uses(body)
    lets = {s.name: s for s in body if isinstance(s, ir.Let)}
    assigned = Counter(s.name for s in ir.walk(body) if isinstance(s, ir.Assign))
    found: dict[str, Accumulation] = {}
    for stmt in body:
        if not isinstance(stmt, ir.Assign) or assigned[stmt.name] != 1 or counts[stmt.name] != 1:
            continue
        total = lets.get(stmt.value)
        if total is None or counts[total.name] != 1 or not isinstance(total.expr, ir.Map):
            continue
        op = _REDUCTION_OF.get(total.expr.op)
        parts = [a for a in total.expr.args if a != stmt.name]
        if op is None or len(parts) != 1 or parts[0] not in lets or counts[parts[0]] != 1:
            continue
        reduction = lets[parts[0]]
        match reduction.expr:
            case ir.Reduce(kind, _, axis) if kind == op and reduction.type.axes == total.type.axes:
                found[reduction.name] = Accumulation(stmt.name, total.name, op, axis, reduction.type.axes)
            case ir.Dot(_, _, axis) if op == "sum" and set(reduction.type.axes) == set(total.type.axes):
                found[reduction.name] = Accumulation(stmt.name, total.name, op, axis, reduction.type.axes)
            case _:
                pass
    return found


def dot_operands(body: tuple[ir.Stmt, ...]) -> set[str]:
    """Values that nothing but dots of the same block read, directly or through a permutation.

    They need not be in registers before the dot takes them in, one by one.
    """
    found: set[str] = set()
    for block in _blocks(body):
        lets = {s.name: s for s in block if isinstance(s, ir.Let)}
        counts = uses(body)
        by_dots: Counter[str] = Counter()
        for let in reversed(lets.values()):
            if isinstance(let.expr, ir.Dot) or (
                isinstance(let.expr, ir.Permute) and 0 < counts[let.name] == by_dots[let.name]
            ):
                by_dots.update(ir.operands(let.expr))
        found |= {name for name, n in by_dots.items() if n == counts[name] and name in lets}
    return found


def _blocks(body: tuple[ir.Stmt, ...]) -> list[tuple[ir.Stmt, ...]]:
    return [body, *(b for s in ir.walk(body) if (b := ir.blocks(s)))]
