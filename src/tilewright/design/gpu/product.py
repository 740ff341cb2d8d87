"""A product as the matrix unit wants it: one nest, two tiles of parallel axes, operands straight from memory."""

from __future__ import annotations

from dataclasses import dataclass

from tilewright.design.default import Facts
from tilewright.language import ir, structure


@dataclass(frozen=True)
class Operand:
    """What a dot multiplies: the tensor, and its axis that the result keeps."""

    tensor: str
    axis: str
    ref: ir.Ref


@dataclass(frozen=True)
class Product:
    """Rows m by columns n, summed over k, once for each of the single positions `each`."""

    m: ir.Axis
    n: ir.Axis
    k: ir.Axis
    each: tuple[ir.Axis, ...]
    dots: tuple[ir.Let, ...]
    operands: tuple[Operand, ...]
    dtype: str  # of what is multiplied: f32 that may be taken with fewer bits is tf32
    outputs: tuple[str, ...]
    result_dtype: str
    unit_dims: tuple[tuple[str, int], ...]  # of each output: the dimension along n
    after: tuple[ir.Stmt, ...] = ()  # what follows the sums
    widths: tuple[tuple[str, int], ...] = ()  # bits of each tensor's elements

    @property
    def bits(self) -> dict[str, int]:
        """Bits of an element of each tensor."""
        return dict(self.widths)

    def unit_column(self, tensor: str, facts: Facts) -> bool:
        """Whether columns of a result lie side by side in memory."""
        return dict(self.unit_dims).get(tensor) in facts.unit.get(tensor, ())

    def size(self, axis: ir.Axis, facts: Facts, default: int = 4096) -> int:
        """Size of an axis' dimension, where it is known."""
        return facts.sizes.get(axis.over, default)

    @property
    def itemsize(self) -> int:
        """Bytes of an element of the operands."""
        return {"bf16": 2, "f16": 2, "f32": 4, "tf32": 4, "f8e4m3": 1, "i8": 1}.get(self.dtype, 8)

    def runs_along_sum(self, operand: Operand, facts: Facts) -> bool:
        """Whether the tensor of an operand has stride one along the sum."""
        return operand.ref.index.index(self.k.name) in facts.unit.get(operand.tensor, ())


@structure.asked_once
def product(kernel: ir.Kernel) -> Product | str:
    """The product that a program is; or why the matrix unit cannot take it as one."""
    nests = structure.nests(kernel)
    if len(nests) != 1 or len(kernel.body) != 1 or not nests[0].loop.parallel:
        return "the program is not one nest of parallel loops"
    nest = nests[0]
    tiles = [a for a in nest.loop.axes if not a.each]
    if nest.main is None or len(tiles) != 2 or not nest.dots:
        return "there is no single loop over a whole sum between two axes of a result"
    k = nest.main.axes[0]
    if any(not isinstance(d.expr, ir.Dot) or d.expr.axis != k.name or d not in nest.main.body for d in nest.dots):
        return f"not every product is summed over {k.name}"
    problem = _not_plain(nest.main, nest.dots) or _bounded(nest.loop.axes)
    if problem:
        return problem
    operands = tuple(_operands(nest.main, nest.dots, k.name))
    lets = {s.name: s for s in nest.main.body if isinstance(s, ir.Let)}
    first = nest.dots[0].expr
    assert isinstance(first, ir.Dot)
    stores = tuple(dict.fromkeys(s.ref.buffer for s in ir.walk(nest.loop.body) if isinstance(s, ir.Store)))
    each = tuple(a for a in nest.loop.axes if a.each)
    m, n = (next(a for a in tiles if a.name == x) for x in nest.dots[0].type.axes)
    refs = [s.ref for s in ir.walk(nest.loop.body) if isinstance(s, ir.Store)]
    along = tuple((r.buffer, r.index.index(n.name)) for r in refs if n.name in r.index)
    result = kernel.param(stores[0]).dtype.name if stores else ""
    body = nest.loop.body
    after = tuple(body[body.index(nest.main) + 1 :]) if nest.main in body else ()
    widths = tuple((x.name, x.dtype.bits) for x in kernel.params if x.dims is not None)
    # What every dot may take with fewer bits is multiplied by the units that have no more.
    short = {d.expr.precision for d in nest.dots if isinstance(d.expr, ir.Dot)}
    dtype = short.pop() if len(short) == 1 and "" not in short else lets[first.a].type.dtype.name
    return Product(m, n, k, each, nest.dots, operands, dtype, stores, result, along, after, widths)


def _bounded(axes: tuple[ir.Axis, ...]) -> str | None:
    cut = [a.name for a in axes if a.start is not None or a.stop is not None]
    return f"{cut[0]} covers a part of its dimension" if cut else None


def _not_plain(main: ir.Loop, dots: tuple[ir.Let, ...]) -> str | None:
    """Why the main loop does more than load, multiply and add up."""
    lets = {s.name: s for s in main.body if isinstance(s, ir.Let)}
    carried = {s.name for s in main.body if isinstance(s, ir.Assign)}
    names = {d.name for d in dots}
    for s in main.body:
        match s:
            case ir.Assign() | ir.Let(_, _, ir.Dot()):
                pass
            case ir.Let(name, type_, ir.Load(ref)):
                if len(type_.axes) != 2 or any(i in lets for i in ref.index):
                    return f"{name} is no plain tile of a tensor"
            case ir.Let(name, _, ir.Map("add", (x, y))):
                if not ({x, y} & carried and {x, y} & names):
                    return f"{name} is more than a sum of products"
            case _:
                return "the loop over the sum does more than load, multiply and add up"
    for d in dots:
        assert isinstance(d.expr, ir.Dot)
        for operand in (d.expr.a, d.expr.b):
            if operand not in lets or not isinstance(lets[operand].expr, ir.Load):
                return f"{operand} is computed before it is multiplied"
    return None


def _operands(main: ir.Loop, dots: tuple[ir.Let, ...], depth: str) -> list[Operand]:
    lets = {s.name: s for s in main.body if isinstance(s, ir.Let)}
    found: dict[str, Operand] = {}
    for d in dots:
        assert isinstance(d.expr, ir.Dot)
        for name in (d.expr.a, d.expr.b):
            let = lets[name]
            assert isinstance(let.expr, ir.Load)
            axis = next(a for a in let.type.axes if a != depth)
            found.setdefault(name, Operand(let.expr.ref.buffer, axis, let.expr.ref))
    return list(found.values())
