"""Memory bandwidth of a GPU, measured once and remembered: a copy by the driver, a read by a kernel that only sums.

Buffers are four times the L2 cache and are filled with random bits; the median of several passes by events counts.
"""

from __future__ import annotations

import ctypes
import statistics
from dataclasses import dataclass
from typing import Any

import numpy as np

from tilewright.errors import MachineError
from tilewright.machines import _store, nvidia
from tilewright.machines.machine import Machine
from tilewright.machines.nvidia_driver import asked, driver

_BYTES = 1 << 30
_PASSES = 15
_THREADS = 512
_READ = r"""
extern "C" __global__ void __launch_bounds__(512) sum_all(const uint4* x, unsigned long long n, unsigned* out) {
  unsigned total = 0;
  unsigned long long step = (unsigned long long)gridDim.x * blockDim.x;
  unsigned long long i = (unsigned long long)blockIdx.x * blockDim.x + threadIdx.x;
  for (; i + 7 * step < n; i += 8 * step) {
    uint4 v[8];
#pragma unroll
    for (int u = 0; u < 8; ++u) v[u] = __ldcs(x + i + u * step);
#pragma unroll
    for (int u = 0; u < 8; ++u) total ^= v[u].x ^ v[u].y ^ v[u].z ^ v[u].w;
  }
  for (; i < n; i += step) total ^= x[i].x;
  if (total == 0x12345678u) *out = total;
}
"""


@dataclass(frozen=True)
class GpuBandwidth:
    """Bytes/s of device memory; a copy counts the bytes read plus the bytes written."""

    read: float
    copy: float


def measure(device: int = 0) -> GpuBandwidth:
    """Measure (under a second), remember for this model of GPU, and return. MachineError where that is impossible."""
    cu, machine = driver(), nvidia.detect(device)
    context = asked(cu.cuDevicePrimaryCtxRetain(cu.cuDeviceGet(device)[1]), f"making a context on GPU {device}")
    asked(cu.cuCtxSetCurrent(context), f"switching to GPU {device}")
    memory = [asked(cu.cuMemAlloc(_BYTES), f"allocating {_BYTES} bytes on GPU {device}") for _ in range(2)]
    try:
        noise = np.random.default_rng(0).integers(0, 256, 1 << 24, np.uint8)
        for start in range(0, _BYTES, noise.nbytes):
            asked(cu.cuMemcpyHtoD(int(memory[0]) + start, noise.ctypes.data, noise.nbytes), "filling memory")
        found = GpuBandwidth(_read(cu, machine, memory), _copy(cu, memory))
    finally:
        for pointer in memory:
            cu.cuMemFree(pointer)
    _store.save(nvidia.record_name(machine), {"read": found.read, "copy": found.copy})
    nvidia.detect.cache_clear()
    return found


def _copy(cu: Any, memory: list[Any]) -> float:
    return 2 * _BYTES / _median_seconds(cu, lambda: cu.cuMemcpyDtoDAsync(memory[1], memory[0], _BYTES, 0))


def _read(cu: Any, machine: Machine, memory: list[Any]) -> float:
    function = _compiled(cu, machine.architecture)
    count, out = ctypes.c_ulonglong(_BYTES // 16), ctypes.c_void_p(int(memory[1]))
    source = ctypes.c_void_p(int(memory[0]))
    pointers = (ctypes.c_void_p * 3)(*(ctypes.addressof(v) for v in (source, count, out)))
    blocks = machine.cores * 4

    def launch() -> tuple[Any, ...]:
        answer: tuple[Any, ...] = cu.cuLaunchKernel(
            function, blocks, 1, 1, _THREADS, 1, 1, 0, 0, ctypes.addressof(pointers), 0
        )
        return answer

    return _BYTES / _median_seconds(cu, launch)


def _compiled(cu: Any, architecture: str) -> Any:
    from cuda.core import Program, ProgramOptions

    try:
        code = Program(_READ, "c++", ProgramOptions(arch=architecture)).compile("cubin").code
    except Exception as error:  # cuda-core raises many kinds, none of them documented
        raise MachineError(f"the bandwidth probe cannot be compiled for {architecture} ({error})") from None
    module = asked(cu.cuModuleLoadData(code), "loading the bandwidth probe")
    return asked(cu.cuModuleGetFunction(module, b"sum_all"), "finding the bandwidth probe")


def _median_seconds(cu: Any, launch: Any) -> float:
    start, stop = (asked(cu.cuEventCreate(0), "making an event") for _ in range(2))
    seconds: list[float] = []
    for _ in range(_PASSES):
        cu.cuEventRecord(start, 0)
        asked(launch(), "streaming through memory")
        cu.cuEventRecord(stop, 0)
        asked(cu.cuEventSynchronize(stop), "streaming through memory")
        seconds.append(1e-3 * float(asked(cu.cuEventElapsedTime(start, stop), "timing")))
    return statistics.median(seconds)


__all__ = ["GpuBandwidth", "measure"]
