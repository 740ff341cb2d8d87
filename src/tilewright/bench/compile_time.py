"""How long a kernel takes to compile that no cache knows: matrix products as a decode and a prefill call for them."""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager

from tilewright import operators
from tilewright.bench.result import Result, rounded
from tilewright.build.kernel_cache import Request, build
from tilewright.errors import TilewrightError
from tilewright.machines.machine import Machine
from tilewright.runtime.compiled import compile_at

DTYPES = ("f32", "bf16")
SHAPES = ({"M": 1, "N": 4096, "K": 4096}, {"M": 512, "N": 4096, "K": 4096})
_CACHE = "TILEWRIGHT_CACHE_DIR"

Seconds = tuple[float, float]


def compile_results(repeats: int) -> Iterator[Result]:
    """Medians of `repeats` builds of each kernel: CPU time of this process and wall time, in milliseconds.

    A build is what a first call waits for: look-up in an empty cache folder, legality, lowering, LLVM, loading,
    writing to the cache. The first one of the process starts LLVM and is not counted.
    """
    machine = Machine.detect()
    for count, (dtype, shape) in enumerate((d, s) for d in DTYPES for s in SHAPES):
        request = compile_at(operators.matmul, shape, dtype=dtype, machine=machine).stages.request
        if not count:
            build_seconds(request, machine)
        yield _result(name_of(dtype, shape), [build_seconds(request, machine) for _ in range(repeats)])


def names() -> list[str]:
    """The results' names, in their order."""
    return [name_of(dtype, shape) for dtype in DTYPES for shape in SHAPES]


def name_of(dtype: str, shape: dict[str, int]) -> str:
    """`compile matmul bf16 1x4096x4096`."""
    return f"compile matmul {dtype} " + "x".join(map(str, shape.values()))


def build_seconds(request: Request, machine: Machine) -> Seconds:
    """(CPU, wall) seconds of building `request` with an empty cache folder; TilewrightError if it was found anyway."""
    with _empty_cache():
        wall, cpu = time.perf_counter(), time.process_time()
        binary = build(request, machine)
        taken = time.process_time() - cpu, time.perf_counter() - wall
    if not binary.seconds:
        raise TilewrightError(f"{request.kernel.name} was found in an empty cache folder; nothing was compiled")
    return taken


@contextmanager
def _empty_cache() -> Iterator[None]:
    """A cache folder of its own for what runs inside."""
    before = os.environ.get(_CACHE)
    with tempfile.TemporaryDirectory(prefix="tilewright-bench-") as folder:
        os.environ[_CACHE] = folder
        try:
            yield
        finally:
            os.environ.pop(_CACHE)
            if before is not None:
                os.environ[_CACHE] = before


def _result(name: str, samples: list[Seconds]) -> Result:
    cpu, wall = ([round(1e3 * s, 3) for s in column] for column in zip(*samples, strict=True))
    medians = {"cpu_ms": statistics.median(cpu), "wall_ms": statistics.median(wall)}
    return Result("compile", name, 1, rounded(medians), {"samples_cpu_ms": cpu, "samples_wall_ms": wall})
