"""`tw.compile` and `tw.launch`: one kernel in the hand, and any tile program run on arrays as they are."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol

from tilewright.build.cuda_kernel import CudaStages
from tilewright.build.kernel_cache import target_for
from tilewright.build.stages import Stages
from tilewright.design.cost.usage import Usage
from tilewright.design.design import Design
from tilewright.emit import abi
from tilewright.errors import ArgumentError, MachineError
from tilewright.language import ir
from tilewright.language.dtypes import DType
from tilewright.language.program import TileProgram
from tilewright.machines.machine import Machine
from tilewright.runtime import dispatch
from tilewright.runtime.buffer import Buffer
from tilewright.runtime.operands import check_operands, operands_of, scalar_of
from tilewright.runtime.work import work_of


class _HasKernel(Protocol):
    @property
    def kernel(self) -> Any: ...


class DesignRecord(Protocol):
    """What a search found: a design, with the sizes and the dtype it is for."""

    @property
    def design(self) -> Design: ...
    @property
    def sizes(self) -> Mapping[str, int]: ...
    @property
    def dtype(self) -> str | Mapping[str, str]: ...


Program = TileProgram | _HasKernel
"""A tile program, or an operator around one."""


@dataclass(frozen=True)
class Estimate:
    """What a call costs at least.

    `flops` operations, `bytes` of operands (each once), `intensity` operations a byte; `seconds` by the roofline and
    what bounds them (`bound`: "memory", "compute"), or None and "unknown" where the machine's rates are not known.
    """

    flops: float
    bytes: int
    intensity: float
    seconds: float | None
    bound: str


@dataclass(frozen=True, repr=False)
class CompiledKernel:
    """A tile program, a design and the machine code of both; made by `compile`."""

    program: ir.Kernel
    design: Design
    sizes: Mapping[str, int]
    machine: Machine
    stages: Stages | CudaStages = field(repr=False)
    _variants: dict[dispatch.Layouts, dispatch.Kernel] = field(default_factory=dict, repr=False, compare=False)

    def __repr__(self) -> str:
        """On one line; `listing`, `source` and `assembly` show the kernel itself."""
        sizes = " ".join(f"{d}={n}" for d, n in self.sizes.items())
        return f"<kernel {self.program.name} {sizes} for {self.machine.name}, design {self.design.hash}>"

    @property
    def source(self) -> str:
        """The LLVM IR, or the CUDA C++."""
        return self.stages.source

    @property
    def listing(self) -> str:
        """What one thread executes."""
        return self.stages.text("thread")

    @property
    def assembly(self) -> str:
        """The machine code as text."""
        return self.stages.text("asm" if self.machine.is_cpu else "sass")

    @property
    def usage(self) -> Usage | None:
        """Registers, spills, stack and shared memory of a kernel for a GPU, by the assembler; None for a CPU."""
        return self.stages.usage if isinstance(self.stages, CudaStages) else None

    @cached_property
    def estimate(self) -> Estimate:
        """The least that a call at the sizes of `compile` can cost."""
        work = work_of(self.program, self.sizes)
        first = next((p.dtype.name for p in self.program.params if p.dims is not None), "f32")
        seconds, bound = work.bound(self.machine, first)
        return Estimate(work.flops, work.bytes, work.intensity, seconds, bound)

    def run(self, *arrays: Any, **scalars: float | int) -> None:
        """Compute on arrays given in the order of the program's tensors; outputs among them are written in place.

        The kernel takes any sizes, but those that it was compiled for as fixed (see `fixed`; on a GPU all of them).
        Raises ArgumentError or DTypeError naming the operand that does not fit.
        """
        tensors = [p.name for p in self.program.params if p.dims is not None]
        if len(arrays) != len(tensors):
            raise ArgumentError(
                f"{self.program.name} takes {len(tensors)} arrays ({', '.join(tensors)}), not {len(arrays)}"
            )
        buffers = {name: _buffer(self.program.name, name, x) for name, x in zip(tensors, arrays, strict=True)}
        sizes = check_operands(self.program, buffers)
        for dim, n in self.fixed.items():
            if sizes[dim] != n:
                raise ArgumentError(
                    f"{self.program.name} was compiled for {dim}={n}, not {sizes[dim]}; compile it again"
                )
        values = {p.name: scalar_of(self.program, p, scalars) for p in self.program.params if p.dims is None}
        _refuse_unknown(self.program.name, scalars, values)
        if not _written(self.program, buffers):
            return
        if self.machine.is_cpu:
            self._kernel(buffers).bind(buffers, values, sizes)()
        else:
            self._on_gpu(buffers, values, sizes)

    @property
    def fixed(self) -> dict[str, int]:
        """The sizes that are a part of the machine code: dims that values lie along as a whole; on a GPU all."""
        return dict(self.stages.request.sizes)

    def _on_gpu(self, buffers: Mapping[str, Buffer], values: Mapping[str, float | int], sizes: dict[str, int]) -> None:
        from tilewright.runtime.cuda import dispatch as gpu

        device = gpu.device_of(self.program.name, buffers)
        known = gpu.machine(device)
        if known.architecture != self.machine.architecture:
            raise MachineError(
                f"{self.program.name} was compiled for {self.machine.name}, and runs on {known.name} here"
            )
        layouts = tuple((n, gpu.layout_on_gpu(b)) for n, b in buffers.items())
        traced = dispatch.Program.of(self.program)
        request = gpu.requested(traced, layouts, dict(self.sizes), known, self.design, tuple(self.fixed))
        gpu.loaded(request, device).bind(buffers, values, sizes)()

    def _kernel(self, buffers: Mapping[str, Buffer]) -> dispatch.Kernel:
        """The kernel for these strides: they are known to the machine code where they are one."""
        if self.machine.fingerprint != dispatch.machine().fingerprint:
            raise MachineError(
                f"{self.program.name} was compiled for {self.machine.name}; it can be looked at, not run"
            )
        layouts = tuple((n, dispatch.layout_of(b)) for n, b in buffers.items())
        if layouts not in self._variants:
            traced = dispatch.Program.of(self.program)
            request = dispatch.requested(traced, layouts, dict(self.sizes), self.machine, self.design)
            self._variants[layouts] = dispatch.compiled(traced, request)
        return self._variants[layouts]


def compile(
    operator: Program,
    record_or_design: DesignRecord | Design | None = None,
    *,
    dtype: str | DType | Mapping[str, str | DType] | None = None,
    options: Mapping[str, Any] | None = None,
    present: Collection[str] = (),
    machine: Machine | str | None = None,
    **sizes: int,
) -> CompiledKernel:
    """The kernel of an operator (or of a `@kernel` program) for these sizes: `compile(matmul, M=1, N=64, K=64)`.

    Without a design the default one is taken; a record brings its design, sizes and dtype, and what `search` gave its
    machine too. `dtype` is that of all tensors (default f32; positions and ids are i32), or a mapping of those that
    differ; `options` are the program's static ones, `present` names the optional tensors that it gets. Tensors are
    row-major until `run` says otherwise. On another machine than this one the kernel can be looked at but not run; one
    for a GPU runs on CUDA tensors. Raises ArgumentError for sizes that are missing or unknown.
    """
    design = record_or_design if isinstance(record_or_design, Design) else None
    if record_or_design is not None and design is None:
        record = record_or_design
        assert not isinstance(record, Design)
        _check_program(operator, record)
        design, sizes, dtype = record.design, {**record.sizes, **sizes}, record.dtype if dtype is None else dtype
        options = dict(getattr(record, "options", ())) if options is None else options
        machine = machine or getattr(record, "machine", None)
    return compile_at(operator, sizes, design, dtype=dtype, options=options, present=present, machine=machine)


def _check_program(operator: Program, record: DesignRecord) -> None:
    """ArgumentError for what was found for another program."""
    wanted, found = _program_of(operator).name, getattr(getattr(record, "key", None), "operator", None)
    if found not in (None, wanted):
        raise ArgumentError(f"the design is for {found}, not for {wanted}; search for one of {wanted}")


def compile_at(
    operator: Program,
    sizes: Mapping[str, int],
    design: Design | None = None,
    *,
    dtype: str | DType | Mapping[str, str | DType] | None = None,
    options: Mapping[str, Any] | None = None,
    present: Collection[str] = (),
    machine: Machine | str | None = None,
) -> CompiledKernel:
    """As `compile`, with the sizes as a mapping."""
    program = _program_of(operator)
    traced = program.trace(dtypes_of(program, dtype, present), options=options)
    check_sizes(traced, sizes)
    known = dispatch.machine() if machine is None else Machine.of(machine)
    ordered = {d: sizes[d] for d in traced.dims}
    stages = _stages(dispatch.Program.of(traced), ordered, known, design)
    return CompiledKernel(traced, stages.request.design, ordered, known, stages)


def _stages(
    program: dispatch.Program, sizes: dict[str, int], known: Machine, design: Design | None
) -> Stages | CudaStages:
    """What the program becomes for a CPU; or for an NVIDIA GPU, where the sizes are part of it, as in a search."""
    layouts = row_major(program.kernel)
    if known.is_cpu:
        request = dispatch.requested(program, layouts, sizes, known, design)
        return Stages(request, known, target_for(request, known))
    if known.kind != "nvidia":
        raise MachineError(
            f"{known.name} is of kind {known.kind}, which no kernel can be compiled for; it can be simulated"
        )
    from tilewright.runtime.cuda import dispatch as gpu

    aligned = tuple((n, abi.TensorLayout(x.strides, _align(program.kernel.param(n), sizes))) for n, x in layouts)
    return CudaStages(gpu.requested(program, aligned, sizes, known, design, tuple(sizes)), known)


def _align(tensor: ir.Param, sizes: Mapping[str, int]) -> int:
    """What divides the places of a contiguous tensor's rows, the first of which starts at a cache line."""
    assert tensor.dims is not None
    shape = [d if isinstance(d, int) else sizes[d] for d in tensor.dims]
    several = any(n > 1 for n in shape[:-1])
    return math.gcd(shape[-1] * tensor.dtype.bytes if several else 0, 128)


