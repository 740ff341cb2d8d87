"""Stage `pack`: operands of dots are copied, before the loops, into the order in which tiles read them."""

from __future__ import annotations

from dataclasses import replace

from tilewright.design.design import Design
from tilewright.language import ir
from tilewright.lower.structure import axes, fresh, lets, loads, names, rewrite

# Points of the reduced axis that one copy moves: a register block transposes them in one go.
_DEPTH = {"panel": 16, "pair": 32, "quad": 64, "tile": 32}


def pack(kernel: ir.Kernel, design: Design) -> ir.Kernel:
    """
    before:  for ... { ... b0 = load b[n, k] ... }
    after:   alloc b_packed : f32[N, K] @layout=panel @place=panel
             for n1 in N step 32, k1 in K step 16 parallel { copy b_packed[n1, k1] <- b[n1, k1] @lanes=n1 }
             sync b_packed barrier @scope=team
             for ... { ... b0 = load b_packed[n, k] ... }
    """
    taken = names(kernel)
    for tensor, layout in design.prefixed("pack"):
        kernel = _packed(kernel, tensor, str(layout), design, taken)
    return kernel


def _packed(kernel: ir.Kernel, tensor: str, layout: str, design: Design, taken: set[str]) -> ir.Kernel:
    load, ref = next((let, ref) for let, ref in loads(kernel) if ref.buffer == tensor)
    lane, depth = operand_axes(kernel, load)
    buffer = fresh(f"{tensor}_packed", taken)
    loop_axes, rename = _copy_axes(kernel, ref, lane, depth, layout, design, taken)
    index = tuple(rename.get(i, i) if isinstance(i, str) else i for i in ref.index)
    param = kernel.param(tensor)
    assert param.dims is not None
    element = "f32" if design.get(f"unpack.{tensor}") else param.dtype.name
    alloc = ir.Alloc(buffer, ir_dtype(element), param.dims, (("layout", layout), ("place", "panel")))
    copy = ir.Copy(ir.Ref(buffer, index), ir.Ref(tensor, index), (("lanes", rename[lane]),))
    fill = ir.Loop(loop_axes, (copy,), parallel=True, notes=(("bind", "thread"),))
    wait = ir.Sync(buffer, "barrier", (("scope", "team"),))

    def change(stmt: ir.Stmt) -> ir.Stmt:
        if isinstance(stmt, ir.Let) and isinstance(stmt.expr, ir.Load) and stmt.expr.ref.buffer == tensor:
            type_ = replace(stmt.type, dtype=alloc.dtype)
            return replace(stmt, type=type_, expr=ir.Load(replace(stmt.expr.ref, buffer=buffer)))
        return stmt

    at = next(n for n, s in enumerate(kernel.body) if isinstance(s, ir.Loop))
    body = (*kernel.body[:at], alloc, fill, wait, *rewrite(kernel.body[at:], change))
    lanes = ir.note(kernel.notes, "lanes", ())
    assert isinstance(lanes, tuple)
    return replace(kernel, body=body, notes=ir.with_notes(kernel.notes, lanes=(*lanes, rename[lane], rename[depth])))


def ir_dtype(name: str):  # type: ignore[no-untyped-def]
    from tilewright.language.dtypes import dtype

    return dtype(name)


def operand_axes(kernel: ir.Kernel, load: ir.Let) -> tuple[str, str]:
    """(the axis of a dot operand that goes across lanes, the axis that the dot sums over)."""
    for let in lets(kernel).values():
        if isinstance(let.expr, ir.Dot) and load.name in (let.expr.a, let.expr.b):
            lane = next(a for a in load.type.axes if a != let.expr.axis)
            return lane, let.expr.axis
    raise AssertionError(f"{load.name} is no operand of a dot")


def _copy_axes(
    kernel: ir.Kernel, ref: ir.Ref, lane: str, depth: str, layout: str, design: Design, taken: set[str]
) -> tuple[tuple[ir.Axis, ...], dict[str, str]]:
    known, result, rename = axes(kernel), [], {}
    for i in ref.index:
        if not isinstance(i, str) or i not in known:
            continue
        axis = known[i]
        name = fresh(f"{i}_", taken)
        rename[i] = name
        root = axis.over
        while root in known:
            root = known[root].over
        step = 1 if axis.each else _DEPTH[layout] if i == depth else design.number(f"tile.{lane}")
        result.append(ir.Axis(name, root, step, each=axis.each))
    return tuple(result), rename
