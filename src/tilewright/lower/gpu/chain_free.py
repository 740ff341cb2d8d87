"""Stage `free` of chained products: between which columns no condition of a mask can fail.

A condition compares positions of columns with something of the rows. Where the extremes of both sides over a tile
settle it, the tile needs no mask. The bounds are computed once, before the loop; the loop and its masks are noted.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from tilewright.design.default import Facts
from tilewright.design.design import Design
from tilewright.language import ir
from tilewright.language.dtypes import DType, dtype
from tilewright.language.structure import fresh, names

_I64 = ir.TileType(dtype("i64"))


def free_columns(kernel: ir.Kernel, design: Design, facts: Facts) -> ir.Kernel:
    """
    before:  for t in T to stop step 128 { for i { .. c = le pos_t pos_i;  z = select c x inf .. } }
    after:   first = full 0;  past = add first_row 1
             for t in T to stop step 128 @free=(first,past) { for i { .. z = select c x inf @free=true .. } }
    """
    grid = kernel.body[0]
    assert isinstance(grid, ir.Loop)
    at = next(n for n, s in enumerate(grid.body) if isinstance(s, ir.Loop) and not s.parallel)
    main = grid.body[at]
    assert isinstance(main, ir.Loop)
    finder = _Finder(kernel, main, grid.axes[-1].name, names(kernel))
    main = finder.noted(main)
    begin = next(n for n, s in enumerate(grid.body) if not isinstance(s, ir.Let))
    body = (*grid.body[:begin], *finder.made, *grid.body[begin:at], main, *grid.body[at + 1 :])
    return replace(kernel, body=(replace(grid, body=body),))


@dataclass
class _Finder:
    """Looks for bounds; `made` are the values that compute them, which stand before the loop."""

    kernel: ir.Kernel
    main: ir.Loop
    block: str  # the axis of the rows of a block
    taken: set[str]
    made: list[ir.Stmt] = field(default_factory=list)
    lows: list[str] = field(default_factory=list)
    highs: list[str] = field(default_factory=list)

    @property
    def column(self) -> str:
        return self.main.axes[0].name

    @property
    def rows(self) -> ir.Loop:
        return next(s for s in ir.walk(self.main.body) if isinstance(s, ir.Loop))

    @property
    def lets(self) -> dict[str, ir.Let]:
        grid = self.kernel.body[0]
        assert isinstance(grid, ir.Loop)
        return {s.name: s for s in (*grid.body, *self.rows.body) if isinstance(s, ir.Let)}

    def noted(self, main: ir.Loop) -> ir.Loop:
        """The loop, with its bounds and its masks noted where there are any."""
        free = set()
        for s in self.rows.body:
            if isinstance(s, ir.Let) and isinstance(s.expr, ir.Map) and s.expr.op == "select":
                bounds = self.bounds(s.expr.args[0])
                if bounds is not None:
                    self.lows += bounds[0]
                    self.highs += bounds[1]
                    free.add(s.name)
        if not free:
            return main
        low = self.joined("max", self.lows, "free_from") if self.lows else self.let("free_from", ir.Full(0))
        high = (
            self.joined("min", self.highs, "free_to") if self.highs else self.let("free_to", ir.Full(main.axes[0].over))
        )
        from tilewright.language.structure import rewrite

        body = rewrite(
            main.body,
            lambda s: (
                replace(s, notes=ir.with_notes(s.notes, free=True)) if isinstance(s, ir.Let) and s.name in free else s
            ),
        )
        return replace(main, body=body, notes=ir.with_notes(main.notes, free=(low, high)))

    def bounds(self, cond: str) -> tuple[list[str], list[str]] | None:
        """First columns, and columns past the last, between which `cond` always holds; None if that is not known."""
        let = self.lets.get(cond)
        if let is None or not isinstance(let.expr, ir.Map):
            return None
        op, args = let.expr.op, let.expr.args
        if op == "and":
            parts = [self.bounds(a) for a in args]
            if any(p is None for p in parts):
                return None
            return [x for p in parts if p for x in p[0]], [x for p in parts if p for x in p[1]]
        if op not in ("le", "lt", "ge", "gt"):
            return None
        x, y = args
        if self.depends(y) and not self.depends(x):
            x, y, op = y, x, {"le": "ge", "lt": "gt", "ge": "le", "gt": "lt"}[op]
        if not self.depends(x) or self.depends(y):
            return None
        shift, other = self.shift(x), self.extreme(y, "min" if op in ("le", "lt") else "max")
        if shift is None or other is None:
            return None
        # column + shift <= other for all columns before other - shift + 1; >= from other - shift on.
        bound = self.let("edge", ir.Map("sub", (other, shift))) if shift else other
        if op in ("le", "gt"):
            bound = self.let("edge", ir.Map("add", (bound, self.let("one", ir.Full(1)))))
        return ([], [bound]) if op in ("le", "lt") else ([bound], [])

    def depends(self, name: str) -> bool:
        """Whether a value depends on which column it is of."""
        let = self.lets.get(name)
        return let is not None and self.column in let.type.axes

    def shift(self, name: str) -> str | None:
        """What is added to the position of a column; "" for nothing, None if it is no position."""
        let = self.lets[name]
        match let.expr:
            case ir.Coord(axis) if axis == self.column:
                return ""
            case ir.Map("cast", (arg,)) if let.type.dtype.kind == "int":
                return self.shift(arg)
            case ir.Map("add", (a, b)):
                if self.depends(b):
                    a, b = b, a
                inner, scalar = self.shift(a), self.extreme(b, "min") if not self.lets[b].type.axes else None
                if inner is None or scalar is None:
                    return None
                return self.let("shift", ir.Map("add", (inner, scalar))) if inner else scalar
        return None

    def extreme(self, name: str, which: str) -> str | None:
        """The smallest or largest element of an integer value over all rows of a block, as i64; None if unknown."""
        let = self.lets.get(name)
        if let is None or let.type.dtype.kind != "int":
            return None
        if name in self.outside and let.type == _I64:
            return name
        other = "max" if which == "min" else "min"
        match let.expr:
            case ir.Coord(axis) if axis == self.rows.axes[-1].name:
                position = self.let("rows", ir.Coord(self.block), (self.block,))
                return self.let(f"{which}_row", ir.Reduce(which, position, self.block))
            case ir.Load(ref) if (number := self.of_rows(ref)) is not None:
                return self.over_block(let, number, which)
            case ir.Map("cast", (arg,)):
                return self.extreme(arg, which)
            case ir.Map("add" | "max" | "min" as op, (a, b)):
                parts = [self.extreme(a, which), self.extreme(b, which)]
            case ir.Map("sub" as op, (a, b)):
                parts = [self.extreme(a, which), self.extreme(b, other)]
            case ir.Full(value):
                return self.let("bound", ir.Full(value))
            case _ if not let.type.axes and name in self.outside:
                return self.let("bound", ir.Map("cast", (name,)))
            case _:
                return None
        if any(p is None for p in parts):
            return None
        return self.let("bound", ir.Map(op, tuple(str(p) for p in parts)))

    def of_rows(self, ref: ir.Ref) -> ir.Ref | None:
        """Where a number of each row lies, by the rows of a block: in a tensor, or in registers filled from one."""
        rows = self.rows.axes[-1].name
        if ref.buffer in {p.name for p in self.kernel.params}:
            return ir.Ref(ref.buffer, tuple(self.block if i == rows else i for i in ref.index))
        begun = [s for s in ir.walk(self.kernel.body) if isinstance(s, ir.Store) and s.ref.buffer == ref.buffer]
        filled = {
            s.name: s.expr for s in ir.walk(self.kernel.body) if isinstance(s, ir.Let) and s.name == begun[0].value
        }
        (source,) = filled.values() if len(begun) == 1 and filled else (None,)
        return self.of_rows(source.ref) if isinstance(source, ir.Load) else None

    def over_block(self, let: ir.Let, ref: ir.Ref, which: str) -> str:
        """An extreme of what a tensor holds for the rows of a block."""
        loaded = self.let("of_block", ir.Load(ref), (self.block,), let.type.dtype)
        found = self.let(f"{which}_of_block", ir.Reduce(which, loaded, self.block), (), let.type.dtype)
        return self.let("bound", ir.Map("cast", (found,)))

    @property
    def outside(self) -> set[str]:
        grid = self.kernel.body[0]
        assert isinstance(grid, ir.Loop)
        return {s.name for s in grid.body if isinstance(s, ir.Let)}

    def joined(self, op: str, found: list[str], name: str) -> str:
        result = found[0]
        for other in found[1:]:
            result = self.let(name, ir.Map(op, (result, other)))
        return result

    def let(self, name: str, expr: ir.Expr, axes: tuple[str, ...] = (), of: DType = _I64.dtype) -> str:
        """A new value before the loop; the same one again where it is there."""
        type_ = ir.TileType(of, axes)
        for s in self.made:
            if isinstance(s, ir.Let) and s.expr == expr and s.type == type_:
                return s.name
        new = fresh(name, self.taken)
        self.made.append(ir.Let(new, type_, expr))
        return new


__all__ = ["free_columns"]
