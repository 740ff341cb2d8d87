"""What a call from Python costs beside the bare entry of its kernel: bound before, or known by its form.

A call that gives a new result is put beside the bare entry after the library has made such a result: somebody has to.
"""

from __future__ import annotations

import gc
import itertools
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from importlib import import_module
from typing import Any

import numpy as np

from tilewright import ops
from tilewright.bench.result import Result, rounded

FAMILY = "serve_dispatch"
TORCH, NUMPY = "linear of 1 x 16 by 16 x 16, f32, torch", "linear of 1 x 16 by 16 x 16, f32, NumPy"
NAMES = (TORCH, NUMPY)
ROUNDS, CALLS = 41, 4000
"""Rounds in which each way of calling takes a turn of so many calls."""

ADDED = {
    "bound_ns": ("bound", "bare"),
    "known_ns": ("known", "bare"),
    "new_ns": ("new", "making"),
    "making_ns": ("making", "bare"),
}
"""What is told: what one way of calling adds to another."""

Call = Callable[[], object]


def dispatch_results(names: Sequence[str], quick: bool) -> Iterator[Result]:
    """For each of `names`, nanoseconds that each way adds to the bare entry: medians of differences within rounds."""
    for case in names:
        ways = _ways(_tensors(case))
        samples = _timed(ways, ROUNDS // 5 if quick else ROUNDS)
        values = {"bare_ns": statistics.median(samples["bare"])}
        for name, (way, beside) in ADDED.items():
            values[name] = statistics.median(a - b for a, b in zip(samples[way], samples[beside], strict=True))
        yield Result(FAMILY, case, 1, rounded(values), {"samples_ns": samples, "calls": CALLS})


def _tensors(name: str) -> tuple[Any, Any, Any]:
    """x[1, 16], w[16, 16] and y[1, 16] of a library."""
    random = np.random.default_rng(0)
    x, w = random.standard_normal((1, 16), np.float32), random.standard_normal((16, 16), np.float32)
    y = np.empty((1, 16), np.float32)
    if name == NUMPY:
        return x, w, y
    import torch

    return torch.from_numpy(x), torch.from_numpy(w), torch.from_numpy(y)


def _ways(tensors: tuple[Any, Any, Any]) -> dict[str, Call]:
    """The bare entry, alone and after a result was made; a bound launch; `linear` into the same objects, and anew."""
    (x, w, y), linear = tensors, ops.linear
    launch: Any = linear.bind(x, w, out=y)
    entry, address = launch.kernel.entry, launch.words.__array_interface__["data"][0]
    make, shape, dtype = import_module(type(y).__module__.partition(".")[0]).empty, tuple(y.shape), y.dtype
    found: dict[str, Call] = {
        "bare": lambda: entry(address),
        "making": lambda: (make(shape, dtype=dtype), entry(address)),
        "bound": launch,
        "known": lambda: linear(x, w, out=y),
        "new": lambda: linear(x, w),
    }
    for call in found.values():
        for _ in itertools.repeat(None, 4):
            call()
    return found


def _timed(ways: dict[str, Call], rounds: int) -> dict[str, list[float]]:
    """Nanoseconds of a call in each round, the loop around it left out."""
    samples: dict[str, list[float]] = {way: [] for way in ways}
    gc.disable()
    try:
        for number in range(rounds):
            order = list(ways)
            for way in order[number % len(order) :] + order[: number % len(order)]:
                samples[way].append(round(_of(ways[way]) - _of(_nothing), 1))
    finally:
        gc.enable()
    return samples


def _of(call: Call) -> float:
    begun = time.perf_counter_ns()
    for _ in itertools.repeat(None, CALLS):
        call()
    return (time.perf_counter_ns() - begun) / CALLS


def _nothing() -> None:
    """What a lambda around a call costs by itself."""


__all__ = ["FAMILY", "NAMES", "dispatch_results"]
