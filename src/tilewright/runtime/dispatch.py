"""From operands to a launch: which kernel, compiled if need be, tied to the memory it works on."""

from __future__ import annotations

import ctypes
import math
import struct
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache, lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from tilewright.build.kernel_cache import Binary, Request, build
from tilewright.design.default import Facts, default_design
from tilewright.design.design import Design
from tilewright.emit import abi
from tilewright.errors import MachineError
from tilewright.knobs import knobs
from tilewright.language import ir, structure
from tilewright.machines.machine import Machine
from tilewright.runtime import debug, pool
from tilewright.runtime.buffer import Buffer

if TYPE_CHECKING:
    from tilewright.runtime.cuda.kernel import GpuLaunch
    from tilewright.runtime.cuda.packed import PackedLaunch

_PROTOTYPE = ctypes.CFUNCTYPE(None, ctypes.c_void_p)

# A region on the pool costs about a microsecond: less work than this (in seconds, at the rates below) runs alone.
_WORTH_A_TEAM = 6e-6
_BYTES_A_SECOND, _FLOPS_A_SECOND = 20e9, 60e9


@dataclass(frozen=True)
class Kernel:
    """A compiled operator for one class of operands: call `bind` to get launches."""

    name: str
    program: ir.Kernel
    design: Design
    binary: Binary
    flops_of: tuple[tuple[str, ...], ...]  # for each dot, the axes' dims whose product is its multiplications
    entry: Any = field(repr=False, compare=False)

    def bind(self, buffers: Mapping[str, Buffer], scalars: Mapping[str, float | int], sizes: dict[str, int]) -> Launch:
        """A launch on these operands."""
        program = self.program
        words = np.zeros(abi.word_count(program), np.int64)
        for p in program.params:
            if p.dims is None:
                words[abi.scalar_word(program, p.name)] = _scalar_bits(p, scalars[p.name])
                continue
            buffer, at = buffers[p.name], abi.tensor_word(program, p.name)
            words[at] = buffer.pointer
            words[at + 1 : at + 1 + len(buffer.strides)] = buffer.strides
        for dim in program.dims:
            words[abi.dim_word(program, dim)] = sizes[dim]
        team = self._team(buffers, sizes)
        if team is not None:
            words[abi.POOL], words[abi.ENTRY] = team.context_address, team.entry_address
        threads = 1 if team is None else team.threads
        words[abi.THREADS] = threads
        room = sum(r.bytes(sizes) * (threads if r.per_thread else 1) for r in self.binary.workspace)
        return Launch(self, words, room, buffers)

    def _team(self, buffers: Mapping[str, Buffer], sizes: dict[str, int]) -> pool.Pool | None:
        """The pool, where there is enough to do; of no more threads than the design says it pays to use."""
        work = sum(b.size * b.dtype.bytes for b in buffers.values()) / _BYTES_A_SECOND
        for dims in self.flops_of:
            work += 2.0 * math.prod([sizes[d] for d in dims]) / _FLOPS_A_SECOND
        if work < _WORTH_A_TEAM:
            return None
        available = pool.available_threads()
        team = pool.get(min(available, self.design.number("threads", available)))
        return team if team.threads > 1 else None


class Launch:
    """A kernel tied to its operands: call it, as often as wanted, on what the memory then holds."""

    __slots__ = ("_address", "_entry", "_room", "kernel", "operands", "words")

    def __init__(self, kernel: Kernel, words: np.ndarray, room: int, operands: Mapping[str, Buffer]) -> None:
        self.kernel = kernel
        self.words = words  # see emit.abi
        self.operands = operands  # whose owners keep their memory alive
        self._address = words.ctypes.data
        self._entry = kernel.entry
        self._room = room

    def __call__(self) -> None:
        if self._room:
            self.words[abi.WORKSPACE] = _arena(self._room)
        self._entry(self._address)

    @property
    def program(self) -> ir.Kernel:
        """What it computes."""
        return self.kernel.program

    @property
    def relies_on_alignment(self) -> bool:
        """Whether its kernel is right only where pointers lie as they did when it was bound."""
        return any(True for _ in self.kernel.design.prefixed("nontemporal"))

    def pointer_word(self, name: str) -> int:
        """The word that holds the pointer of a tensor."""
        return abi.tensor_word(self.kernel.program, name)

    def detached(self) -> Launch:
        """The same launch with words of its own, which keeps no operand alive."""
        return Launch(self.kernel, self.words.copy(), self._room, {})

    @property
    def room(self) -> int:
        """Bytes of workspace that a call takes."""
        return self._room

    def run_in(self, workspace: int) -> None:
        """As a call, in `room` bytes at this address, a multiple of 64."""
        self.words[abi.WORKSPACE] = workspace
        self._entry(self._address)


