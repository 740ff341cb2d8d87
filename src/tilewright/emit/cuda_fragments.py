"""Operands of dots that go straight from memory to registers: how their axes are spread, loads and products as C++."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from tilewright.emit.abi import TensorLayout
from tilewright.emit.cuda_fragment_ring import FragmentRing, ring_of
from tilewright.emit.cuda_layouts import AccCols, AccRows, Chunks, Dist, Layouts, OperandRows, Spread, WarpRows
from tilewright.emit.cuda_text import cname
from tilewright.language import ir
from tilewright.language.structure import fresh, names

if TYPE_CHECKING:
    from tilewright.emit.cuda_values import Values

_CACHES = {"cs": "tw::STREAM", "evict_first": "tw::STREAM", "cg": "tw::L2_ONLY", "ca": "tw::READ_ONLY"}
_CHUNK = 16  # bytes


def direct_dots(kernel: ir.Kernel) -> list[ir.Let]:
    """Dots whose operands go straight to registers: those in a loop whose parts are dealt to warps."""
    loop = parts_loop(kernel)
    return [s for s in ir.walk(loop.body) if isinstance(s, ir.Let) and isinstance(s.expr, ir.Dot)] if loop else []


def parts_loop(kernel: ir.Kernel) -> ir.Loop | None:
    """The loop over parts of a sum that warps have."""
    loops = (s for s in ir.walk(kernel.body) if isinstance(s, ir.Loop))
    return next((s for s in loops if not s.parallel and ir.note(s.notes, "how") == "tree"), None)


def second_rows(kernel: ir.Kernel) -> dict[str, tuple[str, str]]:
    """Operands whose rows are columns of the result -> that axis, and the name of the same axis as theirs.

    Lanes of mma have other columns of the result than rows of that operand; those of FMA have the same.
    """
    dots = direct_dots(kernel)
    found: dict[str, tuple[str, str]] = {}
    lets = {s.name: s for s in ir.walk(kernel.body) if isinstance(s, ir.Let)}
    taken = names(kernel)
    if dots:
        column = dots[0].type.axes[1]
        fragments = ir.note(dots[0].notes, "atom") == "mma"
        own = fresh(f"{column}_rows", taken) if fragments else column
        for dot in dots:
            assert isinstance(dot.expr, ir.Dot)
            found |= {o: (column, own) for o in (dot.expr.a, dot.expr.b) if column in lets[o].type.axes}
    return found


def fragment_layouts(kernel: ir.Kernel, axes: Mapping[str, ir.Axis], sizes: Mapping[str, int], threads: int) -> Layouts:
    """Rows and columns of the result, the sum, and the columns again as rows of the operand that they come from."""
    dot = direct_dots(kernel)[0]
    assert isinstance(dot.expr, ir.Dot)
    lets = {s.name: s for s in ir.walk(kernel.body) if isinstance(s, ir.Let)}
    depth, (row, column) = dot.expr.axis, dot.type.axes
    along = _parts(kernel, sizes)
    across = threads // 32 // along
    run = _CHUNK // lets[dot.expr.a].type.dtype.bytes
    height, width, steps = (axes[a].step or 1 for a in (row, column, depth))
    if ir.note(dot.notes, "atom") != "mma":
        columns = WarpRows(along, across, width // across)
        return Layouts({row: Spread(height), column: columns, depth: Chunks(steps // (32 * run), run, 5)})
    of: dict[str, Dist] = {
        row: AccRows(1, across, height // 16),
        column: AccCols(along, across, width // (8 * across)),
        depth: Chunks(steps // (4 * run), run, 2),
    }
    own = next(iter(second_rows(kernel).values()))[1]
    return Layouts({**of, own: OperandRows(along, across, width // (8 * across))})


def _parts(kernel: ir.Kernel, sizes: Mapping[str, int]) -> int:
    """Warps that share a sum."""
    loop = parts_loop(kernel)
    assert loop is not None
    axis = loop.axes[0]
    return -(-sizes[axis.over] // (axis.step or 1))


class Fragments:
    """Writes loads of such operands and products of them.

    `early` are constant tensors of weights: they are asked for before this kernel waits for the one before it.
    `flowing` are weights that are asked for one step ahead, in the registers that this step has done with.
    """

    def __init__(
        self, kernel: ir.Kernel, layouts: Mapping[str, TensorLayout], sizes: Mapping[str, int], axes: Layouts
    ) -> None:
        self.warps = _parts(kernel, sizes)
        self.fma = all(ir.note(d.notes, "atom") != "mma" for d in direct_dots(kernel))
        dots = [d.expr for d in direct_dots(kernel) if isinstance(d.expr, ir.Dot)]
        self.operands = {o for d in dots for o in (d.a, d.b)}
        self.second = second_rows(kernel)
        self.depths = {d.axis for d in dots}
        lets = {s.name: s for s in ir.walk(kernel.body) if isinstance(s, ir.Let)}
        weights = {e.ref.buffer for o in self.second if isinstance(e := lets[o].expr, ir.Load)}
        threads = ir.number(kernel.notes, "threads", 128)
        self.ring: FragmentRing | None = ring_of(
            [lets[o] for o in self.second], axes, threads // 32, threads // 32 // self.warps
        )
        self.flowing = {o for o in self.second if ir.note(lets[o].notes, "prefetch") == 1}
        self.early = frozenset(t for t in weights if layouts[t].constant)
        self._waited = not self.early

    def declare(self, values: Values) -> None:
        """The part of the columns that a thread holds as rows of an operand."""
        for column, own in dict.fromkeys(p for p in self.second.values() if p[0] != p[1]):
            values.scope.ranges[own] = values.scope[column]
            values.out.line(values.part(own))

    def load(self, values: Values, let: ir.Let) -> None:
        """`const auto x = fragments(...)`, the rows first."""
        assert isinstance(let.expr, ir.Load)
        if self.ring and self.ring.holds(let):
            self.ring.take(values, let)
            return
        if let.name in self.flowing:
            return  # asked for in the step before
        self._wait(values, let.expr.ref)
        at = ", ".join(self.place(values, let))
        values.out.line(f"const auto {cname(let.name)} = tw::fragments<{self._cache(values, let)}>({at});")

    def _cache(self, values: Values, let: ir.Let) -> str:
        assert isinstance(let.expr, ir.Load)
        readonly = values.places[let.expr.ref.buffer].readonly
        return _CACHES.get(str(ir.note(let.notes, "cache")), "tw::READ_ONLY" if readonly else "tw::PLAIN")

    def _begin_flow(self, values: Values, loop: ir.Loop) -> None:
        """Where each step finds its weights, and those of the first one."""
        out, axis = values.out, loop.axes[0]
        low, high = values.scope.bounds(axis)
        kept, at = dict(values.scope.ranges), f"{axis.name}_at"
        for let in (s for s in loop.body if isinstance(s, ir.Let) and s.name in self.flowing):
            with out.block(f"const auto {cname(let.name)}_from = [&](int {at})"):
                values.scope.enter(axis, at, low, high)
                out.line(values.part(axis.name))
                out.line(f"return tw::flow<{self._cache(values, let)}>({', '.join(self.place(values, let))});")
            out.line(";")
            out.line(f"auto {cname(let.name)} = tw::fragments({cname(let.name)}_from({low}));")
        values.scope.ranges = kept

    def axes_of(self, let: ir.Let) -> tuple[str, str]:
        """Rows and sum of an operand, by the names of their layouts."""
        column, own = self.second.get(let.name, ("", ""))
        axes = [own if a == column else a for a in let.type.axes]
        return next(a for a in axes if a not in self.depths), next(a for a in axes if a in self.depths)

    def place(self, values: Values, let: ir.Let) -> tuple[str, str, str]:
        """C++ of where an operand begins, and of its terms along its rows and along the sum."""
        assert isinstance(let.expr, ir.Load)
        ref, (rows, depth) = let.expr.ref, self.axes_of(let)
        column, own = self.second.get(let.name, ("", ""))
        ref = replace(ref, index=tuple(own if i == column else i for i in ref.index))
        at = values.addresses.of(values.places[ref.buffer], ref, (rows, depth))
        terms = dict(zip(values.layouts.order((rows, depth)), at.terms, strict=True))
        return at.point, terms[rows], terms[depth]

    def _wait(self, values: Values, ref: ir.Ref) -> None:
        """Before the first load of what is not early, in the first step: the kernel before this one has ended."""
        if not self._waited and ref.buffer not in self.early:
            depth = next(i for i in ref.index if i in self.depths)
            values.out.line(f"if ({values.condition('first', str(depth))}) tw::wait_for_last();")
            self._waited = True

    def multiply(self, values: Values, dot: ir.Dot, into: str) -> None:
        """`multiply(sums, a, b)`: the operand along the rows of the result comes first."""
        a, b = (dot.b, dot.a) if dot.a in self.second else (dot.a, dot.b)
        if b in self.flowing:
            now = values.scope[dot.axis]
            later = f"{now.start} + {now.step}"
            more = f"{later} < {now.high}, {cname(b)}_from({later})"
            values.out.line(f"tw::multiply_flowing({into}, {cname(a)}, {cname(b)}, {more});")
            return
        values.out.line(f"tw::multiply_{'rows' if self.fma else 'fragments'}({into}, {cname(a)}, {cname(b)});")

    def join(self, values: Values, axis: str, name: str) -> None:
        """What all lanes along the sum have, added up in each of them."""
        if self.fma:
            values.out.line(f"tw::join_lanes<axis::{axis}>({name});")

    def parts(self, values: Values, loop: ir.Loop) -> None:
        """Each warp has its own part; the first of them adds up what all have, and goes on alone."""
        axis, out = loop.axes[0], values.out
        at, step = f"{axis.name}_at", axis.step or 1
        inner = next(n for n, s in enumerate(loop.body) if isinstance(s, ir.Loop))
        with out.block(""):
            mine = f"{values.team}.warp() % {self.warps} * {step}" if self.warps > 1 else "0"
            out.line(f"const int {at} = {mine};")
            values.scope.enter_part(axis, at)
            steps = loop.body[inner]
            assert isinstance(steps, ir.Loop)
            values.emit(loop.body[:inner])
            if self.ring:
                self.ring.begin(values, steps)
            if self.flowing:
                self._begin_flow(values, steps)
            values.emit((steps,))
            for n, init in enumerate(s for s in loop.body[:inner] if isinstance(s, ir.Let) and self.warps > 1):
                copies = str(self.fma).lower()
                out.line(f"tw::join_warps<{self.warps}, {n}, {copies}>({cname(init.name)}, {values.team});")
            if self.warps > 1:
                out.line(f"if (!tw::leads<{self.warps}>({values.team})) return;")
            values.emit(loop.body[inner + 1 :])


__all__ = ["Fragments", "direct_dots", "fragment_layouts", "parts_loop", "second_rows"]
