"""Chained products as the matrix unit wants them: a tile of scores, what is computed of it, and a product with that.

One nest over rows; inside it one loop whose every step multiplies the rows by some columns (summed over a whole
dimension), computes a value of the result, row by row, and multiplies it by another operand of the same columns, added
to what the loop carries. Attention of any kind is such a program, and so are two layers of a network.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from tilewright.design.default import Facts
from tilewright.language import ir, structure


@dataclass(frozen=True)
class Moved:
    """An operand that the copy engine brings: the value, its tensor, and its axis that is no sum's."""

    let: ir.Let
    ref: ir.Ref
    axis: str  # of the result
    depth: str  # summed over

    @property
    def tensor(self) -> str:
        """The tensor that it is a tile of."""
        return self.ref.buffer

    def runs_along_sum(self, facts: Facts) -> bool:
        """Whether the tensor has stride one along the sum."""
        return self.ref.index.index(self.depth) in facts.unit.get(self.tensor, ())


@dataclass(frozen=True)
class Chain:
    """Rows by the columns of a step; `first` dots give scores, `second` ones add to sums that the loop carries."""

    row: ir.Axis
    single: tuple[ir.Axis, ...]  # tiled by the author, one position a block here
    each: tuple[ir.Axis, ...]
    before: tuple[ir.Stmt, ...]
    loop: ir.Loop
    first: tuple[ir.Let, ...]
    second: tuple[ir.Let, ...]
    still: tuple[Moved, ...]  # operands that do not change from step to step
    moving: tuple[Moved, ...]
    carried: tuple[str, ...]
    outputs: tuple[str, ...]
    wide: tuple[str, ...]  # outputs that are rows of columns; others are a number for each row
    dtype: str

    @property
    def step(self) -> ir.Axis:
        """The axis of the loop."""
        return self.loop.axes[0]

    @property
    def packed(self) -> ir.Axis | None:
        """The axis whose positions may lie side by side in a tile of rows; they share all operands that move."""
        axis = self.single[-1] if self.single else None
        moved = {i for o in self.moving for i in o.ref.index}
        return axis if axis and axis.name not in moved and all(axis.name in o.ref.index for o in self.still) else None

    @property
    def dots(self) -> tuple[ir.Let, ...]:
        """All products."""
        return (*self.first, *self.second)

    @property
    def itemsize(self) -> int:
        """Bytes of an element of the operands."""
        return {"bf16": 2, "f16": 2}.get(self.dtype, 4)

    def bound_by(self, axis: str) -> bool:
        """Whether the first or the last column depends on the position along an axis."""
        return axis in self._bounds

    @property
    def ranged(self) -> bool:
        """Whether tensors say where the columns of each row begin or end: rows of unlike ranges may share a tile."""
        return any(isinstance(s.expr, ir.Load) and s.type.axes for s in self._told if s.name in self._bounds)

    @property
    def _told(self) -> list[ir.Let]:
        return [s for s in self.before if isinstance(s, ir.Let)]

    @property
    def _bounds(self) -> set[str]:
        """Values and axes that the first and the last column are computed of."""
        lets = {s.name: s.expr for s in self._told}
        todo, seen = [str(x) for x in (self.step.start, self.step.stop)], set[str]()
        while todo:
            name = todo.pop()
            if name not in seen:
                seen.add(name)
                expr = lets.get(name)
                todo += [] if expr is None else ir.operands(expr)
                todo += [expr.axis] if isinstance(expr, ir.Coord | ir.Reduce) else []
        return seen

    def width(self, dot: ir.Let) -> str:
        """The dimension or axis along the columns of a result."""
        return next(a for a in dot.type.axes if a != self.row.name)


