"""Stage `place`: what stands still in the cells, what waits in front of them, sums in accumulators; a role for each."""

from __future__ import annotations

from dataclasses import dataclass, replace

from tilewright.design.design import Design
from tilewright.design.systolic.shape import Shape
from tilewright.language import ir
from tilewright.language.structure import fresh, names
from tilewright.lower.gpu.rename import renamed

DMA: ir.Notes = (("engine", "dma"),)


def place(kernel: ir.Kernel, shape: Shape, design: Design) -> ir.Kernel:
    """
    before:  for m { for n { acc = full 0; for k { x = load a[m, k]; w = load b[n, k]; ... }; store c[m, n] = acc } }
    after:   for m { alloc ub @place=scratch; copy ub <- a[m, K]
               for n { alloc acc @place=accumulator
                 for k { alloc fifo @place=scratch; alloc wt @place=array
                   role fetch { copy fifo <- b[n, k] }  role shift { copy wt <- fifo }  role stream { ... } }
                 role drain { out = load acc; store c[m, n] = out } } }

    Where the outputs stand still, `acc` is in the array, and both operands stream from scratch.
    """
    made = _Places(shape, design, names(kernel))

    def change(stmt: ir.Stmt) -> ir.Stmt:
        if not isinstance(stmt, ir.Loop):
            return stmt
        if stmt.axes[0].each:
            return replace(stmt, body=tuple(map(change, stmt.body)))
        return made.nest(stmt)

    return replace(kernel, body=tuple(map(change, kernel.body)))


