"""From operands on a GPU to a launch: which kernel, compiled if need be, tied to the memory it works on."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Collection, Mapping, Sequence
from functools import cache, lru_cache
from typing import TYPE_CHECKING, Any

from tilewright.build.cuda_kernel import CudaBinary, build_cuda, build_many
from tilewright.build.kernel_cache import Request
from tilewright.design.default import Facts, default_design
from tilewright.design.design import Design
from tilewright.design.gpu.rows import fixed_dims, inner_dims
from tilewright.errors import ArgumentError, MachineError, TilewrightError
from tilewright.knobs import knobs
from tilewright.machines import nvidia
from tilewright.machines.machine import Machine
from tilewright.runtime import modes
from tilewright.runtime.buckets import Exact
from tilewright.runtime.buffer import Buffer
from tilewright.runtime.chosen import sizes_of
from tilewright.runtime.cuda import debug, driver
from tilewright.runtime.cuda.kernel import GpuKernel, layout_on_gpu
from tilewright.runtime.dispatch import MOST_KERNELS, Layouts, Program, slot_of
from tilewright.runtime.polite import breathe

if TYPE_CHECKING:
    from tilewright.runtime.cuda.follow import Following

_kernels: dict[tuple[int, int], tuple[Request, GpuKernel]] = {}
_listed: dict[tuple[Program, int, str], frozenset[Exact]] = {}
_requests: dict[tuple[Program, Layouts, tuple[tuple[str, int], ...], int, tuple[str, ...]], Request] = {}
_by_request: dict[tuple[Request, int], GpuKernel] = {}
_compiling = threading.Lock()


def bind(
    operator: Any,
    program: Program,
    buffers: Mapping[str, Buffer],
    scalars: Mapping[str, float | int],
    sizes: dict[str, int],
    options: Mapping[str, object],
) -> Following:
    """`program` on operands that all lie on one GPU, by the best kernel known for their sizes."""
    from tilewright.runtime.cuda.follow import followed
    from tilewright.runtime.cuda.origin import GpuOrigin

    device = device_of(program.kernel.name, buffers)
    layouts = tuple((n, layout_on_gpu(b)) for n, b in buffers.items())
    origin = GpuOrigin(program, layouts, operator, tuple(sorted(options.items())), device, fixed_of(program, sizes))
    with driver.inside(device):  # a thread of the caller's may have no context yet
        return followed(slot_of(origin, sizes, knobs()), origin, buffers, scalars, sizes)


def listed(program: Program, device: int, mode: str) -> frozenset[Exact]:
    """The sizes that the book has verified designs of a program for; it is read once for each."""
    key = (program, device, mode)
    found = _listed.get(key)
    if found is None:
        found = _listed[key] = sizes_of(program.kernel, machine(device))
    return found


def kernel_of(request: Request, device: int) -> GpuKernel:
    """The kernel of a request, compiled once however many threads ask for it; the same object is found at once."""
    known = _kernels.get((id(request), device))
    if known is None:
        with _compiling:
            return _remembered(request, loaded(request, device), device)
    return known[1]


def _remembered(request: Request, kernel: GpuKernel, device: int) -> GpuKernel:
    """The kernel, which is found by the identity of its request from now on."""
    while len(_kernels) >= MOST_KERNELS:
        del _kernels[next(iter(_kernels))]
    _kernels[id(request), device] = request, kernel  # which keeps the request, and so its id
    return kernel


def forget_chosen() -> None:
    """Read the book again: it has changed."""
    _listed.clear()


MOST_LENGTHS = 32
"""Lengths of rows that a program gets kernels of their own for; further ones share a kernel that takes any."""
_lengths: dict[Program, set[tuple[int, ...]]] = {}


def fixed_of(program: Program, sizes: Mapping[str, int]) -> tuple[str, ...]:
    """Dims whose sizes become a part of the kernel: how long rows or pages are, unless a program meets too many."""
    dims = _fixed_dims(program)
    known, now = _lengths.setdefault(program, set()), tuple(sizes[d] for d in dims)
    if now not in known and len(known) < MOST_LENGTHS:
        known.add(now)
    return dims if now in known else ()


@lru_cache(maxsize=1024)
def _fixed_dims(program: Program) -> tuple[str, ...]:
    return (*fixed_dims(program.kernel), *inner_dims(program.kernel))


def request_for(
    program: Program, layouts: Layouts, sizes: tuple[tuple[str, int], ...], device: int, fixed: tuple[str, ...] = ()
) -> Request:
    """What has to be built for these sizes on a device; `fixed` dims are a part of the kernel, see `requested`."""
    key = (program, layouts, sizes, device, fixed)
    found = _requests.get(key)
    if found is None:
        found = _requests[key] = requested(program, layouts, dict(sizes), machine(device), fixed=fixed)
    return found


def load_many(requests: Sequence[Request], device: int) -> list[GpuKernel]:
    """The kernels of requests, what has to be compiled side by side; raises the first error there is."""
    found = [_kernels.get((id(r), device)) for r in requests]
    if all(found):
        return [pair[1] for pair in found if pair]
    with _compiling:
        missing = [r for r in dict.fromkeys(requests) if (r, device) not in _by_request]
        known, begun = machine(device), time.perf_counter()
        binaries = build_many(missing, known, len(os.sched_getaffinity(0)))
        _count(binaries, time.perf_counter() - begun)
        for request, binary in zip(missing, binaries, strict=True):
            if isinstance(binary, TilewrightError):
                raise binary
            _by_request[request, device] = _loaded(request, binary, known, device)
        return [_remembered(r, _by_request[r, device], device) for r in requests]


def requested(
    program: Program, layouts: Layouts, sizes: Mapping[str, int], known: Machine, design: Design | None = None,
    fixed: tuple[str, ...] = (),
) -> Request:  # fmt: skip
    """What has to be built for these sizes on `known`: by `design`, or by the default one that they call for.

    `fixed` dims are a part of the kernel, beside those that values lie along as a whole.
    """
    literal = tuple((d, n) for d, n in sizes.items() if d in program.whole or d in fixed)
    if design is None:
        design = default_design(program.kernel, facts_of(layouts, sizes, known, dict(literal)))
    return Request(program.kernel, design, layouts, literal)


def facts_of(layouts: Layouts, sizes: Mapping[str, int], known: Machine, fixed: Collection[str]) -> Facts:
    """What a design may rely on for operands that lie so, where `fixed` dims are a part of the kernel."""
    unit = {n: tuple(d for d, s in enumerate(x.strides) if s == 1) for n, x in layouts}
    return Facts(dict(sizes), unit, known, frozenset(n for n, x in layouts if x.align >= 16), frozenset(fixed))


def loaded(request: Request, device: int) -> GpuKernel:
    """The kernel of a request on a device, from the cache on disk or from the compiler."""
    found = _by_request.get((request, device))
    if found is None:
        known = machine(device)
        breathe()  # a learner loads what it swaps in
        binary = build_cuda(request, known)
        breathe()
        modes.count(binary.seconds)
        found = _by_request[request, device] = _loaded(request, binary, known, device)
    return found


def _count(binaries: Sequence[CudaBinary | TilewrightError], seconds: float) -> None:
    """Note kernels that were built side by side in so many seconds, which those that were compiled share."""
    built = [b for b in binaries if isinstance(b, CudaBinary)]
    compiled = sum(b.seconds > 0 for b in built)
    for binary in built:
        modes.count(seconds / compiled if binary.seconds > 0 else 0.0)


def _loaded(request: Request, binary: CudaBinary, known: Machine, device: int) -> GpuKernel:
    debug.built(request, binary, known)
    module = binary.module
    function = driver.load(binary.cubin, module.entry, device, module.threads, module.shared_bytes, module.grid.cluster)
    packs = tuple((name, _loaded(r, b, known, device)) for name, r, b in binary.packs)
    return GpuKernel(request, binary, function, known, packs)


@cache
def machine(device: int) -> Machine:
    """The GPU that kernels on `device` are compiled for. MachineError where Tilewright has no back end for it."""
    found = nvidia.detect(device)
    if reason := nvidia.unsupported(found.name, int(found.limit("compute_capability"))):
        raise MachineError(reason)
    return found


def device_of(name: str, buffers: Mapping[str, Buffer]) -> int:
    """The number of the GPU that all operands lie on; ArgumentError if they lie on several devices."""
    found = {b.device for b in buffers.values()}
    if len(found) != 1:
        where = ", ".join(f"{n} on {b.device}" for n, b in buffers.items())
        raise ArgumentError(f"{name}: operands lie on several devices ({where}); move them to one")
    return int(next(iter(found)).partition(":")[2] or 0)


__all__ = [
    "bind",
    "device_of",
    "facts_of",
    "fixed_of",
    "forget_chosen",
    "kernel_of",
    "layout_on_gpu",
    "listed",
    "load_many",
    "loaded",
    "machine",
    "request_for",
    "requested",
]