def without_axes(body: tuple[ir.Stmt, ...], names: frozenset[str]) -> tuple[ir.Stmt, ...]:
    """`body` where each of the axes `names` is a single position."""

    def change(stmt: ir.Stmt) -> ir.Stmt:
        if not isinstance(stmt, ir.Let):
            return stmt
        expr = stmt.expr
        if isinstance(expr, ir.Reduce) and expr.axis in names:
            expr = ir.Permute(expr.arg)
        return replace(
            stmt, expr=expr, type=replace(stmt.type, axes=tuple(a for a in stmt.type.axes if a not in names))
        )

    return structure.rewrite(body, change) if names else body


@structure.asked_once
def chain(kernel: ir.Kernel) -> Chain | str:
    """The chain that a program is; or why the matrix unit cannot take it as one."""
    if len(kernel.body) != 1 or not isinstance(kernel.body[0], ir.Loop) or not kernel.body[0].parallel:
        return "the program is not one nest of parallel loops"
    nest = kernel.body[0]
    tiled = [a for a in nest.axes if not a.each]
    loops = [s for s in nest.body if isinstance(s, ir.Loop)]
    if len(loops) != 1 or len(loops[0].axes) != 1 or loops[0].axes[0].each or loops[0].parallel or not tiled:
        return "there is not one loop over columns inside the loop over rows"
    if any(a.start is not None or a.stop is not None for a in nest.axes):
        return "a parallel axis covers a part of its dimension"
    single = frozenset(a.name for a in tiled[:-1])
    body = without_axes(nest.body, single)
    loop = next(s for s in body if isinstance(s, ir.Loop))
    return _Reader(kernel, nest, tiled, body, loop).chain()


