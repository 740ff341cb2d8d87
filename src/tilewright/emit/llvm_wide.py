"""Which integers of 64 bits keep all of them in vector lanes, and which fit 32: positions, sizes, and sums of those.

Lanes of 32 bits are twice as many, and masks and positions are what most integers of a kernel are. What may be larger
is of type WIDE from here on: what tensors of i64 hold, what comes from floats or scalars, products, sums over an axis.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from tilewright.language import ir
from tilewright.language.dtypes import DType, i64

WIDE = DType("w64", 64, "int")
"""i64 whose vectors have lanes of 64 bits; those of i64 have lanes of 32."""

_SMALL = 2**30
"""Numbers and positions below this have sums and differences that fit."""


def widened(kernel: ir.Kernel) -> ir.Kernel:
    """`kernel` with WIDE in the place of i64 where a value may not fit 32 bits, and in all memory that holds i64."""
    wide = _wide(kernel)
    params = tuple(replace(p, dtype=_memory(p.dtype)) for p in kernel.params)
    if not wide and params == kernel.params and not any(_is_buffer(s) for s in ir.walk(kernel.body)):
        return kernel
    return replace(kernel, params=params, body=_Body(wide, kernel.body).block(kernel.body))


def _memory(dtype: DType) -> DType:
    return WIDE if dtype == i64 else dtype


def _is_buffer(stmt: ir.Stmt) -> bool:
    return isinstance(stmt, ir.Alloc) and stmt.dtype == i64


# ------------------------------------------------------------------------------------------- what is wide
def _wide(kernel: ir.Kernel) -> frozenset[str]:
    """Names of the values of i64 that may not fit 32 bits: what is made of one, or takes its value, is one too."""
    lets = {s.name: s for s in ir.walk(kernel.body) if isinstance(s, ir.Let)}
    takes = [(s.name, s.value) for s in ir.walk(kernel.body) if isinstance(s, ir.Assign)]
    whole = {n: let for n, let in lets.items() if let.type.dtype == i64}
    scalars = {p.name for p in kernel.params if p.dims is None and p.dtype == i64}
    known = scalars | {n for n, let in whole.items() if _grows(let, lets)}
    while True:
        more = {n for n, let in whole.items() if not known.isdisjoint(_made_of(let))}
        more |= {name for name, value in takes if value in known}
        if more <= known:
            return frozenset(known)
        known |= more


def _made_of(let: ir.Let) -> tuple[str, ...]:
    """The values whose bits end in that of `let`; places that it is loaded from are none."""
    return () if isinstance(let.expr, ir.Load) else ir.operands(let.expr)


def _grows(let: ir.Let, lets: dict[str, ir.Let]) -> bool:
    """Whether a value may not fit 32 bits although all that it is made of does."""
    match let.expr:
        case ir.Load():
            return True
        case ir.Full(value):
            return not isinstance(value, str) and not -_SMALL <= value < _SMALL
        case ir.Map("mul", _):
            return bool(let.type.axes)
        case ir.Map("cast", (arg,)):
            return arg in lets and lets[arg].type.dtype.kind == "float"
        case ir.Reduce("sum", _, _) | ir.Dot():
            return True
    return False


# ----------------------------------------------------------------------------------------- a program with it
class _Body:
    """Statements rewritten: what is wide is of type WIDE, and what meets it there is made so before."""

    def __init__(self, wide: frozenset[str], body: tuple[ir.Stmt, ...]) -> None:
        self._wide = wide
        self._types = {s.name: s.type for s in ir.walk(body) if isinstance(s, ir.Let)}
        self._made = 0

    def block(self, body: tuple[ir.Stmt, ...]) -> tuple[ir.Stmt, ...]:
        """The statements of a block."""
        return tuple(new for stmt in body for new in self._stmt(stmt))

    def _stmt(self, stmt: ir.Stmt) -> Iterator[ir.Stmt]:
        match stmt:
            case ir.Let(name, type_, expr):
                if name in self._wide:
                    type_ = replace(type_, dtype=WIDE)
                changed, expr = self._fed(expr, name in self._wide)
                yield from changed
                yield replace(stmt, type=type_, expr=expr)
            case ir.Assign(name, value) if name in self._wide and value not in self._wide:
                cast = self._cast(value)
                yield from (cast, ir.Assign(name, cast.name))
            case ir.Alloc():
                yield replace(stmt, dtype=_memory(stmt.dtype))
            case ir.Loop() | ir.When() | ir.Role():
                yield replace(stmt, body=self.block(stmt.body))
            case _:
                yield stmt

    def _fed(self, expr: ir.Expr, wide: bool) -> tuple[list[ir.Let], ir.Expr]:
        """An expression all of whose integers are wide if one is, or the result; and the values made for that."""
        match expr:
            case ir.Map(op, args) if op != "cast" and (wide or not self._wide.isdisjoint(args)):
                made = {a: self._cast(a) for a in dict.fromkeys(args) if self._is_narrow(a)}
                return list(made.values()), ir.Map(op, tuple(made[a].name if a in made else a for a in args))
            case ir.Reduce(op, arg, axis) if wide and self._is_narrow(arg):
                cast = self._cast(arg)
                return [cast], ir.Reduce(op, cast.name, axis)
        return [], expr

    def _is_narrow(self, name: str) -> bool:
        return name not in self._wide and (name not in self._types or self._types[name].dtype == i64)

    def _cast(self, name: str) -> ir.Let:
        self._made += 1
        axes = self._types[name].axes if name in self._types else ()
        return ir.Let(f"{name}_w{self._made}", ir.TileType(WIDE, axes), ir.Map("cast", (name,)))
