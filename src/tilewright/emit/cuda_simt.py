"""Programs without roles as CUDA C++: every thread of a block executes the body of the loop that is dealt to the grid."""

from __future__ import annotations

from collections.abc import Mapping

from tilewright.emit import cuda_abi
from tilewright.emit.abi import TensorLayout
from tilewright.emit.accumulate import uses
from tilewright.emit.cuda_layouts import Layouts, Wish, spread
from tilewright.emit.cuda_maps import ctype
from tilewright.emit.cuda_scope import Scope
from tilewright.emit.cuda_values import Place, Values
from tilewright.emit.cuda_text import Text, cname
from tilewright.errors import IllegalDesign
from tilewright.language import ir
from tilewright.language.printer import head
from tilewright.machines.machine import Machine

_HEADERS = ("layout", "tile", "map", "global", "reduce")


def emit_simt(
    kernel: ir.Kernel, layouts: Mapping[str, TensorLayout], sizes: Mapping[str, int], machine: Machine
) -> cuda_abi.CudaModule:
    """The CUDA C++ of a scheduled program without roles; dims in `sizes` are fixed, all others are arguments.

    Raises IllegalDesign for a program of several loops over the grid: a launch holds one.
    """
    return _Program(kernel, layouts, sizes, machine).module()


class _Program:
    def __init__(
        self, kernel: ir.Kernel, layouts: Mapping[str, TensorLayout], sizes: Mapping[str, int], machine: Machine
    ) -> None:
        self.kernel, self.layouts, self.machine = kernel, layouts, machine
        self.threads = _number(kernel.notes, "threads", 128)
        self.scope = Scope(kernel, sizes)
        self.words = cuda_abi.Words(kernel)
        self.out = Text()
        self.axes = infer(kernel, layouts, sizes, self.threads)
        nests = [s for s in kernel.body if isinstance(s, ir.Loop)]
        if len(nests) != 1:
            raise IllegalDesign(f"{kernel.name} has {len(nests)} loops over the grid; write one kernel for each")
        self.nest = nests[0]

    def module(self) -> cuda_abi.CudaModule:
        """Source and launch."""
        self._head()
        signature = (
            f'extern "C" __global__ void __launch_bounds__({self.threads}) '
            f"{cname(self.kernel.name)}(const __grid_constant__ Args args)"
        )
        with self.out.block(signature):
            self._body()
        grid = cuda_abi.Grid(tuple((_root(self.scope, a), a.step or 1) for a in self.nest.axes))
        return cuda_abi.CudaModule(self.out.text(), cname(self.kernel.name), self.threads, grid)

    # ---------------------------------------------------------------------------------------------- the parts
    def _head(self) -> None:
        self.out.line(f"// {self.kernel.name}: {', '.join(f'{k}={v}' for k, v in self.kernel.notes)}")
        self.out.line(f"// {head(self.nest)}")
        for name in _HEADERS:
            self.out.line(f'#include "tw/{name}.cuh"')
        self.out.line("")
        self.out.line(cuda_abi.args_struct(0, self.words.count))
        self.out.line("namespace axis {")
        for line in self.axes.declare():
            self.out.line(line)
        self.out.line("}  // namespace axis")
        self.out.line("")

    def _body(self) -> None:
        places = self._arguments()
        values = Values(self.out, self.scope, self.axes, places)
        self.out.line(f"const tw::Team<{self.threads}> team{{(int)threadIdx.x}};")
        values.emit(tuple(s for s in self.kernel.body if s is not self.nest))
        self._block()
        for name in self.axes.of:
            if name in self.kernel.dims or name in {a.name for a in self.nest.axes}:
                self.out.line(values.part(name))
        values.emit(self.nest.body)

    def _arguments(self) -> dict[str, Place]:
        """Tensors, sizes and scalars out of the words."""
        written = {s.ref.buffer for s in ir.walk(self.kernel.body) if isinstance(s, ir.Store)}
        read = _names_read(self.kernel)
        places = {}
        for p in self.kernel.params:
            if p.dims is not None:
                places[p.name] = self._tensor(p, p.name not in written)
            elif p.name in read:
                self._scalar(p)
        for dim in self.kernel.dims:
            if self.scope[dim].size is None:
                self.out.line(f"const int {cname(dim)} = (int)args.words[{self.words.dim(dim)}];")
        return places

    def _tensor(self, param: ir.Param, readonly: bool) -> Place:
        name, type_ = cname(param.name), ctype(param.dtype)
        const = "const " if readonly else ""
        self.out.line(f"{const}{type_}* const {name} = ({const}{type_}*)args.words[{self.words.tensor(param.name)}];")
        layout = self.layouts[param.name]
        strides = []
        for d, known in enumerate(layout.strides):
            strides.append(str(known) if known is not None else f"{param.name}_stride{d}")
            if known is None:
                word = self.words.stride(param.name, d)
                self.out.line(f"const tw::i64 {strides[-1]} = args.words[{word}];")
        return Place(name, param.dtype, tuple(strides), max(layout.align, param.dtype.bytes), readonly)

    def _scalar(self, param: ir.Param) -> None:
        word = f"args.words[{self.words.scalar(param.name)}]"
        text = {
            "f32": f"__int_as_float((int){word})",
            "f64": f"__longlong_as_double({word})",
        }.get(param.dtype.name, f"({ctype(param.dtype)}){word}")
        self.out.line(f"const {ctype(param.dtype)} {cname(param.name)} = {text};")

    def _block(self) -> None:
        """Which tile is this block's: the last axis varies fastest."""
        rest = "(int)blockIdx.x"
        axes = self.nest.axes
        for n, axis in reversed(list(enumerate(axes))):
            low, high = self.scope.bounds(axis)
            step = axis.step or 1
            at = cname(axis.name) if axis.each else f"{axis.name}_at"
            count = f"({high} - {low} + {step - 1}) / {step}" if low != "0" else _ceil(high, step)
            which = f"({rest}) % ({count})" if n else f"({rest})"
            times = f"{which} * {step}" if step != 1 else which
            self.out.line(f"const int {at} = {times if low == '0' else f'{low} + {times}'};")
            rest = f"{rest} / ({count})"
            self.scope.enter(axis, at, low, high)


