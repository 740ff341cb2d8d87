"""Honest timing on a GPU: candidates side by side, interleaved, with an A/A control, from a cold L2 cache.

Each sample is the time between two events around one call, on torch's current stream, after the L2 cache was
overwritten. All calls of some rounds are queued before any is waited for, so that the host never shows in a sample; an
order that rotates gives each candidate every place. Ratios and intervals are those of `runtime.measure`.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

from tilewright.errors import ArgumentError
from tilewright.runtime.measure import CONTROL, MIN_ROUNDS, Comparison, rotations

_QUEUED = 8
"""Rounds in flight: enough to hide the host, few enough for the driver's queue of launches."""


_PAUSE = 300_000
"""Cycles of the GPU's clock, about 170 microseconds: longer than any call is in Python."""


def compare(
    candidates: Mapping[str, Callable[[], object]],
    *,
    rounds: int = 40,
    poison: Callable[[], object] | None = None,
    flush: bool = True,
    control: bool = True,
    pause: bool = False,
) -> Comparison:
    """Time `candidates` against each other for `rounds` rounds (at least MIN_ROUNDS).

    `poison` is queued before every sample (let it fill the outputs with NaN, so that a kernel which does not write is
    found by the check afterwards). With `pause` the GPU idles before every sample until the host has surely queued the
    call, for calls that cost the host more than they cost the GPU. Raises ArgumentError for no candidate.
    """
    if not candidates or CONTROL in candidates:
        raise ArgumentError(f"compare needs at least one candidate, and none may be called {CONTROL!r}")
    order = tuple(candidates)
    entries = {**candidates, CONTROL: candidates[order[0]]} if control else dict(candidates)
    for call in candidates.values():
        call()  # loads, and allocates what is allocated once
    samples: dict[str, list[float]] = {name: [] for name in entries}
    turns = rotations(tuple(entries))
    left = max(rounds, MIN_ROUNDS)
    while left > 0:
        queued = [_round(next(turns), entries, poison, flush, pause) for _ in range(min(left, _QUEUED))]
        left -= len(queued)
        for events in queued:
            for name, (start, stop) in events.items():
                stop.synchronize()
                samples[name].append(start.elapsed_time(stop) * 1e6)
    taken = {name: tuple(values) for name, values in samples.items()}
    if not control:
        taken[CONTROL] = taken[order[0]]
    return Comparison(taken, dict.fromkeys(entries, 1), order, flush)


def median_ns(call: Callable[[], object], rounds: int = 9, poison: Callable[[], object] | None = None) -> float:
    """Median nanoseconds of one cold call: a first look, without a control."""
    return compare({"call": call}, rounds=rounds, poison=poison, control=False).median_ns("call")


def empty_ns(rounds: int = 20) -> float:
    """Median nanoseconds between two events around a kernel that does nothing: what every lone call takes."""
    import torch

    return compare({"call": lambda: torch.cuda._sleep(0)}, rounds=rounds, control=False, pause=True).median_ns("call")


def kernels_us(call: Callable[[], object], before: Callable[[], object], rounds: int = 20) -> float:
    """Microseconds that the kernels of one call run on the GPU, from the first of its blocks to the last (CUPTI).

    `before` is queued before each call, by kernels of other names, and L2 is read over: nothing that the call needs is
    in a cache. Not counted: what two events around a call add to it, which is more than a short kernel takes.
    """
    import torch
    from torch.profiler import ProfilerActivity, profile

    def seen(*queued: Callable[[], object]) -> dict[str, list[float]]:
        with profile(activities=[ProfilerActivity.CUDA]) as profiled:
            for _ in range(rounds):
                for one in queued:
                    one()
            torch.cuda.synchronize()
        found: dict[str, list[float]] = {}
        for event in profiled.events():
            if event.device_type == torch.autograd.DeviceType.CUDA:
                found.setdefault(event.name, []).append(event.device_time)
        return found

    call()
    others = seen(before, flush_l2)
    own = {name: times for name, times in seen(before, flush_l2, call).items() if name not in others}
    if not own:
        raise ArgumentError("kernels_us: the call starts no kernel, or only such as are queued before it")
    return sum(statistics.median(times) * len(times) / rounds for times in own.values())


def _round(
    names: tuple[str, ...],
    entries: Mapping[str, Callable[[], object]],
    poison: Callable[[], object] | None,
    flush: bool,
    pause: bool = False,
) -> dict[str, tuple[Any, Any]]:
    import torch

    events = {}
    for name in names:
        if poison is not None:
            poison()
        if flush:
            flush_l2()
        if pause:
            torch.cuda._sleep(_PAUSE)
        start, stop = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        entries[name]()
        stop.record()
        events[name] = (start, stop)
    return events


def captured(call: Callable[[], object], stream: Any = None) -> Callable[[], object]:
    """`call` as the replay of a CUDA graph: what it costs the host is paid once, here.

    `stream` is where it is captured, for calls that are tied to one: autograd goes back on the stream of the way there.
    """
    import torch

    with torch.cuda.stream(stream):
        call()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=stream):
        call()
    replay: Callable[[], object] = graph.replay
    return replay


def host_us(call: Callable[[], object], calls: int = 40) -> float:
    """Microseconds of host time that a call takes, when nothing waits for the GPU: the median of three batches."""
    import torch

    batches = []
    for _ in range(3):
        torch.cuda.synchronize()
        start = time.perf_counter_ns()
        for _ in range(calls):
            call()
        batches.append((time.perf_counter_ns() - start) / calls * 1e-3)
    return sorted(batches)[1]


def flush_l2() -> None:
    """Queue a read of four times the L2 cache: what was cached is gone, and nothing waits to be written back."""
    import torch

    _flusher(torch.cuda.current_device())()


@cache
def _flusher(device: int) -> Callable[[], object]:
    import torch

    size = 4 * int(torch.cuda.get_device_properties(device).L2_cache_size)
    buffer = torch.ones(size // 4, dtype=torch.float32, device=f"cuda:{device}")
    total = torch.empty((), dtype=torch.float32, device=f"cuda:{device}")
    return lambda: torch.sum(buffer, 0, out=total)


__all__ = ["captured", "compare", "empty_ns", "flush_l2", "host_us", "kernels_us", "median_ns"]
