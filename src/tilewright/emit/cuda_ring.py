"""Loops whose operands pass through shared memory: the ring of their panels, filled some steps ahead of its use."""

from __future__ import annotations

from dataclasses import dataclass

from tilewright.emit.cuda_maps import ctype
from tilewright.emit.cuda_places import Place, Staged
from tilewright.emit.cuda_text import cname
from tilewright.emit.cuda_values import Values
from tilewright.errors import IllegalDesign
from tilewright.language import ir


@dataclass(frozen=True)
class Panel:
    """A buffer in shared memory: rows x columns of a step, `slots` of them, from `offset` bytes on."""

    alloc: ir.Alloc
    rows: int
    columns: int
    slots: int
    offset: int

    @property
    def bytes(self) -> int:
        """Of one slot."""
        return self.rows * self.columns * self.alloc.dtype.bytes

    @property
    def cpp(self) -> str:
        """The type in the tile library."""
        return f"tw::Panel<{ctype(self.alloc.dtype)}, {self.rows}, {self.columns}>"


def panels(kernel: ir.Kernel) -> dict[str, Panel]:
    """The buffers of a program that lie in shared memory, one after the other."""
    axes = {a.name: a for s in ir.walk(kernel.body) if isinstance(s, ir.Loop) for a in s.axes}
    found: dict[str, Panel] = {}
    offset = 0
    for stmt in ir.walk(kernel.body):
        if isinstance(stmt, ir.Alloc) and ir.note(stmt.notes, "layout") and ir.note(stmt.notes, "place") == "shared":
            rows, columns = (axes[str(d)].step or 1 for d in stmt.dims)
            slots = ir.note(stmt.notes, "stages", 1)
            assert isinstance(slots, int)
            found[stmt.name] = panel = Panel(stmt, rows, columns, slots, offset)
            offset += panel.bytes * slots
    return found


def shared_bytes(kernel: ir.Kernel) -> int:
    """Bytes of shared memory that the panels of a program take."""
    return max((p.offset + p.bytes * p.slots for p in panels(kernel).values()), default=0)