def bind(
    operator: Any, buffers: Mapping[str, Buffer], scalars: Mapping[str, float | int], options: Mapping[str, object]
) -> Launch | debug.Timed | GpuLaunch | PackedLaunch:
    """`operator` on these operands, by the best kernel known for their sizes.

    Tensors that are absent are left out of `buffers`; `options` are the operator's static ones.
    Operands on a GPU run there; ArgumentError where they lie on several devices.
    """
    dtypes = tuple((n, b.dtype.name) for n, b in buffers.items())
    program = _traced(operator.kernel, dtypes, tuple(sorted(options.items())))
    sizes = _sizes(program.kernel, buffers)
    if any(b.device != "cpu" for b in buffers.values()):
        from tilewright.runtime.cuda import dispatch as gpu  # a program on the cpu never pays for it

        return gpu.bind(program, buffers, scalars, sizes)
    layouts = tuple((n, layout_of(b)) for n, b in buffers.items())
    kernel = _chosen(program, layouts, sizes) or _kernel(program, layouts, program.significant(sizes))
    launch = kernel.bind(buffers, scalars, sizes)
    return launch if knobs().debug < 2 else debug.timed(launch, buffers, sizes)


# ------------------------------------------------------------------------------------------ kernels
@dataclass(frozen=True, eq=False)
class Program:
    """A traced program and what every call wants to know of it; equal only to itself, so that look-ups are quick."""

    kernel: ir.Kernel
    whole: tuple[str, ...]  # dims that values lie along as a whole: their sizes are part of a kernel
    multiplications: tuple[tuple[str, ...], ...]  # for each dot, the dims whose product counts them

    @classmethod
    def of(cls, kernel: ir.Kernel) -> Program:
        """The program of a trace."""
        return cls(kernel, whole_dims(kernel), _multiplications(kernel))

    def significant(self, sizes: dict[str, int]) -> tuple[tuple[str, int], ...]:
        """Sizes as far as a default design tells them apart: exact when small or whole, else by powers of two."""
        return tuple((d, n if n <= 32 or d in self.whole else 1 << (n - 1).bit_length()) for d, n in sizes.items())


@lru_cache(maxsize=1024)
def _traced(program: Any, dtypes: tuple[tuple[str, str], ...], options: tuple[tuple[str, Any], ...]) -> Program:
    return Program.of(program.trace(dict(dtypes), options=dict(options)))


Layouts = tuple[tuple[str, abi.TensorLayout], ...]
_kernels: dict[tuple[Program, Layouts, tuple[tuple[str, int], ...]], Kernel] = {}
_by_design: dict[tuple[Program, Layouts, tuple[tuple[str, int], ...], Design], Kernel] = {}
_listed: dict[Program, frozenset[tuple[tuple[str, int], ...]]] = {}  # sizes that the book has designs for
_asked: dict[tuple[Program, Layouts, tuple[tuple[str, int], ...]], Kernel | None] = {}
_compiling = threading.Lock()


def _chosen(program: Program, layouts: Layouts, sizes: dict[str, int]) -> Kernel | None:
    """The kernel of a design that the book holds for these very sizes; it is read once, and asked once for each."""
    listed = _listed.get(program)
    if listed is None:
        from tilewright.runtime.chosen import sizes_of

        listed = _listed[program] = sizes_of(program.kernel, machine())
    exact = tuple(sizes.items())
    if exact not in listed:
        return None
    key = (program, layouts, exact)
    if key not in _asked:
        from tilewright.runtime.chosen import designed_for

        facts = facts_of(layouts, sizes, machine())
        with _compiling:
            design = designed_for(program.kernel, facts, pool.available_threads())
            request = requested(program, layouts, sizes, machine(), design)
            _asked[key] = None if design is None else _shared(request, program)
    return _asked[key]


def forget_chosen() -> None:
    """Read the book again: it has changed."""
    from tilewright.runtime import chosen, rebind

    chosen.forget()
    rebind.forget()
    _listed.clear()
    _asked.clear()


def _kernel(program: Program, layouts: Layouts, sizes: tuple[tuple[str, int], ...]) -> Kernel:
    """The kernel for these sizes: the design they call for, compiled once however many sizes share it."""
    key = (program, layouts, sizes)
    found = _kernels.get(key)
    if found is None:
        with _compiling:
            found = _kernels.get(key) or _designed(program, layouts, dict(sizes))
            _kernels[key] = found
    return found


def _designed(program: Program, layouts: Layouts, sizes: dict[str, int]) -> Kernel:
    return _shared(requested(program, layouts, sizes, machine()), program)


def _shared(request: Request, program: Program) -> Kernel:
    key = (program, request.layouts, request.sizes, request.design)
    if key not in _by_design:
        _by_design[key] = compiled(program, request)
    return _by_design[key]


