"""Measures main-memory bandwidth: threads that stream through one buffer, by the best of several kernels.

A memory-bound kernel is judged against these rates, so they are as high as the machine allows: a few
kernels (vector width, streams, bytes per step, prefetch distance) are screened, then the best of them
are run in turns, and the highest median counts.
"""

from __future__ import annotations

import ctypes
import math
import statistics
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from tilewright.machines._jit import Compiled
from tilewright.machines._stream_kernels import LINE, StreamKernel
from tilewright.machines.bandwidth import OPERATIONS
from tilewright.machines.free_memory import free_memory
from tilewright.machines.machine import Machine

_MOST_BYTES = 512 * 2**20
_CACHE_MULTIPLE = 8  # the buffer is this many times the last cache, where memory allows
_PASS_SECONDS = 0.02  # one timed run is repeated inside the kernel until it takes this long
_SCREENING, _FINALISTS, _SAMPLES, _CHOOSING = 2, 3, 9, 5
# (streams, bytes per step and stream, prefetch distance): each was the best somewhere
_SHAPES = ((1, 64, 0), (1, 128, 0), (1, 256, 2048), (2, 128, 0), (2, 128, 4096), (2, 256, 0), (4, 64, 0), (4, 256, 0),
           (4, 128, 2048), (8, 128, 0))  # fmt: skip


@dataclass(frozen=True)
class Stream:
    """Calling it moves `bytes` bytes through memory by `kernel`, on all threads; it returns the seconds that took."""

    kernel: StreamKernel
    bytes: int
    run: Callable[[], float]

    def __call__(self) -> float:
        return self.run()


class Probe:
    """The best streaming kernels for a machine and a number of threads, ready to be timed beside other work."""

    def __init__(self, machine: Machine, threads: int) -> None:
        self._crew = _Crew(threads, _buffer_bytes(machine))
        self._kernels: dict[str, list[tuple[StreamKernel, Compiled]]] = {}
        self._machine = machine

    def __enter__(self) -> Probe:
        self._crew.start()
        for operation in OPERATIONS:
            self._kernels[operation] = self._screen(operation)
        return self

    def __exit__(self, *_: object) -> None:
        self._crew.stop()

    def rate(self, operation: str) -> float:
        """Bytes/s now, over about 20 ms: the better of the two kernels that were the best when the probe started."""
        return max(self._crew.rate(*kernel) for kernel in self._kernels[operation][:2])

    def stream(self, operation: str) -> Stream:
        """The kernel that is the best of `operation` now, as a call of about 20 ms to be timed in turns with others."""
        samples = self.samples(operation, _CHOOSING)
        best = max(samples, key=lambda k: statistics.median(samples[k]))
        return self._crew.stream(best, dict(self._kernels[operation])[best])

    def samples(self, operation: str, count: int) -> dict[StreamKernel, list[float]]:
        """`count` rates in bytes/s of each finalist, taken in turns so that a busy moment falls on all of them."""
        rates: dict[StreamKernel, list[float]] = {kernel: [] for kernel, _ in self._kernels[operation]}
        for _ in range(count):
            for kernel, code in self._kernels[operation]:
                rates[kernel].append(self._crew.rate(kernel, code))
        return rates

    def _screen(self, operation: str) -> list[tuple[StreamKernel, Compiled]]:
        m = self._machine
        tried = []
        for kernel in candidates(m, operation):
            code = Compiled(kernel.ir, m.llvm_cpu, m.llvm_features)
            tried.append((max(self._crew.rate(kernel, code) for _ in range(_SCREENING)), kernel, code))
        tried.sort(key=lambda item: -item[0])
        return [(kernel, code) for _, kernel, code in tried[:_FINALISTS]]


def measure(machine: Machine, threads: int) -> tuple[dict[str, float], dict[str, Any]]:
    """For each operation its best rate in bytes/s, and the evidence: the kernel that reached it and its samples."""
    rates, evidence = {}, {}
    with Probe(machine, threads) as probe:
        for operation in OPERATIONS:
            samples = probe.samples(operation, _SAMPLES)
            best = max(samples, key=lambda k: statistics.median(samples[k]))
            rates[operation] = statistics.median(samples[best])
            evidence[operation] = {"kernel": asdict(best), "bytes_per_s": samples[best]}
    return rates, evidence


