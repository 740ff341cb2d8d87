"""Stage `pack`: operands of dots are copied, before the loops, into the order in which tiles read them."""

from __future__ import annotations

from dataclasses import dataclass, replace

from tilewright.design.design import Design
from tilewright.design.panels import ROWS, copied_depth
from tilewright.language import ir
from tilewright.language.dtypes import dtype
from tilewright.language.structure import axes, fresh, lets, loads, names, rewrite


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
        if not design.get(f"local.{tensor}"):
            kernel = _packed(kernel, tensor, str(layout), design, taken)
    return kernel


def pack_locally(kernel: ir.Kernel, design: Design) -> ir.Kernel:
    """The same inside the cache blocks: a panel is as large as a block, one thread's own, and never leaves its caches.

    before:  for m0 in M, n0 in N parallel { for k0 in K { for n in n0, m in m0 { ... load b[n, k] ... } } }
    after:   for m0 in M, n0 in N parallel { for k0 in K {
               alloc b_packed : f32[n0, k0] @layout=panel @place=panel
               for n1 in n0 step 32, k1 in k0 step 16 parallel { copy b_packed[n1, k1] <- b[n1, k1] @lanes=n1 }
               for n in n0, m in m0 { ... load b_packed[n, k] ... } } }
    """
    taken = names(kernel)
    for tensor, layout in design.prefixed("pack"):
        if design.get(f"local.{tensor}"):
            panel = _Panel.of(kernel, tensor, str(layout), design, taken, local=True)
            kernel = _noted(replace(kernel, body=_placed(kernel.body, panel)), panel)
    return kernel


@dataclass(frozen=True)
class _Panel:
    """A packed copy of a tensor: the buffer, the loop that fills it, the axis that runs along its depth."""

    tensor: str
    alloc: ir.Alloc
    fill: ir.Loop
    depth: str
    kept: tuple[int, ...]  # dimensions of the tensor that the buffer has

    @classmethod
    def of(cls, kernel: ir.Kernel, tensor: str, layout: str, design: Design, taken: set[str], *, local: bool) -> _Panel:
        load, ref = next((let, ref) for let, ref in loads(kernel) if ref.buffer == tensor)
        lane, depth = operand_axes(kernel, load)
        buffer = fresh(f"{tensor}_packed", taken)
        axes_, rename = _copy_axes(kernel, ref, lane, depth, layout, design, taken, local)
        source = ir.Ref(tensor, tuple(rename.get(i, i) if isinstance(i, str) else i for i in ref.index))
        param = kernel.param(tensor)
        assert param.dims is not None
        dims, index, kept = param.dims, source.index, tuple(range(len(param.dims)))
        if local:
            dims, index = tuple(a.over for a in axes_), tuple(a.name for a in axes_)
            kept = tuple(source.index.index(a.name) for a in axes_)
        element = dtype("f32") if design.get(f"unpack.{tensor}") else param.dtype
        alloc = ir.Alloc(buffer, element, dims, (("layout", layout), ("place", "panel")))
        fill = _fill(axes_, ir.Ref(buffer, index), source, rename[lane], taken, local)
        return cls(tensor, alloc, fill, rename[depth], kept)

    def read_instead(self, stmt: ir.Stmt) -> ir.Stmt:
        """A load of the tensor as a load of the panel."""
        if isinstance(stmt, ir.Let) and isinstance(stmt.expr, ir.Load) and stmt.expr.ref.buffer == self.tensor:
            index = tuple(stmt.expr.ref.index[d] for d in self.kept)
            type_ = replace(stmt.type, dtype=self.alloc.dtype)
            return replace(stmt, type=type_, expr=ir.Load(ir.Ref(self.alloc.name, index)))
        return stmt


def _packed(kernel: ir.Kernel, tensor: str, layout: str, design: Design, taken: set[str]) -> ir.Kernel:
    panel = _Panel.of(kernel, tensor, layout, design, taken, local=False)
    wait = ir.Sync(panel.alloc.name, "barrier", (("scope", "team"),))
    at = next(n for n, s in enumerate(kernel.body) if isinstance(s, ir.Loop))
    rest = rewrite(kernel.body[at:], panel.read_instead)
    return _noted(replace(kernel, body=(*kernel.body[:at], panel.alloc, panel.fill, wait, *rest)), panel)


