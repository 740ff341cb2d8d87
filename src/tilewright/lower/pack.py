"""Stage `pack`: operands of dots are copied, before the loops, into the order in which tiles read them."""

from __future__ import annotations

from dataclasses import replace

from tilewright.design.design import Design
from tilewright.language import ir
from tilewright.language.dtypes import dtype
from tilewright.language.structure import axes, fresh, lets, loads, names, rewrite

# Rows that one copy turns into lanes at a time.
_ROWS = 16
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
    alloc = ir.Alloc(buffer, dtype(element), param.dims, (("layout", layout), ("place", "panel")))
    fill = _fill(loop_axes, ir.Ref(buffer, index), ir.Ref(tensor, index), rename[lane], taken)
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
    return replace(
        kernel, body=body, notes=ir.with_notes(kernel.notes, lanes=(*lanes, *_copied_along(fill), rename[depth]))
    )


def _copied_along(fill: ir.Loop) -> tuple[str, ...]:
    return tuple(str(ir.note(s.notes, "lanes")) for s in ir.walk(fill.body) if isinstance(s, ir.Copy))


def _fill(axes_: tuple[ir.Axis, ...], dst: ir.Ref, src: ir.Ref, lane: str, taken: set[str]) -> ir.Loop:
    """The loop that copies; a panel of several register blocks is filled block by block, which is less code."""
    width = next(a.step for a in axes_ if a.name == lane)
    assert width is not None
    body: ir.Stmt
    if width > _ROWS and width % _ROWS == 0:
        part = fresh(f"{lane}r", taken)
        index = tuple(part if i == lane else i for i in dst.index)
        copy = ir.Copy(replace(dst, index=index), replace(src, index=index), (("lanes", part),))
        body = ir.Loop((ir.Axis(part, lane, _ROWS),), (copy,), parallel=True)
    else:
        body = ir.Copy(dst, src, (("lanes", lane),))
    return ir.Loop(axes_, (body,), parallel=True, notes=(("bind", "thread"),))


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
        step = None if axis.each else _DEPTH[layout] if i == depth else design.number(f"tile.{lane}", 1)
        result.append(ir.Axis(name, root, step, each=axis.each))
    return tuple(result), rename
