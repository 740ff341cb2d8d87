"""The change `hold`: what every round of a loop reads of a row is loaded once, before it, and stays in registers."""

from __future__ import annotations

from dataclasses import dataclass, replace

from tilewright.design.design import Design
from tilewright.design.twins import is_plain
from tilewright.language import ir, structure
from tilewright.language.structure import fresh, names, rewrite


@dataclass(frozen=True)
class Held:
    """A tensor whose rows the rounds of `rounds`, a loop of a nest, read again and again.

    `walks`: the axes of the loops over the row, each with the load that it makes.
    """

    nest: structure.Nest
    rounds: ir.Loop
    tensor: str
    walks: tuple[tuple[ir.Loop, ir.Let], ...]

    @property
    def axes(self) -> tuple[str, ...]:
        """The axes that walk over the row."""
        return tuple(loop.axes[0].name for loop, _ in self.walks)

    @property
    def load(self) -> ir.Let:
        """The load of the first walk."""
        return self.walks[0][1]


@structure.asked_once
def held_rows(kernel: ir.Kernel) -> dict[str, Held]:
    """Every tensor whose rows could be held, by its name: nobody writes to it, and each round reads the same places."""
    written = {s.ref.buffer for s in ir.walk(kernel.body) if isinstance(s, ir.Store)}
    found: dict[str, Held] = {}
    for nest in structure.nests(kernel):
        for rounds in (s for s in nest.loop.body if isinstance(s, ir.Loop) and not s.parallel):
            walks = [s for s in rounds.body if isinstance(s, ir.Loop) and is_plain(s, kernel)]
            for loop in walks:
                for let in (s for s in loop.body if isinstance(s, ir.Let)):
                    if isinstance(let.expr, ir.Load) and let.expr.ref.buffer not in {*written, *found}:
                        held = _held(nest, rounds, walks, let.expr.ref.buffer)
                        found |= {held.tensor: held} if held is not None else {}
    return found


def _held(nest: structure.Nest, rounds: ir.Loop, walks: list[ir.Loop], tensor: str) -> Held | None:
    """A tensor that all walks over one dimension load alike: at places that are known before the rounds begin."""
    outside = {a.name for a in nest.loop.axes}
    found: list[tuple[ir.Loop, ir.Let]] = []
    for loop in walks:
        axis = loop.axes[0].name
        for let in (s for s in loop.body if isinstance(s, ir.Let) and isinstance(s.expr, ir.Load)):
            assert isinstance(let.expr, ir.Load)
            if let.expr.ref.buffer == tensor:
                if not all(isinstance(i, int) or i in outside | {axis} for i in let.expr.ref.index):
                    return None
                found.append((loop, let))
    places = {tuple("row" if i == loop.axes[0].name else i for i in _index(let)) for loop, let in found}
    alike = len(places) == 1 and len({loop.axes[0].over for loop, _ in found}) == 1
    return Held(nest, rounds, tensor, tuple(found)) if alike and "row" in next(iter(places)) else None


def _index(let: ir.Let) -> tuple[ir.Index, ...]:
    assert isinstance(let.expr, ir.Load)
    return let.expr.ref.index


def hold(kernel: ir.Kernel, design: Design) -> tuple[ir.Kernel, dict[str, str]]:
    """The program, and for each axis of a walk that fills registers the axis of the walk that it is like.

    before:  for m in M parallel { for each n in K { for d in D { x0 = load x[m, d] ... } } }
    after:   for m in M parallel {
               alloc x_held : bf16[m, D] @place=register
               for d_held in D { x0_held = load x[m, d_held]; store x_held[m, d_held] = x0_held }
               for each n in K { for d in D { x0 = load x_held[m, d] ... } } }
    """
    taken, like = names(kernel), {}
    for tensor in [t for t, wanted in design.prefixed("hold") if wanted]:
        held = held_rows(kernel)[tensor]
        buffer, axis = fresh(f"{tensor}_held", taken), fresh(f"{held.axes[0]}_held", taken)
        like[axis] = held.axes[0]
        name = fresh(f"{held.load.name}_held", taken)
        kernel = replace(kernel, body=tuple(_filled(s, held, buffer, axis, name) for s in kernel.body))
    return kernel, like


def _filled(stmt: ir.Stmt, held: Held, buffer: str, axis: str, name: str) -> ir.Stmt:
    """A nest with registers for a row, the walk that fills them, and rounds that read them."""
    if stmt != held.nest.loop or not isinstance(stmt, ir.Loop):
        return stmt
    walk, load = held.walks[0]
    row = walk.axes[0]
    dims = tuple(row.over if a == row.name else a for a in load.type.axes)
    alloc = ir.Alloc(buffer, load.type.dtype, dims, (("place", "register"),))
    body: list[ir.Stmt] = [alloc]
    for inner in stmt.body:
        if inner == held.rounds:
            body += [_walk(walk, load, buffer, axis, name), _reading(inner, held, buffer)]
        else:
            body.append(inner)
    return replace(stmt, body=tuple(body))


def _walk(like: ir.Loop, load: ir.Let, buffer: str, axis: str, name: str) -> ir.Loop:
    assert isinstance(load.expr, ir.Load)
    old = like.axes[0].name
    axes = tuple(axis if a == old else a for a in load.type.axes)
    ref = replace(load.expr.ref, index=tuple(axis if i == old else i for i in load.expr.ref.index))
    made = replace(load, name=name, type=replace(load.type, axes=axes), expr=ir.Load(ref))
    body: tuple[ir.Stmt, ...] = (made, ir.Store(ir.Ref(buffer, axes), name))
    return replace(like, axes=(replace(like.axes[0], name=axis),), body=body)


def _reading(rounds: ir.Stmt, held: Held, buffer: str) -> ir.Stmt:
    loads = [let for _, let in held.walks]

    def change(stmt: ir.Stmt) -> ir.Stmt:
        if isinstance(stmt, ir.Let) and stmt in loads:
            return replace(stmt, expr=ir.Load(ir.Ref(buffer, stmt.type.axes)), notes=())
        return stmt

    return rewrite((rounds,), change)[0]


__all__ = ["Held", "held_rows", "hold"]