def _noted(kernel: ir.Kernel, panel: _Panel) -> ir.Kernel:
    """The axes of a copy may go across lanes, after all others."""
    lanes = ir.note(kernel.notes, "lanes", ())
    assert isinstance(lanes, tuple)
    more = (*_copied_along(panel.fill), panel.depth)
    return replace(kernel, notes=ir.with_notes(kernel.notes, lanes=(*lanes, *more)))


def _placed(body: tuple[ir.Stmt, ...], panel: _Panel) -> tuple[ir.Stmt, ...]:
    """The panel before the loop over the tiles of a block that read the tensor."""
    result: list[ir.Stmt] = []
    for stmt in body:
        if isinstance(stmt, ir.Loop) and _visits_tiles(stmt, panel):
            result += [panel.alloc, panel.fill, *rewrite((stmt,), panel.read_instead)]
        elif isinstance(stmt, ir.Loop):
            result.append(replace(stmt, body=_placed(stmt.body, panel)))
        else:
            result.append(stmt)
    return tuple(result)


def _visits_tiles(loop: ir.Loop, panel: _Panel) -> bool:
    """Whether a loop runs over the range that the panel covers."""
    return any(a.over in panel.alloc.dims for a in loop.axes) and any(
        isinstance(s, ir.Let) and isinstance(s.expr, ir.Load) and s.expr.ref.buffer == panel.tensor
        for s in ir.walk(loop.body)
    )


def _copied_along(fill: ir.Loop) -> tuple[str, ...]:
    return tuple(str(ir.note(s.notes, "lanes")) for s in ir.walk(fill.body) if isinstance(s, ir.Copy))


def _fill(axes_: tuple[ir.Axis, ...], dst: ir.Ref, src: ir.Ref, lane: str, taken: set[str], local: bool) -> ir.Loop:
    """The loop that copies; a panel of several register blocks is filled block by block, which is less code."""
    width = next(a.step for a in axes_ if a.name == lane)
    assert width is not None
    body: ir.Stmt
    if width > ROWS and width % ROWS == 0:
        part = fresh(f"{lane}r", taken)
        rows = [replace(r, index=tuple(part if i == lane else i for i in r.index)) for r in (dst, src)]
        copy = ir.Copy(rows[0], rows[1], (("lanes", part),))
        body = ir.Loop((ir.Axis(part, lane, ROWS),), (copy,), parallel=True)
    else:
        body = ir.Copy(dst, src, (("lanes", lane),))
    return ir.Loop(axes_, (body,), parallel=True, notes=() if local else (("bind", "thread"),))


def operand_axes(kernel: ir.Kernel, load: ir.Let) -> tuple[str, str]:
    """(the axis of a dot operand that goes across lanes, the axis that the dot sums over)."""
    for let in lets(kernel).values():
        if isinstance(let.expr, ir.Dot) and load.name in (let.expr.a, let.expr.b):
            lane = next(a for a in load.type.axes if a != let.expr.axis)
            return lane, let.expr.axis
    raise AssertionError(f"{load.name} is no operand of a dot")


def _copy_axes(
    kernel: ir.Kernel, ref: ir.Ref, lane: str, depth: str, layout: str, design: Design, taken: set[str], local: bool
) -> tuple[tuple[ir.Axis, ...], dict[str, str]]:
    known, result, rename, itemsize = axes(kernel), [], {}, kernel.param(ref.buffer).dtype.bytes
    for i in ref.index:
        if not isinstance(i, str) or i not in known:
            continue
        axis = known[i]
        if local and axis.each:
            continue
        name = fresh(f"{i}_", taken)
        rename[i] = name
        root = axis.over
        while root in known and not local:
            root = known[root].over
        step = copied_depth(layout, itemsize) if i == depth else design.number(f"tile.{lane}", 1)
        result.append(ir.Axis(name, root, None if axis.each else step, each=axis.each))
    return tuple(result), rename