def infer(kernel: ir.Kernel, layouts: Mapping[str, TensorLayout], sizes: Mapping[str, int], threads: int) -> Layouts:
    """How the axes of all values are spread over the threads of a block."""
    axes = {a.name: a for s in ir.walk(kernel.body) if isinstance(s, ir.Loop) for a in s.axes}
    runs = _runs(kernel, layouts)
    wishes = {}
    for name in _value_axes(kernel):
        points = (axes[name].step or 1) if name in axes else sizes.get(name)
        if points is None:
            raise IllegalDesign(f"{kernel.name}: tiles lie along the whole of {name}, whose size is not fixed")
        run = runs.get(name, 1)
        while run > 1 and run // 2 >= points:
            run //= 2
        wishes[name] = Wish(max(points, 1), run)
    lanes = ir.note(kernel.notes, "lanes", ())
    return spread(kernel, wishes, lanes if isinstance(lanes, tuple) else (lanes,), threads)  # type: ignore[arg-type]


def _runs(kernel: ir.Kernel, layouts: Mapping[str, TensorLayout]) -> dict[str, int]:
    """Neighbours along each axis that one access moves: as noted, and as rows are aligned."""
    params = {p.name: p for p in kernel.params}
    runs: dict[str, int] = {}
    for stmt in ir.walk(kernel.body):
        ref = stmt.ref if isinstance(stmt, ir.Store) else None
        if isinstance(stmt, ir.Let) and isinstance(stmt.expr, ir.Load):
            ref = stmt.expr.ref
        if ref is None or ref.buffer not in params:
            continue
        bytes_, layout = params[ref.buffer].dtype.bytes, layouts[ref.buffer]
        for index, stride in zip(ref.index, layout.strides, strict=True):
            if stride == 1 and isinstance(index, str):
                vec = _number(stmt.notes, "vec", 1)  # type: ignore[union-attr]
                runs[index] = max(runs.get(index, 1), min(vec, max(1, layout.align // bytes_)))
    return runs


def _value_axes(kernel: ir.Kernel) -> list[str]:
    found: dict[str, None] = {}
    for stmt in ir.walk(kernel.body):
        if isinstance(stmt, ir.Let):
            found.update(dict.fromkeys(stmt.type.axes))
            if isinstance(stmt.expr, (ir.Reduce, ir.Dot)):
                found[stmt.expr.axis] = None
    return list(found)


def _names_read(kernel: ir.Kernel) -> set[str]:
    return set(uses(kernel.body))


def _root(scope: Scope, axis: ir.Axis) -> str:
    over = axis.over
    while over in scope.axes:
        over = scope.axes[over].over
    return over


def _ceil(size: str, step: int) -> str:
    if step == 1:
        return size
    return str(-(-int(size) // step)) if size.isdigit() else f"({size} + {step - 1}) / {step}"


def _number(notes: ir.Notes, key: str, default: int) -> int:
    value = ir.note(notes, key, default)
    assert isinstance(value, int)
    return value


__all__ = ["emit_simt", "infer"]