def candidates(machine: Machine, operation: str) -> list[StreamKernel]:
    """The kernels worth trying on `machine`: those whose sums fit its vector registers."""
    widths = sorted({machine.vector_bits, min(256, machine.vector_bits)})
    spare = machine.vector_registers - 2
    every = [StreamKernel(operation, bits, *shape) for bits in widths for shape in _SHAPES]
    return [k for k in every if operation != "read" or k.streams * k.step * 8 // k.bits <= spare]


def _buffer_bytes(machine: Machine) -> int:
    """Bytes of the buffer: several times the last cache, within bounds and a quarter of the free memory."""
    last = max((m.bytes or 0) * math.ceil(machine.cores / m.shared_by) for m in machine.levels)
    return min(_MOST_BYTES, max(_MOST_BYTES // 4, _CACHE_MULTIPLE * last), max(2**24, free_memory() // 4))


class _Crew:
    """Threads that each own a part of one buffer and run a kernel on it together."""

    def __init__(self, threads: int, size: int) -> None:
        self.threads = threads
        unit = 2**16 * threads  # each half of each part: a multiple of every kernel's streams * step
        self.bytes = max(unit, size // unit * unit)
        self._buffer = np.empty(self.bytes + LINE, np.uint8)
        self._start = -self._buffer.ctypes.data % LINE
        self._gate, self._done = threading.Barrier(threads + 1), threading.Barrier(threads + 1)
        self._job: Callable[[int], None] | None = None
        self._spans: list[tuple[float, float]] = [(0.0, 0.0)] * threads
        self._seconds: dict[str, float] = {}

    def start(self) -> None:
        """Start the threads; each touches its part of the buffer first, so that it lies near its core."""
        for i in range(self.threads):
            threading.Thread(target=self._work, args=(i,), daemon=True).start()
        self._run(self._touch)

    def stop(self) -> None:
        """End the threads."""
        self._job = None
        self._gate.wait()

    def rate(self, kernel: StreamKernel, code: Compiled) -> float:
        """Bytes/s of one timed run of `kernel` by all threads at once."""
        stream = self.stream(kernel, code)
        return stream.bytes / stream()

    def stream(self, kernel: StreamKernel, code: Compiled) -> Stream:
        """Runs of `kernel` by all threads at once, each as many passes through the buffer as fill _PASS_SECONDS."""
        function = code.function("kernel", *[ctypes.c_void_p] * 2, *[ctypes.c_int64] * 2)
        part, base = self.bytes // self.threads, int(self._buffer.ctypes.data) + self._start
        reads = kernel.operation == "read"
        sums = np.empty((self.threads, 2 * LINE), np.uint8)
        extent = part if reads else part // 2

        def target(i: int) -> int:
            own = int(sums[i].ctypes.data)
            return own + -own % LINE if reads else base + i * part + extent

        def run(passes: int) -> float:
            return self._run(lambda i: function(base + i * part, target(i), extent, passes))

        if kernel.operation not in self._seconds:
            self._seconds[kernel.operation] = run(1)
        passes = math.ceil(_PASS_SECONDS / self._seconds[kernel.operation])
        return Stream(kernel, self.bytes * passes, lambda: run(passes))

    def _run(self, job: Callable[[int], None]) -> float:
        """Seconds from the first thread's start to the last one's end."""
        self._job = job
        self._gate.wait()
        self._done.wait()
        return max(end for _, end in self._spans) - min(start for start, _ in self._spans)

    def _work(self, i: int) -> None:
        while True:
            self._gate.wait()
            if self._job is None:
                return
            start = time.perf_counter()
            self._job(i)
            self._spans[i] = (start, time.perf_counter())
            self._done.wait()

    def _touch(self, i: int) -> None:
        """Fill part `i` with what is not zero: pages of zeros may share one frame."""
        part = self.bytes // self.threads
        self._buffer[self._start + i * part : self._start + (i + 1) * part] = 1 + i % 255
