"""Kernels of a sweep, built side by side before any is timed; a part of the sweeps beside it."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Sequence
from typing import Any


def all_built(requests: Sequence[Any], machine: Any, each: int) -> list[bool]:
    """Whether each request for a kernel of `machine` is in the cache on disk now; processes take `each` at a time."""
    workers = len(os.sched_getaffinity(0))
    with multiprocessing.get_context("fork").Pool(workers) as pool:  # NVRTC's threads wait for one another
        return pool.map(_builds, [(r, machine) for r in requests], chunksize=each)


def _builds(job: tuple[Any, Any]) -> bool:
    from tilewright.build.cuda_kernel import build_cuda
    from tilewright.errors import TilewrightError

    try:
        build_cuda(*job)
    except TilewrightError:
        return False
    return True
