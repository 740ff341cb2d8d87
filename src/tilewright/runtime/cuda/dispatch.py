"""From operands on a GPU to a launch: which kernel, compiled if need be, tied to the memory it works on."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from functools import cache

from tilewright.build.cuda_kernel import CudaBinary, build_cuda
from tilewright.build.kernel_cache import Request
from tilewright.design.default import Facts, default_design
from tilewright.design.design import Design
from tilewright.errors import ArgumentError, MachineError
from tilewright.machines import nvidia
from tilewright.machines.machine import Machine
from tilewright.runtime.buffer import Buffer
from tilewright.runtime.cuda import driver
from tilewright.runtime.cuda.kernel import GpuKernel, GpuLaunch, layout_on_gpu
from tilewright.runtime.cuda.packed import PackedLaunch
from tilewright.runtime.dispatch import Layouts, Program

_kernels: dict[tuple[Program, Layouts, tuple[tuple[str, int], ...], int], GpuKernel] = {}
_by_request: dict[tuple[Request, int], GpuKernel] = {}
_compiling = threading.Lock()


def bind(
    program: Program, buffers: Mapping[str, Buffer], scalars: Mapping[str, float | int], sizes: dict[str, int]
) -> GpuLaunch | PackedLaunch:
    """`program` on operands that all lie on one GPU, by the best kernel known for their sizes."""
    device = device_of(program.kernel.name, buffers)
    layouts = tuple((n, layout_on_gpu(b)) for n, b in buffers.items())
    return kernel_for(program, layouts, program.significant(sizes), device).bind(buffers, scalars, sizes)


def kernel_for(program: Program, layouts: Layouts, sizes: tuple[tuple[str, int], ...], device: int) -> GpuKernel:
    """The kernel for these sizes: the design they call for, compiled once however many sizes share it."""
    key = (program, layouts, sizes, device)
    found = _kernels.get(key)
    if found is None:
        with _compiling:
            found = _kernels.get(key)
            if found is None:
                request = requested(program, layouts, dict(sizes), machine(device))
                found = _kernels[key] = loaded(request, device)
    return found


def requested(
    program: Program, layouts: Layouts, sizes: Mapping[str, int], known: Machine, design: Design | None = None,
    fixed: tuple[str, ...] = (),
) -> Request:  # fmt: skip
    """What has to be built for these sizes on `known`: by `design`, or by the default one that they call for.

    `fixed` dims are a part of the kernel, beside those that values lie along as a whole.
    """
    literal = tuple((d, n) for d, n in sizes.items() if d in program.whole or d in fixed)
    if design is None:
        unit = {n: tuple(d for d, s in enumerate(x.strides) if s == 1) for n, x in layouts}
        aligned = frozenset(n for n, x in layouts if x.align >= 16)
        facts = Facts(dict(sizes), unit, known, aligned, frozenset(d for d, _ in literal))
        design = default_design(program.kernel, facts)
    return Request(program.kernel, design, layouts, literal)


def loaded(request: Request, device: int) -> GpuKernel:
    """The kernel of a request on a device, from the cache on disk or from the compiler."""
    found = _by_request.get((request, device))
    if found is None:
        known = machine(device)
        found = _by_request[request, device] = _loaded(request, build_cuda(request, known), known, device)
    return found


def _loaded(request: Request, binary: CudaBinary, known: Machine, device: int) -> GpuKernel:
    module = binary.module
    function = driver.load(binary.cubin, module.entry, device, module.threads, module.shared_bytes, module.grid.cluster)
    packs = tuple((name, _loaded(r, b, known, device)) for name, r, b in binary.packs)
    return GpuKernel(request, binary, function, known, packs)


@cache
def machine(device: int) -> Machine:
    """The GPU that kernels on `device` are compiled for. MachineError where Tilewright has no back end for it."""
    found = nvidia.detect(device)
    capability = int(found.limit("compute_capability"))
    if capability < 80:
        raise MachineError(f"{found.name} has compute capability {capability}; 80 (Ampere) is the least")
    return found


def device_of(name: str, buffers: Mapping[str, Buffer]) -> int:
    """The number of the GPU that all operands lie on; ArgumentError if they lie on several devices."""
    found = {b.device for b in buffers.values()}
    if len(found) != 1:
        where = ", ".join(f"{n} on {b.device}" for n, b in buffers.items())
        raise ArgumentError(f"{name}: operands lie on several devices ({where}); move them to one")
    return int(next(iter(found)).partition(":")[2] or 0)


__all__ = ["bind", "device_of", "kernel_for", "layout_on_gpu", "loaded", "machine", "requested"]