# Operands that hold positions, ids and lengths, by the names that the operators give them.
_INTEGERS = frozenset(
    {"ids", "index", "k_from", "k_to", "lengths", "page_table", "positions", "q_from", "q_to", "slots"}
)


def dtypes_of(
    program: TileProgram, dtype: str | DType | Mapping[str, str | DType] | None = None, present: Collection[str] = ()
) -> dict[str, str | DType]:
    """The dtype of each operand that is required or `present`: as given, else fixed by the program, else f32 or i32."""
    named = dict(dtype) if isinstance(dtype, Mapping) else {}
    default = "f32" if dtype is None or isinstance(dtype, Mapping) else dtype
    chosen: dict[str, str | DType] = dict(named)
    for p in program.signature.params:
        if p.name not in named and (not p.optional or p.name in present):
            chosen[p.name] = p.spec.dtype or ("i32" if p.name in _INTEGERS else default)
    return {**chosen, **dict.fromkeys(set(present) - set(chosen), default)}


def check_sizes(program: ir.Kernel, sizes: Mapping[str, int]) -> None:
    """ArgumentError unless `sizes` gives every dim of the program, and nothing else, as numbers from 0 on."""
    wanted = set(program.dims)
    if set(sizes) != wanted:
        given = ", ".join(f"{d}={n}" for d, n in sizes.items()) or "none"
        raise ArgumentError(f"{program.name} needs the sizes {', '.join(program.dims)}; given: {given}")
    for dim, n in sizes.items():
        if not isinstance(n, int) or n < 0:
            raise ArgumentError(f"{program.name}: {dim}={n!r} is no size; give a whole number from 0 on")


