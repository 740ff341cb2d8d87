"""What GPUs compute element by element: instructions, the special unit's among them, requests for rows at odd places.

    cycles of an SM = |instructions / 128, special functions / 16|,   requests * cycles of each

Counted from the program. A statement costs its instructions for every element of its tile, and at least once for every
thread: what belongs to a row is computed by all threads that share it. Tiles are computed whole, masked at their ends.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from tilewright.design.cost.gpu_epilogue import INSTRUCTIONS, LANES, SPECIAL
from tilewright.design.cost.gpu_grid import cluster_of, threads_of, tile
from tilewright.design.cost.gpu_product import size_of
from tilewright.design.cost.gpu_rates import joined
from tilewright.design.cost.program import Program
from tilewright.design.default import Facts
from tilewright.design.design import Design
from tilewright.language import ir, structure

WIDE = 16  # bytes of the widest access of a thread
_WARP = 32
_CONVERTED = 64.0  # conversions of single elements that an SM issues in a cycle, as stated; not measured
WIDENED = 2 / _CONVERTED + 1.25 / LANES
"""Cycles of an SM for an element of 8 bits that becomes one of bf16: for two of them a conversion to two of f16, two to
f32 and one to two of bf16, a shift, a mask and half a permutation (SASS of attention)."""
_START = 40  # instructions of a thread before and after its elements: its place, addresses, bounds (SASS of silu)
_ACCESS = 2  # an access and its address, which single elements find beside the one before
_SHUFFLES = 2 * 5  # a sum over the lanes of a warp
_SLOTS = 8  # a sum over the warps of a block, and one for each of them


@dataclass(frozen=True)
class Work:
    """Of all blocks: instructions of single threads, special functions, and requests of warps for rows that lie beside
    multiples of 16 bytes."""

    own: float = 0.0
    special: float = 0.0
    beside: float = 0.0

    def __add__(self, other: Work) -> Work:
        return Work(self.own + other.own, self.special + other.special, self.beside + other.beside)

    def times(self, count: float) -> Work:
        """As much `count` times."""
        return Work(self.own * count, self.special * count, self.beside * count)

    @property
    def cycles(self) -> float:
        """Cycles of one SM that has all of it to issue; other warps issue while some wait for the special unit."""
        return joined((self.own + self.special) / LANES, self.special / SPECIAL)


def work_of(program: Program, design: Design, facts: Facts) -> Work:
    """All that a program without dots computes and asks for."""
    return sum((_nest(program, nest, design, facts) for nest in program.nests), Work())


def _nest(program: Program, nest: structure.Nest, design: Design, facts: Facts) -> Work:
    blocks = math.prod(-(-size_of(program, facts, a.name) // _step(program, design, a)) for a in nest.loop.axes)
    shared, count = cluster_of(nest, design), threads_of(design)
    inside = Work(_START * count * shared)
    for stmt, trips in _statements(program, nest.loop.body, design, facts, 1):
        inside += _statement(program, stmt, design, facts).times(max(shared, trips))
    for held, rounds in sums_of(program, nest, facts):
        inside += Work(rounds * held * shared * count * (_SHUFFLES + _SLOTS + count // _WARP))
    return inside.times(blocks)


def sums_of(program: Program, nest: structure.Nest, facts: Facts) -> list[tuple[int, int]]:
    """Reductions that threads of a nest join: results that each of them holds, and how many rounds do so.

    What is summed along the neighbours of an access leaves one result; across them, one for each neighbour.
    """
    return list(_sums(program, nest.loop.body, facts, 1))


def _sums(program: Program, body: tuple[ir.Stmt, ...], facts: Facts, rounds: int) -> Iterator[tuple[int, int]]:
    for loop in (s for s in body if isinstance(s, ir.Loop)):
        again = math.prod(size_of(program, facts, a.name) for a in loop.axes if a.each)
        yield from _sums(program, loop.body, facts, rounds * again)
        for let in (s for s in loop.body if isinstance(s, ir.Let)):
            if isinstance(let.expr, ir.Reduce):
                last = program.values[let.expr.arg].type.axes[-1]
                yield 1 if let.expr.axis == last else WIDE // program.values[let.expr.arg].type.dtype.bytes, rounds


def _step(program: Program, design: Design, axis: ir.Axis) -> int:
    return 1 if axis.each else tile(design, program.alike.get(axis.name, axis.name))


def _statements(
    program: Program, body: tuple[ir.Stmt, ...], design: Design, facts: Facts, trips: int
) -> Iterator[tuple[ir.Let | ir.Store, int]]:
    """Statements with how often a block, or the blocks of a cluster together, come to each."""
    for stmt in body:
        if isinstance(stmt, ir.Loop):
            more = math.prod(-(-size_of(program, facts, a.name) // _step(program, design, a)) for a in stmt.axes)
            yield from _statements(program, stmt.body, design, facts, trips * more)
        elif isinstance(stmt, (ir.Let, ir.Store)):
            yield stmt, trips


def _statement(program: Program, stmt: ir.Let | ir.Store, design: Design, facts: Facts) -> Work:
    """One statement on one tile, by all threads of a block."""
    if isinstance(stmt, ir.Store):
        return _access(program, stmt.ref, program.values[stmt.value].type.axes, design, facts)
    axes, expr = stmt.type.axes, stmt.expr
    if isinstance(expr, ir.Load):
        return _access(program, expr.ref, axes, design, facts)
    if isinstance(expr, ir.Reduce):
        masked = size_of(program, facts, expr.axis) % tile(design, expr.axis) != 0
        added = 0 if expr.op == "sum" and _is_product(program, expr.arg) else 1
        return Work(_points(program, program.values[expr.arg].type.axes, design, facts)).times(added + masked)
    if isinstance(expr, ir.Coord):
        return Work(_points(program, axes, design, facts))
    if not isinstance(expr, ir.Map):
        return Work()
    own, special = _operation(program, stmt, expr)
    points = _points(program, axes, design, facts)
    return Work(own * points, special * points)


def _operation(program: Program, let: ir.Let, expr: ir.Map) -> tuple[float, float]:
    """Instructions of one element: pairs are rounded to 16 bits at once, integers are counted as they are."""
    if expr.op == "cast":
        before = program.values[expr.args[0]].type.dtype if expr.args[0] in program.values else let.type.dtype
        if before.kind != "float" or let.type.dtype.kind != "float":
            return 0.0, 0.0
        return (0.5 if let.type.dtype.bytes < before.bytes else 1.0), 0.0
    if expr.op in ("add", "sub") and any(_is_product(program, a) for a in expr.args):
        return 0.0, 0.0
    return INSTRUCTIONS.get(expr.op, (1, 0))


def _is_product(program: Program, name: str) -> bool:
    """Whether a value is a product, to which the instruction that multiplies adds another."""
    let = program.values.get(name)
    return let is not None and isinstance(let.expr, ir.Map) and let.expr.op == "mul"


def _points(program: Program, axes: tuple[str, ...], design: Design, facts: Facts) -> float:
    """Elements of a tile with these axes, and at least one for each thread."""
    known = program.axes
    extents = (tile(design, program.alike.get(a, a)) if a in known else size_of(program, facts, a) for a in axes)
    return float(max(threads_of(design), math.prod(extents)))


def _access(program: Program, ref: ir.Ref, axes: tuple[str, ...], design: Design, facts: Facts) -> Work:
    """A load or a store of a tensor; what lies in registers costs nothing."""
    if ref.buffer in program.scratch:
        return Work()
    requests = _points(program, axes, design, facts) / width(program, ref.buffer, design, facts)
    beside = axes and not _aligned(program, ref.buffer, facts)
    return Work((1 if beside else _ACCESS) * requests, 0.0, requests / _WARP if beside else 0.0)


def width(program: Program, tensor: str, design: Design, facts: Facts) -> int:
    """Elements that one access of a thread moves: as decided, and as the addresses of its rows allow.

    Rows that are stored decide for all that lie along the same dimension: no thread has more neighbours than it stores
    at once.
    """
    own, last = _fits(program, tensor, design, facts), (program.kernel.param(tensor).dims or (None,))[-1]
    stored = {s.ref.buffer for s in ir.walk(program.kernel.body) if isinstance(s, ir.Store)}
    along = [t for t in stored if t not in program.scratch and (program.kernel.param(t).dims or (None,))[-1] == last]
    return min([own, *(_fits(program, t, design, facts) for t in along)])


def _fits(program: Program, tensor: str, design: Design, facts: Facts) -> int:
    size, row = program.kernel.param(tensor).dtype.bytes, _row(program, tensor, facts)
    apart = math.gcd(row, WIDE) if row % WIDE else size  # rows that could all be aligned begin beside it
    together = WIDE if _aligned(program, tensor, facts) else apart
    return max(1, min(design.number(f"vec.{tensor}", 1), together // size))


def _aligned(program: Program, tensor: str, facts: Facts) -> bool:
    """Whether every row of a tensor starts at a multiple of the widest access."""
    dims = program.kernel.param(tensor).dims or ()
    return tensor in facts.aligned and (len(dims) < 2 or _row(program, tensor, facts) % WIDE == 0)


def _row(program: Program, tensor: str, facts: Facts) -> int:
    """Bytes of a row of a tensor."""
    param = program.kernel.param(tensor)
    last = (param.dims or (1,))[-1]
    return param.dtype.bytes * (facts.sizes.get(last, 1) if isinstance(last, str) else last)


def of_products(program: Program, design: Design, facts: Facts) -> float:
    """Cycles of one SM for all that is computed element by element inside serial loops, beside the matrix unit.

    One warp's softmax is a chain: its instructions and those of the special unit follow each other.
    """
    inner = [(nest.loop, s) for nest in program.nests for s in nest.loop.body if isinstance(s, ir.Loop)]
    return sum(_cycles(program, s, (outer,), design, facts) for outer, s in inner)


def _whole(outer: ir.Loop, axes: tuple[str, ...], design: Design) -> float:
    """What is computed over what is wanted of a value in the layout of `mma`, which has 16 rows by 8 columns: a tile
    has no fewer rows, or columns where its operands change places."""
    if "mma" not in {atom for _, atom in design.prefixed("atom")}:
        return 1.0
    rows = math.prod(tile(design, a.name) for a in outer.axes if not a.each and a.name in axes)
    least = 8 if design.get("swap") else 16
    return -(-rows // least) * least / rows if set(axes) & {a.name for a in outer.axes} else 1.0


def widened(program: Program, let: ir.Let) -> bool:
    """Whether a statement makes elements of 16 bits or more of those of 8."""
    if not (isinstance(let.expr, ir.Map) and let.expr.op == "cast" and let.expr.args[0] in program.values):
        return False
    return program.values[let.expr.args[0]].type.dtype.bytes == 1 < let.type.dtype.bytes


def _cycles(program: Program, stmt: ir.Stmt, around: tuple[ir.Loop, ...], design: Design, facts: Facts) -> float:
    if isinstance(stmt, ir.Loop):
        return sum(_cycles(program, s, (*around, stmt), design, facts) for s in stmt.body)
    if not isinstance(stmt, ir.Let) or not isinstance(stmt.expr, (ir.Map, ir.Reduce)):
        return 0.0
    reduced = isinstance(stmt.expr, ir.Reduce)
    axes = program.values[stmt.expr.arg].type.axes if isinstance(stmt.expr, ir.Reduce) else stmt.type.axes
    times = float(math.prod(size_of(program, facts, a) for a in axes))
    for axis in (a for loop in around for a in loop.axes if a.name not in axes):
        size = size_of(program, facts, axis.name)
        times *= size if axis.each else -(-size // tile(design, axis.name))
    if widened(program, stmt):
        return times * WIDENED
    times *= _whole(around[0], axes, design)
    own, special = (1, 0) if reduced or not isinstance(stmt.expr, ir.Map) else INSTRUCTIONS.get(stmt.expr.op, (1, 0))
    return times * (own / LANES + special / SPECIAL)


__all__ = ["WIDENED", "Work", "of_products", "sums_of", "widened", "width", "work_of"]
