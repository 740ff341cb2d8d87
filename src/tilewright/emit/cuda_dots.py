"""Dots on the matrix unit of Hopper: wgmma, both operands in shared memory, the sum in registers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tilewright.emit.cuda_plan import PANEL, Plan, c_type
from tilewright.emit.cuda_text import Text, cname
from tilewright.language import ir

if TYPE_CHECKING:
    from tilewright.emit.cuda_tiles import Tiles

ATOM_ROWS = 64
_STEP_BYTES = 32  # of the sum, that one instruction takes


def is_rows(loop: ir.Loop) -> bool:
    """Whether a loop goes over rows of the atom."""
    if (
        not loop.parallel
        or len(loop.axes) != 1
        or loop.axes[0].step != ATOM_ROWS
        or ir.note(loop.notes, "bind") == "cluster"
    ):
        return False
    return not any(isinstance(s, ir.Role) for s in ir.walk(loop.body))


def multiply(
    plan: Plan, text: Text, tiles: Tiles, rows: ir.Loop, dot: ir.Let, first: dict[str, str],
    in_flight: int | None = None,
) -> None:  # fmt: skip
    """`sum = dot` in the first iteration, `sum = sum + dot` in the others: one line of code.

    A product that is the whole of a step says how many steps may be in flight when it is issued.
    """
    assert isinstance(dot.expr, ir.Dot)
    row, depth = rows.axes[0].name, dot.expr.axis
    column = next(a for a in dot.type.axes if a != row)
    loads = {s.name: s for s in rows.body if isinstance(s, ir.Let) and isinstance(s.expr, ir.Load)}
    operands = [loads[n] for n in (dot.expr.a, dot.expr.b)]
    operands.sort(key=lambda let: row not in let.type.axes)
    target = next(
        s
        for w in rows.body
        if isinstance(w, ir.When)
        for s in w.body
        if isinstance(s, ir.Store) and s.value == dot.name
    )
    dtype = operands[0].type.dtype
    kind = dot.expr.precision or c_type(dtype.name)
    steps = plan.extent(depth) * dtype.bits // 8 // _STEP_BYTES
    a, b = (_operand(plan, tiles, let, row, rows, depth) for let in operands)
    keep = f"{cname(depth)} > {first[depth]}"
    sums = tiles.register(target.ref.buffer)
    tiles.live.append(target.ref.buffer)
    if in_flight is None:
        text.line(f"multiply<{kind}, {plan.extent(column)}, {steps}>({sums}.v, {a}, {b}, {keep});")
    else:
        text.line(f"multiply_step<{in_flight}, {kind}, {steps}>({sums}, {a}, {b}, {keep});")


def _operand(plan: Plan, tiles: Tiles, let: ir.Let, row: str, rows: ir.Loop, depth: str) -> str:
    """C++ of where an operand lies; rows of the atom begin further on in the block's part."""
    assert isinstance(let.expr, ir.Load)
    ref = let.expr.ref
    ring = plan.rings[ref.buffer]
    place = f"{cname(ref.buffer)}[slot]"
    along = ref.index[-1] == depth
    if row in ref.index:
        over = cname(rows.axes[0].over)
        # 64 rows of 128 bytes, or the next panel, 64 elements wide.
        size = PANEL if along else ring.rows * PANEL // ATOM_ROWS
        if tiles.turns(rows) > 1:
            place += f" + ({cname(row)} - {over}) * {size}"
        elif tiles.dealt(rows):
            place += f" + group * {ATOM_ROWS * size}"
    return f"{'SumInRows' if along else 'SumDownRows'}<{ring.rows}>({place})"