def requested(
    program: Program, layouts: Layouts, sizes: dict[str, int], known: Machine, design: Design | None = None
) -> Request:
    """What has to be built for these sizes on `known`: by `design`, or by the default one that they call for."""
    if design is None:
        design = default_design(program.kernel, facts_of(layouts, dict(program.significant(sizes)), known))
    if not any(name.startswith("nontemporal.") for name, _ in design.decisions):
        layouts = tuple((n, abi.TensorLayout(x.strides)) for n, x in layouts)  # nothing relies on alignment
    return Request(program.kernel, design, layouts, tuple((d, sizes[d]) for d in program.whole))


def facts_of(layouts: Layouts, sizes: Mapping[str, int], known: Machine) -> Facts:
    """What a design may rely on for operands that lie so."""
    unit = {n: tuple(d for d, s in enumerate(x.strides) if s == 1) for n, x in layouts}
    return Facts(sizes, unit, known, frozenset(n for n, x in layouts if x.align >= 64))


def compiled(program: Program, request: Request, known: Machine | None = None) -> Kernel:
    """The kernel of a request for `known` (this machine), from the cache on disk or from the compiler."""
    _ask_for_tiles(request.design)
    known = known or machine()
    binary = build(request, known, debug.observer(known))
    name, entry = request.kernel.name, _PROTOTYPE(binary.address)
    return Kernel(name, request.kernel, request.design, binary, program.multiplications, entry)


@cache
def _tiles_granted() -> bool:
    from tilewright.machines import x86

    return x86.request_amx()


def _ask_for_tiles(design: Design) -> None:
    """Linux gives a process the tile registers of AMX only if asked; using them unasked kills it."""
    wanted = any(choice == "amx_bf16" for _, choice in design.prefixed("atom"))
    if wanted and not _tiles_granted():
        raise MachineError("the system does not let this process use AMX tiles; set TILEWRIGHT_MACHINE=x86-avx512")


def machine() -> Machine:
    """The machine that kernels are compiled for: this one, or what TILEWRIGHT_MACHINE names.

    As the settings and the affinity of now have it, which detection remembers by: the book's keys must follow them.
    """
    return Machine.detect()


def whole_dims(program: ir.Kernel) -> tuple[str, ...]:
    """Dims that values lie along as a whole: their sizes are part of the kernel."""
    loops = structure.axes(program)
    used = {a for let in structure.lets(program).values() for a in let.type.axes}
    return tuple(d for d in program.dims if d in used and d not in loops)


def _multiplications(program: ir.Kernel) -> tuple[tuple[str, ...], ...]:
    loops, values = structure.axes(program), structure.lets(program)

    def dim(axis: str) -> str:
        while axis in loops:
            axis = loops[axis].over
        return axis

    around = tuple(a.over for n in structure.nests(program) for a in n.loop.axes if a.each)
    dots = [v for v in values.values() if isinstance(v.expr, ir.Dot)]
    return tuple(
        (*around, *(dim(a) for a in d.type.axes), dim(d.expr.axis)) for d in dots if isinstance(d.expr, ir.Dot)
    )


def layout_of(buffer: Buffer) -> abi.TensorLayout:
    """Unit strides are part of a kernel, all others are passed; alignment is what every row can rely on."""
    step = buffer.pointer
    for size, stride in zip(buffer.shape, buffer.strides, strict=True):
        if size > 1 and stride != 1:
            step |= stride * buffer.dtype.bytes
    align = 64 if step % 64 == 0 else 1
    unit = next((d for d in reversed(range(len(buffer.shape))) if buffer.strides[d] == 1), None)
    return abi.TensorLayout(tuple(1 if d == unit else None for d in range(len(buffer.shape))), align)


# ------------------------------------------------------------------------------------------ calls
def _sizes(program: ir.Kernel, buffers: Mapping[str, Buffer]) -> dict[str, int]:
    sizes: dict[str, int] = {}
    for p in program.params:
        if p.dims is not None:
            for dim, n in zip(p.dims, buffers[p.name].shape, strict=True):
                if isinstance(dim, str):
                    sizes[dim] = n
    return sizes


def _scalar_bits(p: ir.Param, value: float | int) -> int:
    if p.dtype.name == "f32":
        return int(struct.unpack("<i", struct.pack("<f", value))[0])
    if p.dtype.name == "f64":
        return int(struct.unpack("<q", struct.pack("<d", value))[0])
    return int(value)


_local = threading.local()


def _arena(room: int) -> int:
    """Address of at least `room` bytes of this thread's workspace, aligned to cache lines."""
    if getattr(_local, "room", 0) < room:
        _local.memory = np.empty(room + 64, np.uint8)
        _local.address = -(-_local.memory.ctypes.data // 64) * 64
        _local.room = room
    address: int = _local.address
    return address


def kernels() -> tuple[Kernel, ...]:
    """Every kernel in use, in the order in which they were first needed."""
    return tuple(_by_design.values())
