"""Programs without roles as CUDA C++: all threads of a block execute the body of the loop that is dealt to the grid."""

from __future__ import annotations

from collections.abc import Mapping

from tilewright.emit import cuda_abi
from tilewright.emit.abi import TensorLayout
from tilewright.emit.cuda_fragments import Fragments, direct_dots
from tilewright.emit.cuda_infer import infer, registers
from tilewright.emit.cuda_layouts import Layouts
from tilewright.emit.cuda_loops import is_shared
from tilewright.emit.cuda_maps import ctype
from tilewright.emit.cuda_parts import Parts, dealt, of_block, warp_layouts
from tilewright.emit.cuda_places import Place
from tilewright.emit.cuda_ring import Rings, shared_bytes
from tilewright.emit.cuda_scope import Scope
from tilewright.emit.cuda_text import Text, cname
from tilewright.emit.cuda_values import Values
from tilewright.errors import IllegalDesign
from tilewright.language import ir
from tilewright.language.accumulate import uses
from tilewright.language.printer import head
from tilewright.machines.machine import Machine

_ARGS = "// the argument"
_HEADERS = ("follow", "global", "reduce")


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
        self.threads = ir.number(kernel.notes, "threads", 128)
        self.scope = Scope(kernel, sizes)
        self.out = Text()
        self.axes = infer(of_block(kernel), layouts, sizes, self.threads)
        self.fragments = Fragments(kernel, layouts, sizes, self.axes) if direct_dots(kernel) else None
        nests = [s for s in kernel.body if isinstance(s, ir.Loop)]
        if len(nests) != 1:
            raise IllegalDesign(f"{kernel.name} has {len(nests)} loops over the grid; write one kernel for each")
        self.nest = nests[0]
        self.parts = None
        if dealt(kernel, "grid") is not None:
            self.parts = Parts(kernel, *warp_layouts(kernel, layouts, sizes), sizes)
        self.scratch = self.parts.scratch if self.parts else ()
        self.words = cuda_abi.Words(kernel, tuple(s.name for s in self.scratch))

    def module(self) -> cuda_abi.CudaModule:
        """Source and launch."""
        self._head()
        resident = ir.number(self.kernel.notes, "resident", 1)
        # With a number of blocks the assembler spends the registers that they leave on loads in flight, or on panels.
        panels = any(isinstance(s, ir.Copy) for s in ir.walk(self.kernel.body))
        told = resident > 1 or self.fragments is not None or panels
        bounds = f"{self.threads}, {resident}" if told else str(self.threads)
        signature = (
            f'extern "C" __global__ void __launch_bounds__({bounds}) '
            f"{cname(self.kernel.name)}(const __grid_constant__ Args args)"
        )
        with self.out.block(signature):
            self._body()
        self._forget_ends()
        struct = cuda_abi.args_struct(len(self.maps), self.words.count)
        self.out.lines = [struct if x == _ARGS else x for x in self.out.lines]
        axes = tuple((_root(self.scope, a), a.step or 1) for a in self.nest.axes)
        dealt_ = self.parts.dimension if self.parts else ()
        grid = cuda_abi.Grid(axes, self.blocks, self.blocks, persistent=self.persistent, parts=dealt_)
        return cuda_abi.CudaModule(
            self.out.text(),
            cname(self.kernel.name),
            self.threads,
            grid,
            shared_bytes=self._shared_bytes,
            maps=self.maps,
            scratch=self.scratch,
            pdl=cuda_abi.overlaps(self.machine),
        )

    @property
    def maps(self) -> tuple[cuda_abi.TensorMap, ...]:
        """Tensors as the copy engine sees them: known once the body is written."""
        return tuple(self.parts.ahead.maps) if self.parts and self.parts.ahead else ()

    @property
    def _shared_bytes(self) -> int:
        """Shared memory that a launch has to give: of parts, of panels, or of fragments on their way."""
        if self.parts:
            return self.parts.shared_bytes
        ring = self.fragments.ring if self.fragments else None
        return ring.bytes if ring else shared_bytes(self.kernel)

    def _forget_ends(self) -> None:
        """Ends that no access asks for are not computed: the compiler would only find that out in the end."""
        text = "\n".join(self.out.lines)
        unused = [f"const auto {p.name}_ends = " for p in self.kernel.params if text.count(f"{p.name}_ends") == 1]
        self.out.lines = [x for x in self.out.lines if not x.lstrip().startswith(tuple(unused))]

    # ---------------------------------------------------------------------------------------------- the parts
    def _head(self) -> None:
        self.out.line(f"// {self.kernel.name}: {', '.join(f'{k}={v}' for k, v in self.kernel.notes)}")
        self.out.line(f"// {head(self.nest)}")
        dots = any(isinstance(s, ir.Copy) for s in ir.walk(self.kernel.body))
        grouped = ir.note(self.nest.notes, "order") == "grouped"
        more = (
            ("copy", dots), ("mma", dots), ("fragments", self.fragments is not None), ("grid", grouped),
            ("fragment_ring", self.fragments is not None and self.fragments.ring is not None),
            ("blocks", self.blocks > 1), ("approx", self.short), ("pairs", self._by_element()),
        )  # fmt: skip
        headers = [*_HEADERS, *(name for name, wanted in more if wanted), *(self.parts.headers if self.parts else ())]
        for name in headers:
            self.out.line(f'#include "tw/{name}.cuh"')
        self.out.line("")
        self.out.line(_ARGS)
        self._space("axis", self.axes)
        if self.parts:
            self._space("own", self.parts.layouts)
        self.out.line("")

    def _by_element(self) -> bool:
        """Whether a place along a stride of one is named by its number: pairs of such are moved at once."""
        refs = [s.ref for s in ir.walk(self.kernel.body) if isinstance(s, ir.Store)]
        lets = [s.expr for s in ir.walk(self.kernel.body) if isinstance(s, ir.Let)]
        refs += [e.ref for e in lets if isinstance(e, ir.Load)]
        known = [(r, self.layouts[r.buffer].strides) for r in refs if r.buffer in self.layouts]
        return any(isinstance(i, int) and s == 1 for r, strides in known for i, s in zip(r.index, strides, strict=True))

    def _space(self, name: str, axes: Layouts) -> None:
        self.out.line(f"namespace {name} {{")
        for line in axes.declare():
            self.out.line(line)
        self.out.line(f"}}  // namespace {name}")

    def _body(self) -> None:
        self.out.line("tw::let_next_start();")
        if self.fragments is None or not self.fragments.early:
            self.out.line("tw::wait_for_last();")
        begun = len(self.out.lines)
        places = self._arguments()
        rings = Rings(self.kernel, places)
        held = registers(self.kernel)
        values = Values(self.out, self.scope, self.axes, places, rings=rings, registers=held, blocks=self.blocks)
        values.short, values.fragments, values.parts = self.short, self.fragments, self.parts
        rings.declare(values)
        if self.parts:
            self.parts.declare(values, {s.name: self.words.scratch_word(s.name) for s in self.scratch})
        self.out.line(f"const tw::Team<{self.threads}> team{{(int)threadIdx.x}};")
        values.emit(tuple(s for s in self.kernel.body if s is not self.nest))
        for name in self.axes.of:
            if name in self.kernel.dims:
                self.out.line(values.part(name))
        if self.blocks > 1:
            self.out.line("const int rank = (int)tw::cluster_rank();")
            self.out.line("__shared__ tw::Meeting meeting;")
            self.out.line("meeting.begin();")
            self.out.line("int turn = 0;")
        if self.parts:
            number = self.parts.number("blockIdx.x", self.scope[self.parts.dimension[0]].stop, values)
            self.out.line(f"const int tile = {number};")
            self._tile("tile", values)
            if self.maps:  # the copy engine reads them while the block finds its place
                asked = " ".join(f"tw::prefetch(args.maps[{n}]);" for n in range(len(self.maps)))
                self.out.lines.insert(begun, f"  if (threadIdx.x == 0) {{ {asked} }}")
            return
        of_cluster = f" / {self.blocks}" if self.blocks > 1 else ""
        if not self.persistent:
            self._tile(f"(int)blockIdx.x{of_cluster}", values)
            return
        head = f"int item = blockIdx.x{of_cluster}; item < {self._items()}; item += gridDim.x{of_cluster}"
        with self.out.block(f"for ({head})"):
            self._tile("item", values)

    @property
    def short(self) -> bool:
        """Whether all results are rounded to 16 bits."""
        stores = [s.ref.buffer for s in ir.walk(self.nest.body) if isinstance(s, ir.Store)]
        written = [p.dtype for p in self.kernel.params if p.name in stores]
        return all(t.bits == 16 for t in written)

    @property
    def blocks(self) -> int:
        """Blocks of a cluster."""
        return max((ir.number(s.notes, "split", 1) for s in self._loops() if is_shared(s)), default=1)

    def _loops(self) -> list[ir.Loop]:
        return [s for s in ir.walk(self.kernel.body) if isinstance(s, ir.Loop)]

    @property
    def persistent(self) -> bool:
        """Whether blocks stay, and take one tile after the other."""
        return bool(ir.note(self.nest.notes, "persistent"))

    def _tile(self, item: str, values: Values) -> None:
        """The body, on the tile with the number `item`."""
        self._block(item)
        if self.parts:
            self.parts.ask(values)
        for axis in self.nest.axes:
            if axis.name in self.axes.of:
                self.out.line(values.part(axis.name))
        if self.fragments is not None:
            self.fragments.declare(values)
        values.emit(self.nest.body)

    def _items(self) -> str:
        """C++ of how many tiles there are."""
        return " * ".join(self._tiles(a, *self.scope.bounds(a)) for a in self.nest.axes)

    def _arguments(self) -> dict[str, Place]:
        """Tensors, sizes and scalars out of the words."""
        written = {s.ref.buffer for s in ir.walk(self.kernel.body) if isinstance(s, ir.Store)}
        read = _names_read(self.kernel)
        places = {}
        for p in self.kernel.params:
            if p.dims is not None:
                early = self.fragments.early if self.fragments is not None else frozenset()
                # Loads of what is only read may be moved ahead of a wait in their midst; others keep their places.
                places[p.name] = self._tensor(p, p.name not in written and not (early and p.name not in early))
            elif p.name in read:
                self._scalar(p)
        for dim in self.kernel.dims:
            if self.scope[dim].size is None:
                self.out.line(f"const int {cname(dim)} = (int)args.words[{self.words.dim(dim)}];")
        for p in self.kernel.params:
            if p.dims is not None and places[p.name].ends:
                self._ends(places[p.name], p.dims)
        return places

    def _ends(self, place: Place, dims: tuple[ir.Index, ...]) -> None:
        """Where a tensor begins and ends, for accesses that would reach past it."""
        sizes = [self.scope[d].stop if isinstance(d, str) else str(d) for d in dims]
        extent = "".join(f".along({n}, {stride})" for n, stride in zip(sizes, place.strides, strict=True))
        self.out.line(f"const auto {place.ends} = tw::ends({place.pointer}, tw::Extent(){extent});")

    def _tensor(self, param: ir.Param, readonly: bool) -> Place:
        name, type_ = cname(param.name), ctype(param.dtype)
        const = "const " if readonly else ""
        address = f"({const}{type_}*)args.words[{self.words.tensor(param.name)}]"
        self.out.line(f"{const}{type_}* const {name} = tw::from_here({address});")
        layout = self.layouts[param.name]
        strides = []
        for d, known in enumerate(layout.strides):
            strides.append(str(known) if known is not None else f"{param.name}_stride{d}")
            if known is None:
                word = self.words.stride(param.name, d)
                self.out.line(f"const tw::i64 {strides[-1]} = args.words[{word}];")
        ends = f"{name}_ends" if param.name in self._read() and "1" in strides else ""
        return Place(name, param.dtype, tuple(strides), max(layout.align, param.dtype.bytes), readonly, ends=ends)

    def _read(self) -> set[str]:
        """Tensors that are loaded or copied."""
        found = ir.walk(self.kernel.body)
        loads = [s.expr.ref for s in found if isinstance(s, ir.Let) and isinstance(s.expr, ir.Load)]
        copies = [s.src for s in ir.walk(self.kernel.body) if isinstance(s, ir.Copy)]
        return {ref.buffer for ref in (*loads, *copies)}

    def _scalar(self, param: ir.Param) -> None:
        word = f"args.words[{self.words.scalar(param.name)}]"
        text = {
            "f32": f"__int_as_float((int){word})",
            "f64": f"__longlong_as_double({word})",
        }.get(param.dtype.name, f"({ctype(param.dtype)}){word}")
        self.out.line(f"const {ctype(param.dtype)} {cname(param.name)} = {text};")

    def _block(self, rest: str) -> None:
        """Where the tile number `rest` begins: the last axis varies fastest, or groups of rows walk together."""
        axes = list(self.nest.axes)
        bounds = {a.name: self.scope.bounds(a) for a in axes}
        if ir.note(self.nest.notes, "order") == "grouped":
            counts = [self._tiles(a, *bounds[a.name]) for a in axes[-2:]]
            each = f"{rest} % ({counts[0]} * {counts[1]})" if len(axes) > 2 else rest
            group = ir.number(self.nest.notes, "group", 8)
            self.out.line(f"const tw::Tile2 tile = tw::grouped_order<{group}>({each}, {counts[0]}, {counts[1]});")
            for axis, which in zip(axes[-2:], ("tile.i", "tile.j"), strict=True):
                self._enter(axis, which, *bounds[axis.name])
            rest, axes = f"{rest} / ({counts[0]} * {counts[1]})", axes[:-2]
        for n, axis in reversed(list(enumerate(axes))):
            count = self._tiles(axis, *bounds[axis.name])
            if count == "1":
                self._enter(axis, "0", *bounds[axis.name])
                continue
            if not n:
                self._enter(axis, rest, *bounds[axis.name])
                break
            shared = f"{axis.name}_share"
            self.out.line(f"const tw::Share {shared} = tw::share({rest}, {count});")
            self._enter(axis, f"{shared}.left", *bounds[axis.name])
            rest = f"{shared}.times"

    def _enter(self, axis: ir.Axis, which: str, low: str, high: str) -> None:
        at, step = cname(axis.name) if axis.each else f"{axis.name}_at", axis.step or 1
        times = which if step == 1 else f"{which} * {step}"
        self.out.line(f"const int {at} = {times if low == '0' else f'{low} + {times}'};")
        self.scope.enter(axis, at, low, high)

    def _tiles(self, axis: ir.Axis, low: str, high: str) -> str:
        """C++ of how many tiles of an axis there are, as one operand."""
        step = axis.step or 1
        if step == 1 and low == "0":
            return high
        if low == "0" and high.isdigit():
            return str(-(-int(high) // step))
        return f"({high} - {low} + {step - 1}) / {step}".replace(" - 0", "").join("()")


def _names_read(kernel: ir.Kernel) -> set[str]:
    return set(uses(kernel.body))


def _root(scope: Scope, axis: ir.Axis) -> str:
    over = axis.over
    while over in scope.axes:
        over = scope.axes[over].over
    return over


__all__ = ["emit_simt"]
