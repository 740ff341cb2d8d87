"""Axes while a program is emitted: their ranges, steps and the lanes they get."""

from __future__ import annotations

from tilewright.emit import llvm_builder as ll
from tilewright.emit.llvm_loops import Span
from tilewright.emit.llvm_values import AxisState, Context, read, uniform
from tilewright.language import ir
from tilewright.language.dtypes import i64


class Scope:
    """The axes and dims that the code being emitted can see."""

    def __init__(self, cx: Context) -> None:
        self.cx, self.b = cx, cx.b
        self.spans: dict[str, tuple[Span, int]] = {}  # range and step of each loop axis entered
        self.dims: dict[str, str] = {}  # operand of each dim

    def width(self, extent: int) -> int:
        """Lanes for an axis of that many points: a power of two, at most a register of f32."""
        width = self.cx.vector_bytes // 4
        while width // 2 >= max(1, extent):
            width //= 2
        return width

    def span(self, axis: ir.Axis) -> Span:
        parent = self.cx.axes.get(axis.over)
        if axis.over in self.spans and parent is not None and axis.over not in self.dims:
            low = parent.base
            high = ll.add(self.b, low, parent.count or str(parent.extent))
        else:
            low, high = "0", self.dims[axis.over]
        if axis.start is not None:
            low = ll.maximum(self.b, low, self._integer(axis.start))
        if axis.stop is not None:
            high = ll.minimum(self.b, high, self._integer(axis.stop))
        return Span(low, high)

    def _integer(self, atom: str | int) -> str:
        if isinstance(atom, int):
            return str(atom)
        tile = self.cx.values.get(atom)
        if tile is None:
            return self.dims[atom]
        value = read(self.cx, tile, {}, None)
        return self.b.hoist(f"sext i32 {value} to i64", value) if tile.dtype.name == "i32" else value

    def step(self, axis: ir.Axis, span: Span) -> int:
        if axis.each:
            return 1
        assert axis.step is not None, f"axis {axis.name} has no step: the program is not scheduled"
        return max(1, min(axis.step, span.length)) if span.length is not None else axis.step

    def enter_axis(self, axis: ir.Axis, span: Span, step: int, start: str, full: bool) -> None:
        count = None
        if not full and not axis.each and not divides(span, step * axis.apart):
            left = ll.ceil_div(self.b, ll.sub(self.b, span.high, start), str(axis.apart))
            count = ll.minimum(self.b, str(step), left)
        self.set_axis(axis, span, step, start, count)

    def set_axis(
        self, axis: ir.Axis, span: Span, step: int, start: str, count: str | None, extent: int | None = None
    ) -> None:
        self.spans[axis.name] = (span, step)
        extent = step if extent is None else extent
        self.cx.axes[axis.name] = AxisState(axis.name, start, extent, self.width(step), count, axis.each, axis.apart)
        if axis.each:
            self.cx.values[axis.name] = uniform(ir.TileType(i64), start)


def divides(span: Span, step: int) -> bool:
    """Whether whole tiles cover a span."""
    return step == 1 or (span.length is not None and span.length % step == 0)


def leaf_axes(body: tuple[ir.Stmt, ...]) -> set[str]:
    """Axes that values lie along, as opposed to mere ranges of other axes."""
    found: set[str] = set()
    for stmt in ir.walk(body):
        if isinstance(stmt, ir.Let):
            found.update(stmt.type.axes)
        elif isinstance(stmt, ir.Copy):
            found.update(i for i in stmt.dst.index if isinstance(i, str))
    return found
