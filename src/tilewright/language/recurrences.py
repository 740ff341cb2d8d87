"""What a serial loop carries from one iteration to the next, and how the states of two ranges of it are joined.

Three kinds are told from the statements of the loop, by what the new state is of the old one:

- *extreme*: `m' = max(m, r)` or `min(m, r)`; two states are joined by the same operator;
- *sum*: `x' = x + r`; joined by addition;
- *faded sum*: `x' = x exp(m - m') + r`, where m' is the new value of an extreme and r is made of exp(s - m') by sums
  and products alone. Such a state is exp(-m) times a sum that knows nothing of m: two of them are joined at
  m' = max(m1, m2) as `x1 exp(m1 - m') + x2 exp(m2 - m')`. The online softmax is this (Milakov and Gimelshein,
  arXiv:1805.02867).

In each, r depends on no state. A loop that carries anything else cannot be dealt out in parts.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from tilewright.language import ir

EXTREMES = ("max", "min")
_EXPONENTIALS = ("exp", "exp2")


@dataclass(frozen=True)
class Carried:
    """One carried value: its kind is `max`, `min`, `sum` or `faded`; a faded one names its extreme and exponential."""

    name: str
    type: ir.TileType
    kind: str
    extreme: str = ""
    exponential: str = ""


@dataclass(frozen=True)
class _Node:
    """A value of one iteration: an operator on others; `free` values know nothing of what is carried."""

    op: str
    args: tuple[_Node, ...] = ()
    name: str = ""

    @property
    def free(self) -> bool:
        return self.op == "free"


def carried(loop: ir.Loop, before: Mapping[str, ir.Let]) -> tuple[Carried, ...] | str:
    """What `loop` carries, in the order of its updates, or why its range cannot be dealt out in parts.

    `before` are the values that are defined in front of the loop, the first states among them.
    """
    blocks = [b for b in _blocks(loop) if any(isinstance(s, ir.Assign) for s in b)]
    if not blocks:
        return "it carries no value from one iteration to the next"
    names = tuple(dict.fromkeys(s.name for b in blocks for s in b if isinstance(s, ir.Assign)))
    missing = [n for n in names if n not in before]
    if len(blocks) > 1 or missing:
        return f"{', '.join(missing) or 'a value'} is carried by one of its loops and by another"
    if read := sorted(_read_elsewhere(loop, blocks[0]) & set(names)):
        return f"{', '.join(read)} is read outside the loop that carries it"
    if any(isinstance(s, ir.Store | ir.Copy) for s in ir.walk(loop.body)):
        return "it stores what its iterations compute"
    ends = _last_values(blocks[0], names)
    found: dict[str, Carried] = {}
    for name in sorted(names, key=lambda n: _extreme(n, ends[n]) is None):  # extremes before what fades by them
        kind = _kind(name, before[name].type, ends, found)
        if kind is None:
            return f"{name} is neither an extreme, nor a sum, nor a sum that fades as an extreme grows"
        if problem := _wrong_start(kind, before[name].expr):
            return problem
        found[name] = kind
    return tuple(found.values())


def joined(states: tuple[Carried, ...], other: Mapping[str, str], name: Namer) -> Iterator[ir.Stmt]:
    """Statements that take the states named by `other` into the carried values; `name` makes names that are new."""
    fresh: dict[str, str] = {}
    for state in (s for s in states if s.kind in EXTREMES):
        fresh[state.name] = name(f"{state.name}_joined")
        yield ir.Let(fresh[state.name], state.type, ir.Map(state.kind, (state.name, other[state.name])))
    fades: dict[tuple[str, str], tuple[str, str]] = {}
    for state in (s for s in states if s.kind not in EXTREMES):
        mine, theirs = state.name, other[state.name]
        if state.kind == "faded":
            key = (state.extreme, state.exponential)
            if key not in fades:
                type_ = next(s.type for s in states if s.name == state.extreme)
                pair = []
                for old in (state.extreme, other[state.extreme]):
                    gap, fade = name(f"{old}_gap"), name(f"{old}_fade")
                    yield ir.Let(gap, type_, ir.Map("sub", (old, fresh[state.extreme])))
                    yield ir.Let(fade, type_, ir.Map(state.exponential, (gap,)))
                    pair.append(fade)
                fades[key] = (pair[0], pair[1])
            faded = []
            for value, fade in zip((mine, theirs), fades[key], strict=True):
                faded.append(name(f"{value}_faded"))
                yield ir.Let(faded[-1], state.type, ir.Map("mul", (value, fade)))
            mine, theirs = faded
        total = name(f"{state.name}_total")
        yield ir.Let(total, state.type, ir.Map("add", (mine, theirs)))
        yield ir.Assign(state.name, total)
    for extreme, new in fresh.items():
        yield ir.Assign(extreme, new)


class Namer:
    """Makes names that a program does not use yet."""

    def __init__(self, taken: set[str]) -> None:
        self.taken = taken

    def __call__(self, name: str) -> str:
        from tilewright.language.structure import fresh

        return fresh(name, self.taken)


# ------------------------------------------------------------------------------------------ one iteration, symbolically
def _blocks(loop: ir.Loop) -> Iterator[tuple[ir.Stmt, ...]]:
    yield loop.body
    yield from (ir.blocks(s) for s in ir.walk(loop.body) if ir.blocks(s))


def _read_elsewhere(loop: ir.Loop, block: tuple[ir.Stmt, ...]) -> set[str]:
    """Names that statements read, or loops are bounded by, other than those directly in `block`."""
    found: set[str] = set()
    for stmt in ir.walk((loop,)):
        if isinstance(stmt, ir.Loop):
            found.update(b for a in stmt.axes for b in (a.start, a.stop) if isinstance(b, str))
        elif isinstance(stmt, ir.Let) and not any(stmt is s for s in block):
            found.update(ir.operands(stmt.expr))
    return found


def _last_values(body: tuple[ir.Stmt, ...], names: tuple[str, ...]) -> dict[str, _Node]:
    """The carried values after the block, of those before it."""
    now: dict[str, _Node] = {n: _Node("state", name=n) for n in names}
    for stmt in body:
        if isinstance(stmt, ir.Assign):
            now[stmt.name] = now.get(stmt.value, _Node("free", name=stmt.value))
        elif isinstance(stmt, ir.Let):
            now[stmt.name] = _node(stmt, now)
    return {n: now[n] for n in names}


def _node(let: ir.Let, now: Mapping[str, _Node]) -> _Node:
    args = tuple(now.get(n, _Node("free", name=n)) for n in ir.operands(let.expr))
    if all(a.free for a in args):
        return _Node("free", name=let.name)
    match let.expr:
        case ir.Map(op):
            return _Node(op, args)
        case ir.Reduce(op):
            return _Node(f"reduce_{op}", args)
        case ir.Dot():
            return _Node("mul", args)
        case ir.Permute():
            return _Node("cast", args)
    return _Node("other", args)


def _kind(name: str, type_: ir.TileType, ends: Mapping[str, _Node], found: Mapping[str, Carried]) -> Carried | None:
    end, state = ends[name], _Node("state", name=name)
    if (op := _extreme(name, end)) is not None:
        return Carried(name, type_, op)
    if end.op != "add":
        return None
    for mine, rest in (end.args, end.args[::-1]):
        if mine == state and rest.free:
            return Carried(name, type_, "sum")
        if mine.op == "mul" and state in mine.args:
            fade = mine.args[1 - mine.args.index(state)]
            for extreme in (c for c in found.values() if c.kind == "max"):
                gap = _Node("sub", (_Node("state", name=extreme.name), ends[extreme.name]))
                if fade.op in _EXPONENTIALS and fade.args == (gap,) and _fades(rest, fade.op, ends[extreme.name]):
                    return Carried(name, type_, "faded", extreme.name, fade.op)
    return None


def _extreme(name: str, end: _Node) -> str | None:
    """`max` or `min` where the new value is that of the old one and of something free."""
    state = _Node("state", name=name)
    if end.op in EXTREMES and state in end.args and end.args[1 - end.args.index(state)].free:
        return end.op
    return None


def _fades(node: _Node, exponential: str, top: _Node) -> bool:
    """Whether a value is exp(-top) times something free: sums and products of exp(s - top) with free values."""
    match node.op:
        case op if op == exponential:
            (gap,) = node.args
            return gap.op == "sub" and gap.args[0].free and gap.args[1] == top
        case "cast" | "neg" | "reduce_sum":
            return _fades(node.args[0], exponential, top)
        case "add" | "sub":
            return all(_fades(a, exponential, top) for a in node.args)
        case "mul":
            return any(a.free and _fades(b, exponential, top) for a, b in (node.args, node.args[::-1]))
        case "div":
            return node.args[1].free and _fades(node.args[0], exponential, top)
    return False


def _wrong_start(state: Carried, first: ir.Expr) -> str | None:
    """Why a part cannot begin where the whole loop does."""
    number = first.value if isinstance(first, ir.Full) and not isinstance(first.value, str) else None
    if state.kind in EXTREMES:
        if number is None or (state.type.dtype.kind == "float" and not math.isfinite(number)):
            return f"{state.name} does not begin with a finite number: two empty parts could not be joined"
        return None
    return None if number == 0 else f"{state.name} does not begin with 0, which every part would add"


__all__ = ["EXTREMES", "Carried", "Namer", "carried", "joined"]