def row_major(program: ir.Kernel) -> dispatch.Layouts:
    """The layout of contiguous tensors, of which only the last dimension has a known stride."""
    return tuple(
        (p.name, abi.TensorLayout((None,) * (len(p.dims) - 1) + (1,) if p.dims else ()))
        for p in program.params
        if p.dims is not None
    )


# ------------------------------------------------------------------------------------------------ launch
def launch(program: Program, /, **operands: Any) -> None:
    """Run a tile program on NumPy arrays or torch tensors, by name; what it stores is written in place.

        @tw.kernel
        def scale(x: tw.Tensor["M", "D"], y: tw.Tensor["M", "D"], alpha: tw.Scalar["f32"]): ...
        tw.launch(scale, x=x, y=y, alpha=2.0)

    dtypes are those of the tensors; static options go by name too; an optional operand may be None or left out. The
    kernel is designed and compiled for the shapes it meets. An output may not share memory with another operand.
    Raises ArgumentError or DTypeError naming the operand.
    """
    bind(program, **operands)()


def bind(program: Program, /, **operands: Any) -> Callable[[], None]:
    """As `launch`, but checked and compiled once: each call of the result computes on what the memory then holds."""
    known = _program_of(program)
    tensors, scalars, options = operands_of(known, operands)
    buffers = {name: _buffer(known.name, name, x) for name, x in tensors.items()}
    given = {**{n: b.dtype.name for n, b in buffers.items()}, **_scalar_dtypes(known, scalars)}
    traced = known.trace(given, options=options)
    check_operands(traced, buffers)
    values = {p.name: scalar_of(traced, p, scalars) for p in traced.params if p.dims is None}
    if not _written(traced, buffers):
        return _nothing
    return dispatch.bind(Named(known.name, known), buffers, values, options)


@dataclass(frozen=True)
class Named:
    """A tile program without a reference, as `dispatch.bind` wants to see operators."""

    name: str
    kernel: TileProgram


def _nothing() -> None:
    """A launch whose outputs have no elements."""


def _program_of(operator: Program) -> TileProgram:
    found = operator if isinstance(operator, TileProgram) else getattr(operator, "kernel", None)
    if not isinstance(found, TileProgram):
        raise ArgumentError(
            f"{operator!r} is no tile program; give tw.operators.matmul, for instance, or a function under @tw.kernel"
        )
    return found


def _buffer(program: str, name: str, x: Any) -> Buffer:
    try:
        return Buffer.of(x)
    except ArgumentError as error:
        raise ArgumentError(f"{program}: {name}: {error}") from None


def _scalar_dtypes(program: TileProgram, scalars: Mapping[str, float | int]) -> dict[str, str]:
    return {p.name: p.spec.dtype.name for p in program.signature.params if p.name in scalars and p.spec.dtype}


def _written(program: ir.Kernel, buffers: Mapping[str, Buffer]) -> bool:
    """Whether there is an element to write at all."""
    outputs = {s.ref.buffer for s in ir.walk(program.body) if isinstance(s, ir.Store)}
    return any(buffers[n].size for n in outputs if n in buffers)


def _refuse_unknown(program: str, given: Mapping[str, object], known: Mapping[str, object]) -> None:
    unknown = sorted(set(given) - set(known))
    if unknown:
        raise ArgumentError(f"{program} has no scalar {unknown[0]!r}; its scalars are {', '.join(known) or 'none'}")


__all__ = ["CompiledKernel", "DesignRecord", "Estimate", "bind", "compile", "launch"]