@dataclass(frozen=True)
class _Places:
    """One folded nest: its buffers, and the roles that fill, use and empty them."""

    shape: Shape
    design: Design
    taken: set[str]

    @property
    def flow(self) -> str:
        return self.shape.dataflow(self.design)

    def nest(self, outer: ir.Loop) -> ir.Loop:
        inner = outer.body[0]
        assert isinstance(inner, ir.Loop)
        loads = {s.name: s for s in self.shape.main.body if isinstance(s, ir.Let) and isinstance(s.expr, ir.Load)}
        sums = self.shape.total  # the buffer takes the name of the value that it holds
        if self.flow == "os":
            return replace(outer, body=(self._columns(inner, sums, self._both_stream(inner, loads, sums)),))
        held, moving = self._split(loads)
        ub = self._alloc("ub", moving, whole=True)
        source = _ref(moving)
        whole = tuple(self._over(i) for i in source.index)
        copy = ir.Copy(ir.Ref(ub.name, ub.dims), ir.Ref(source.buffer, whole), DMA)
        steps = self._one_stands(inner, held, moving, ub.name, sums)
        return replace(outer, body=(ub, copy, self._columns(inner, sums, steps)))

    def _split(self, loads: dict[str, ir.Let]) -> tuple[ir.Let, ir.Let]:
        """The operand that stands still, and the one that streams."""
        expr = self.shape.dot.expr
        assert isinstance(expr, ir.Dot)
        left, right = loads[expr.a], loads[expr.b]
        return (right, left) if self.flow == "ws" else (left, right)

    # --------------------------------------------------------------------------------------- buffers
    def _alloc(self, name: str, let: ir.Let, whole: bool = False, **notes: ir.Note) -> ir.Alloc:
        """A buffer for a tile of a tensor, in the tensor's order; `whole`: along all of the sum."""
        dims = tuple(str(self._over(i)) if whole else str(i) for i in _ref(let).index if i in let.type.axes)
        made = ir.with_notes((), **{"place": "scratch", **notes})
        return ir.Alloc(fresh(name, self.taken), let.type.dtype, dims, made)

    def _over(self, index: ir.Index) -> ir.Index:
        """The whole dimension that the sum runs over, in place of its axis."""
        axis = self.shape.main.axes[0]
        return axis.over if index == axis.name else index

    def _stages(self, name: str, least: int = 1) -> int:
        return self.design.number(f"stages.{name}", least)

    # -------------------------------------------------------------------------------- loops and roles
    def _columns(self, inner: ir.Loop, sums: str, steps: ir.Loop) -> ir.Loop:
        """The loop over columns: sums, their steps, and the role that takes results out."""
        type_ = self.shape.dot.type
        stands = self.flow == "os"
        notes = ir.with_notes((), place="array" if stands else "accumulator", stages=self._stages("acc"))
        at = next(n for n, s in enumerate(inner.body) if isinstance(s, ir.Loop))
        before = tuple(s for s in inner.body[:at] if not (isinstance(s, ir.Let) and s.name == self.shape.total))
        end = fresh(f"{self.shape.total}_end", self.taken)
        out = ir.Let(end, type_, ir.Load(ir.Ref(sums, type_.axes)))
        after = (out, *renamed(inner.body[at + 1 :], {self.shape.total: end}))
        drained = tuple(map(_by_dma, after))
        drain = ir.Role("drain", (*before, *drained), (("stage", 1),))
        alloc = ir.Alloc(sums, type_.dtype, type_.axes, notes)
        return replace(inner, body=(alloc, steps, drain), notes=(("stages", self._stages("acc")),))

    def _one_stands(self, inner: ir.Loop, held: ir.Let, moving: ir.Let, ub: str, sums: str) -> ir.Loop:
        fifo = self._alloc("fifo", held, stages=self._stages("fifo"))
        cells = self._alloc("wt", held, place="array", stages=self._stages("array"))
        fetch = ir.Role("fetch", (ir.Copy(ir.Ref(fifo.name, fifo.dims), _ref(held), DMA),), (("stage", 0),))
        move = ir.Copy(ir.Ref(cells.name, cells.dims), ir.Ref(fifo.name, fifo.dims), (("engine", "plain"),))
        shift = ir.Role("shift", (move,), (("stage", 1),))
        stream = self._stream(inner, {held.name: cells.name, moving.name: ub}, sums, 2)
        return self._steps((fifo, cells, fetch, shift, stream), 3)

    def _both_stream(self, inner: ir.Loop, loads: dict[str, ir.Let], sums: str) -> ir.Loop:
        depth = self._stages("fifo")
        buffers = {name: self._alloc(f"s_{_ref(let).buffer}", let, stages=depth) for name, let in loads.items()}
        copies = tuple(ir.Copy(ir.Ref(b.name, b.dims), _ref(loads[n]), DMA) for n, b in buffers.items())
        fetch = ir.Role("fetch", copies, (("stage", 0),))
        stream = self._stream(inner, {n: b.name for n, b in buffers.items()}, sums, 1)
        return self._steps((*buffers.values(), fetch, stream), 2)

    def _steps(self, body: tuple[ir.Stmt, ...], stages: int) -> ir.Loop:
        axis = self.shape.main.axes[0]
        step = self.design.number(f"tile.{axis.name}", 1)
        return replace(self.shape.main, axes=(replace(axis, step=step),), body=body, notes=(("stages", stages),))

    def _stream(self, inner: ir.Loop, buffers: dict[str, str], sums: str, stage: int) -> ir.Role:
        """Operands from their buffers through the cells, and the sum into its buffer."""
        _, columns, _ = self.shape.roles(self.flow)
        body: list[ir.Stmt] = []
        for stmt in self.shape.main.body:
            match stmt:
                case ir.Let(name, type_, ir.Load(ref)) if name in buffers:
                    index = tuple(i for i in ref.index if i in type_.axes)
                    body.append(replace(stmt, expr=ir.Load(ir.Ref(buffers[name], index))))
                case ir.Let(name, _, ir.Dot()):
                    body.append(replace(stmt, notes=ir.with_notes((), atom="systolic", lanes=columns.name)))
                    body += self._added(sums, name)
        return ir.Role("stream", tuple(body), (("stage", stage),))

    def _added(self, sums: str, product: str) -> list[ir.Stmt]:
        type_, depth = self.shape.dot.type, self.shape.main.axes[0].name
        at = ir.Ref(sums, type_.axes)
        before, after = fresh("before", self.taken), fresh("after", self.taken)
        more = (
            ir.Let(before, type_, ir.Load(at)),
            ir.Let(after, type_, ir.Map("add", (before, product))),
            ir.Store(at, after),
        )
        return [ir.When("first", depth, (ir.Store(at, product),)), ir.When("not_first", depth, more)]


def _ref(let: ir.Let) -> ir.Ref:
    assert isinstance(let.expr, ir.Load)
    return let.expr.ref


def _by_dma(stmt: ir.Stmt) -> ir.Stmt:
    """A store leaves by the copy engine; anything else is as it was."""
    return replace(stmt, notes=ir.with_notes(stmt.notes, engine="dma")) if isinstance(stmt, ir.Store) else stmt