class Rings:
    """Writes such loops; `places` are the tensors that they copy from."""

    def __init__(self, kernel: ir.Kernel, places: dict[str, Place]) -> None:
        self.panels, self.places = panels(kernel), places

    def declare(self, values: Values) -> None:
        """The panels by name."""
        if not self.panels:
            return
        values.out.line("extern __shared__ __align__(1024) unsigned char shared[];")
        for name, p in self.panels.items():
            what = f"{p.alloc.dtype}[{', '.join(map(str, p.alloc.dims))}], {p.slots} slots of {p.bytes} bytes"
            values.out.line(f"auto* const {cname(name)} = ({p.cpp}*)(shared + {p.offset});  // {what}")

    def __call__(self, values: Values, loop: ir.Loop) -> None:
        """Write a loop: its first steps are on their way before it begins, and each step sends for another."""
        axis, out = loop.axes[-1], values.out
        copies = [s for s in loop.body if isinstance(s, ir.Copy)]
        body = tuple(s for s in loop.body if not isinstance(s, (ir.Copy, ir.Alloc, ir.Sync)))
        ahead = self.panels[copies[0].dst.buffer].slots - 1
        low, high = values.scope.bounds(axis)
        at, step = f"{axis.name}_at", axis.step or 1
        values.scope.enter(axis, at, low, high)
        for copy in copies:
            self._source(values, copy, at, axis.name)
        out.line(f"// The first {ahead} steps are sent for at once; each step of the loop sends for a later one.")
        out.line("#pragma unroll")
        with out.block(f"for (int slot = 0; slot < {ahead}; ++slot)"):
            self._send(values, copies, "slot", f"slot * {step}")
            self._arrive(values, copies, "slot")
            out.line("tw::commit();")
        following = f"slot = slot == {ahead} ? 0 : slot + 1"
        with out.block(f"for (int {at} = {low}, slot = 0; {at} < {high}; {at} += {step}, {following})"):
            out.line(f"tw::wait_all_but<{ahead - 1}>();")
            out.line(f"{values.team}.sync();")
            out.line(f"const int next = slot == 0 ? {ahead} : slot - 1;")
            self._send(values, copies, "next", f"{at} + {ahead * step}")
            out.line("tw::commit();")
            self._stage(values, body)
            values.loops.accumulating(values, body)
            self._arrive(values, copies, "next")

    def _stage(self, values: Values, body: tuple[ir.Stmt, ...]) -> None:
        """Loads of panels are read where they lie."""
        dots = [s.expr for s in body if isinstance(s, ir.Let) and isinstance(s.expr, ir.Dot)]
        for stmt in body:
            if isinstance(stmt, ir.Let) and isinstance(stmt.expr, ir.Load) and stmt.expr.ref.buffer in self.panels:
                depth = next(d.axis for d in dots if stmt.name in (d.a, d.b))
                dims = self.panels[stmt.expr.ref.buffer].alloc.dims
                kept = next(str(d) for d in dims if d != depth)
                values.staged[stmt.name] = Staged(f"{cname(stmt.expr.ref.buffer)}[slot]", kept, dims[0] == depth)

    def _source(self, values: Values, copy: ir.Copy, at: str, sent: str) -> None:
        """What a panel takes of its tensor, as a function of where the step of the axis `sent` begins.

        Steps behind the last one are sent too, and then hold nothing: their end is that of the loop.
        """
        place, scope = self.places[copy.src.buffer], values.scope
        rows, columns = (str(d) for d in copy.dst.index)
        terms, strides = [place.pointer], {}
        for index, stride in zip(copy.src.index, place.strides, strict=True):
            strides[str(index)] = stride
            point = (
                str(index) if isinstance(index, int) else scope[index].start if index in scope.ranges else cname(index)
            )
            if point != "0":
                terms.append(point if stride == "1" else f"{point} * {stride}")
        if strides[columns] != "1":
            raise IllegalDesign(f"engine.{copy.src.buffer}: no dimension of it has stride one; drop the decision")
        ends = [scope[a].high if a == sent else scope[a].stop for a in (rows, columns)]
        left = [f"{end} - ({scope[a].start})" for end, a in zip(ends, (rows, columns), strict=True)]
        source = f"tw::Source<{ctype(place.dtype)}>{{{' + '.join(terms)}, {strides[rows]}, {left[0]}, {left[1]}}}"
        values.out.line(f"const auto {cname(copy.src.buffer)}_from = [&](int {at}) {{ return {source}; }};")

    def _send(self, values: Values, copies: list[ir.Copy], slot: str, at: str) -> None:
        """Copies that go on by themselves begin; the others are read into registers."""
        for copy in copies:
            source, panel = f"{cname(copy.src.buffer)}_from({at})", self.panels[copy.dst.buffer]
            if self._asynchronous(copy):
                bytes_ = min(16, self.places[copy.src.buffer].align)
                values.out.line(f"tw::copy_async<{bytes_}>({cname(copy.dst.buffer)}[{slot}], {source}, {values.team});")
            else:
                got, place = f"const auto {cname(copy.dst.buffer)}_next", self.places[copy.src.buffer]
                fetch = f"tw::fetch<{panel.cpp}, {min(16, place.align)}>"
                values.out.line(f"{got} = {fetch}({place.ends}, {source}, {values.team});")

    def _arrive(self, values: Values, copies: list[ir.Copy], slot: str) -> None:
        """What was read into registers is written to its slot."""
        for copy in copies:
            if not self._asynchronous(copy):
                name = cname(copy.dst.buffer)
                values.out.line(f"tw::put({name}[{slot}], {name}_next, {values.team});")

    def _asynchronous(self, copy: ir.Copy) -> bool:
        if ir.note(copy.notes, "engine") != "cp_async":
            return False
        if self.places[copy.src.buffer].align < 4:
            tensor = copy.src.buffer
            raise IllegalDesign(f"engine.{tensor}=cp_async: rows of {tensor} are not aligned to 4 bytes; take plain")
        return True


__all__ = ["Panel", "Rings", "panels", "shared_bytes"]
