"""Operators compiled for a machine, a layout and a design, and run on cases against the float64 reference."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import numpy as np
from cases import Case, Memory

from tilewright.build.kernel_cache import Request, build
from tilewright.design.default import Facts, default_design
from tilewright.design.design import Design
from tilewright.emit.abi import TensorLayout
from tilewright.language import ir, structure
from tilewright.language.dtypes import dtype
from tilewright.machines.machine import Atom, Machine, MemoryLevel, VectorISA
from tilewright.machines.x86 import request_amx
from tilewright.runtime import tolerance
from tilewright.runtime.buffer import Buffer
from tilewright.runtime.dispatch import Kernel, whole_dims

# What this processor executes: its own vectors, those of AVX2 alone, and what any x86 has.
SSE2 = Machine(
    name="sse2",
    kind="generic",
    architecture="x86_64",
    cores=2,
    levels=tuple(MemoryLevel(n, b) for n, b in (("l1", 32 << 10), ("l2", 512 << 10), ("dram", None))),
    atoms=(Atom("scalar", "f32", "f32", (1, 1, 1)),),
    vector=VectorISA(bits=128, registers=16),
)
LAYOUTS = ("any", "rows", "columns", "aligned")
_PROTOTYPE = ctypes.CFUNCTYPE(None, ctypes.c_void_p)


def machines() -> dict[str, Machine]:
    """Machines whose kernels run here, by the width of their vectors."""
    host = Machine.detect()
    if host.has("amx-tile"):
        assert request_amx(), "the system does not let this process use AMX tiles"
    found = {"128": SSE2}
    for bits, machine in (("256", Machine.named("x86-avx2")), ("512", host)):
        if machine.vector_bits == int(bits) and all(host.has(f) for f in machine.vector.features):
            found[bits] = machine
    return found


class Guarded(Memory):
    """Arrays with one kind of layout, lying in rooms of NaN (-77 for integers): what nobody may read or write.

    `any`: any strides; `rows`: stride one along the last dimension; `columns`: along the first;
    `aligned`: rows that start at multiples of 64 bytes.
    """

    def __init__(self, seed: int, layout: str = "any") -> None:
        super().__init__(seed)
        self.layout = layout
        self.rooms: list[tuple[Any, Any]] = []

    def laid_out(self, values: Any) -> Any:
        order = self._order(values.ndim)
        gaps = [int(self.random.integers(0, 3)) for _ in order]
        shape = [values.shape[i] + gap for i, gap in zip(order, gaps, strict=True)]
        if self.layout == "aligned" and shape:
            lanes = 64 // values.itemsize
            shape[-1] = -(-shape[-1] // lanes) * lanes
        room = _aligned_array(shape, values.dtype, 0 if self.layout == "aligned" else 1)
        room[...] = _guard(values.dtype)
        view = room[tuple(slice(0, values.shape[i]) for i in order)].transpose(np.argsort(order))
        if values.ndim > (self.layout != "any") and self.layout != "columns" and self.random.random() < 0.25:
            view = view[::-1]
        view[...] = values
        self.rooms.append((room, view))
        return view

    def _order(self, rank: int) -> Any:
        if self.layout == "any":
            return self.random.permutation(rank)
        return list(range(rank))[::-1] if self.layout == "columns" else list(range(rank))

    def intact(self) -> bool:
        """Whether everything outside the arrays is as it was."""
        return all(_outside_is(room, view) for room, view in self.rooms)

    def facts(self, rank: int) -> TensorLayout:
        """What a kernel may rely on in an array of that rank."""
        strides: list[int | None] = [None] * rank
        if rank and self.layout != "any":
            strides[0 if self.layout == "columns" else -1] = 1
        return TensorLayout(tuple(strides), 64 if self.layout == "aligned" else 1)


def _guard(kind: Any) -> Any:
    return -77 if np.dtype(kind).kind == "i" else np.nan


def _aligned_array(shape: list[int], kind: Any, offset: int) -> Any:
    """An array `offset` elements behind a multiple of 64 bytes."""
    count = int(np.prod(shape, dtype=np.int64))
    memory = np.zeros(count + 64 + offset, kind)
    first = -(memory.ctypes.data // memory.itemsize) % (64 // memory.itemsize) + offset
    return memory[first : first + count].reshape(shape)


def _outside_is(room: Any, view: Any) -> bool:
    kept = view.copy()
    view[...] = _guard(room.dtype)
    whole = room.astype(np.float64)
    view[...] = kept
    return bool(np.all(np.isnan(whole)) if np.dtype(room.dtype).kind != "i" else np.all(whole == -77))


@dataclass(frozen=True)
class Class:
    """All that a generic kernel is compiled for."""

    program: ir.Kernel
    layouts: tuple[tuple[str, TensorLayout], ...]
    machine: Machine
    design: Design
    sizes: tuple[tuple[str, int], ...] = ()


@cache
def compiled(wanted: Class) -> Kernel:
    """The kernel, compiled once for all cases of its class."""
    binary = build(Request(wanted.program, wanted.design, wanted.layouts, wanted.sizes), wanted.machine)
    return Kernel(wanted.program.name, wanted.program, wanted.design, binary, (), _PROTOTYPE(binary.address))


@dataclass
class Run:
    """One case on one machine; `outputs` are filled by `compiled_outputs`."""

    case: Case
    memory: Guarded
    machine: Machine
    tensors: dict[str, Any] = field(init=False)
    program: ir.Kernel = field(init=False)

    def __post_init__(self) -> None:
        case = self.case
        outputs = {n: self.memory.poisoned(*what) for n, what in case.outputs.items()}
        for name in case.operator.updates:
            outputs[name][...] = case.inputs[name]
        self.tensors = {**{n: x for n, x in case.inputs.items() if x is not None}, **outputs}
        types = {n: dtype(x.dtype) for n, x in self.tensors.items()}
        self.program = case.operator.kernel.trace(types, options=case.options)

    @property
    def sizes(self) -> dict[str, int]:
        """Every symbolic size of this case."""
        found: dict[str, int] = {}
        for p in self.program.params:
            for dim, n in zip(p.dims or (), self.tensors[p.name].shape if p.dims is not None else (), strict=True):
                found |= {dim: n} if isinstance(dim, str) else {}
        return found

    @property
    def layouts(self) -> tuple[tuple[str, TensorLayout], ...]:
        return tuple((n, self.memory.facts(x.ndim)) for n, x in self.tensors.items())

    def facts(self, sizes: dict[str, int] | None = None) -> Facts:
        """The facts for a design; `sizes` in place of those of the case."""
        unit = {n: tuple(d for d, s in enumerate(x.strides) if s == 1) for n, x in self.layouts}
        aligned = frozenset(n for n, x in self.layouts if x.align >= 64)
        return Facts({**self.sizes, **(sizes or {})}, unit, self.machine, aligned)

    def kernel(self, design: Design | None = None, sizes: dict[str, int] | None = None, fixed: bool = False) -> Kernel:
        """The kernel for this case's class; `sizes` are what the default design is chosen for."""
        design = design or default_design(self.program, self.facts(sizes))
        whole = self.program.dims if fixed else whole_dims(self.program)
        known = tuple((d, self.sizes[d]) for d in whole)
        return compiled(Class(self.program, self.layouts, self.machine, design, known))

    def outputs(self, kernel: Kernel) -> dict[str, Any]:
        """What `kernel` writes, with everything around it intact."""
        buffers = {n: Buffer.of(x) for n, x in self.tensors.items()}
        kernel.bind(buffers, self.case.scalars, self.sizes)()
        assert self.memory.intact(), "the kernel wrote outside its operands"
        return {n: self.tensors[n] for n in self.case.outputs}

    def check(self, kernel: Kernel) -> None:
        """Run `kernel`; every output is within its bound of the float64 reference."""
        expected = self.case.expected()
        for name, actual in self.outputs(kernel).items():
            tolerance.check(f"{self.case.operator.name}.{name}", actual, expected[name])


def serial_axes(program: ir.Kernel) -> list[str]:
    """Axes of the serial loops of a program."""
    parallel = {a.name for n in structure.nests(program) for a in n.loop.axes}
    return [a.name for a in structure.axes(program).values() if a.name not in parallel and not a.each]