@dataclass(frozen=True)
class _Reader:
    kernel: ir.Kernel
    nest: ir.Loop
    tiled: list[ir.Axis]
    body: tuple[ir.Stmt, ...]
    loop: ir.Loop

    def chain(self) -> Chain | str:
        row, t = self.tiled[-1], self.loop.axes[0]
        if t.over not in self.kernel.dims:
            return f"{t.name} is a range of another axis, not of a dimension"
        if any(isinstance(s, (ir.Loop, ir.When)) for s in self.loop.body):
            return "the loop over columns has loops or conditions inside"
        dots = [s for s in self.loop.body if isinstance(s, ir.Let) and isinstance(s.expr, ir.Dot)]
        everywhere = [s for s in ir.walk(self.body) if isinstance(s, ir.Let) and isinstance(s.expr, ir.Dot)]
        first = tuple(d for d in dots if set(d.type.axes) == {row.name, t.name})
        second = tuple(d for d in dots if isinstance(d.expr, ir.Dot) and d.expr.axis == t.name)
        if not first or not second or len(first) + len(second) != len(everywhere):
            return "it is no product whose result is multiplied again, column by column"
        still: dict[str, Moved] = {}
        moving: dict[str, Moved] = {}
        for dot in (*first, *second):
            problem = self._operands(dot, dot in second, still, moving)
            if problem:
                return problem
        carried = tuple(dict.fromkeys(s.name for s in self.loop.body if isinstance(s, ir.Assign)))
        problem = self._sums(second, carried) or self._shapes(carried, second)
        if problem:
            return problem
        stores = {s.ref.buffer: s.value for s in ir.walk(self.body) if isinstance(s, ir.Store)}
        wide = tuple(t for t, value in stores.items() if len(self.lets[value].type.axes) == 2)
        if any(isinstance(s, ir.Store) for s in self.loop.body):
            return "the loop over columns stores"
        dtypes = {m.let.type.dtype.name for m in (*still.values(), *moving.values())}
        if len(dtypes) != 1:
            return "operands have several element types"
        return Chain(
            row, tuple(self.tiled[:-1]), tuple(a for a in self.nest.axes if a.each),
            self.body[: self.body.index(self.loop)], self.loop, first, second,
            tuple(still.values()), tuple(moving.values()), carried, tuple(stores), wide, dtypes.pop(),
        )  # fmt: skip

    @property
    def lets(self) -> dict[str, ir.Let]:
        return {s.name: s for s in ir.walk(self.body) if isinstance(s, ir.Let)}

    def _operands(self, dot: ir.Let, second: bool, still: dict[str, Moved], moving: dict[str, Moved]) -> str | None:
        row, t, lets = self.tiled[-1].name, self.loop.axes[0].name, self.lets
        assert isinstance(dot.expr, ir.Dot)
        for name in (dot.expr.a, dot.expr.b):
            let = lets[name]
            along = [a for a in let.type.axes if a != dot.expr.axis]
            if second and along == [row]:
                narrow = let.type.dtype.name in ("bf16", "f16")
                if isinstance(let.expr, ir.Load) or not narrow:
                    return f"{name} is not computed of the scores, in 16 bits"
                if not isinstance(let.expr, ir.Map) or let.expr.op != "cast":
                    return f"{name} is no cast of what was computed of the scores"
                continue
            if not isinstance(let.expr, ir.Load) or len(let.type.axes) != 2:
                return f"{name} is no plain tile of a tensor"
            if any(i in lets and lets[str(i)].type.axes for i in let.expr.ref.index):
                return f"{name} is gathered"
            if dot.expr.axis not in (t, *self.kernel.dims):
                return f"{dot.name} is summed over {dot.expr.axis}, which is not whole here"
            into = still if along == [row] else moving
            into.setdefault(name, Moved(let, let.expr.ref, along[0], dot.expr.axis))
        return None

    def _sums(self, second: tuple[ir.Let, ...], carried: tuple[str, ...]) -> str | None:
        """Why a second product is not added to a sum that the loop carries, as the last thing done with it."""
        reads: dict[str, list[ir.Stmt]] = {}
        for s in self.loop.body:
            for n in ir.operands(s.expr) if isinstance(s, ir.Let) else (s.value,) if isinstance(s, ir.Assign) else ():
                reads.setdefault(n, []).append(s)
        for dot in second:
            uses = reads.get(dot.name, [])
            add = uses[0] if len(uses) == 1 else None
            if not (isinstance(add, ir.Let) and isinstance(add.expr, ir.Map) and add.expr.op == "add"):
                return f"{dot.name} is not added to a sum"
            after = reads.get(add.name, [])
            if len(after) != 1 or not isinstance(after[0], ir.Assign) or after[0].name not in carried:
                return f"{add.name} is not carried to the next step"
            if reads.get(after[0].name) and self._later(after[0]):
                return f"{after[0].name} is read after it was added to"
        return None

    def _later(self, assign: ir.Assign) -> bool:
        at = self.loop.body.index(assign)
        rest = self.loop.body[at + 1 :]
        return any(
            (isinstance(s, ir.Let) and assign.name in ir.operands(s.expr))
            or (isinstance(s, ir.Assign) and assign.name in (s.name, s.value))
            for s in rest
        )

    def _shapes(self, carried: tuple[str, ...], second: tuple[ir.Let, ...]) -> str | None:
        row, t, lets = self.tiled[-1].name, self.loop.axes[0].name, self.lets
        wide = {a for d in second for a in d.type.axes if a != row}
        for name in carried:
            if name not in lets or row not in lets[name].type.axes:
                return f"{name} is carried, but has no rows"
        dots = [s.expr for s in lets.values() if isinstance(s.expr, ir.Dot)]
        operands = {n for d in dots for n in (d.a, d.b)}
        for let in lets.values():
            more = set(let.type.axes) - {row, t, *wide}
            if more and let.name not in operands:
                return f"{let.name} lies along {', '.join(sorted(more))}, beside the products"
            if t in let.type.axes and wide & set(let.type.axes) and let.name not in operands:
                return f"{let.name} has columns of both products"
            if isinstance(let.expr, ir.Reduce) and let.expr.axis == row and let in self.loop.body:
                return f"{let.name} joins rows"
        return None


__all__ = ["Chain", "Moved", "chain", "without_axes"]
