"""What a call costs the host: a dispatched `ops.linear` on the GPU beside torch's, and beside an op that does nothing.

The product is so small that the GPU never makes the host wait; calls are timed in batches and nothing is synchronised
inside one.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

from tilewright.bench.result import Result, rounded

_CALLS, _BATCHES = 300, 21


def measure_launch() -> Result:
    """Microseconds of host time a call: ours, torch's product, and an empty torch op."""
    import torch

    from tilewright import ops

    a, w = (torch.randn(16, 256, device="cuda").bfloat16() for _ in range(2))
    out = torch.empty(16, 16, dtype=torch.bfloat16, device="cuda")
    weights = w.t()
    calls: dict[str, Callable[[], object]] = {
        "us": lambda: ops.linear(a, w, out=out),
        "peer_us": lambda: torch.mm(a, weights, out=out),
        "empty_us": lambda: torch.ops.aten.alias(a),
    }
    samples: dict[str, list[float]] = {name: [] for name in calls}
    for call in calls.values():
        call()
    for _ in range(_BATCHES):
        for name, call in calls.items():
            torch.cuda.synchronize()
            samples[name].append(_batch(call))
    medians = {name: statistics.median(values) for name, values in samples.items()}
    medians["over_empty_us"] = medians["us"] - medians["empty_us"]
    return Result("gemm_launch", "a call of ops.linear, 16x16x256", 1, rounded(medians), {"samples_us": samples})


def _batch(call: Callable[[], object]) -> float:
    start = time.perf_counter_ns()
    for _ in range(_CALLS):
        call()
    return (time.perf_counter_ns() - start) / _CALLS * 1e-3


__all__ = ["measure_launch"]
