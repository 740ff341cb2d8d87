"""The lengths of a served trace through one block, compiling included: Tilewright beside torch.compile, dynamic or not.

Each contestant runs in fresh processes with empty caches, in turns. The clock starts when operands are there and stops
after the last request, so whatever is imported, traced, compiled or looked up on the way counts.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from typing import Any

from tilewright.bench.result import Result, rounded
from tilewright.errors import TilewrightError
from tilewright.observe.served import LONGEST, REQUESTS, served_trace

FAMILY, NAME = "serve_dynamic", "2,000 requests, gated block of 256 x 768, f32"
OURS, DYNAMIC, STATIC = "tilewright", "dynamic", "static"
HIDDEN, WIDE = 256, 768
_EPSILON = 1e-5

Block = Callable[[Any], Any]


def dynamic_results(threads: int, quick: bool) -> Iterator[Result]:
    """One result: total seconds of each contestant, and the ratio of ours to the better of torch's."""
    repeats, requests = (1, 200) if quick else (3, REQUESTS)
    runs: dict[str, list[dict[str, Any]]] = {OURS: [], DYNAMIC: [], STATIC: []}
    for turn in range(repeats):
        names = [*runs]
        for name in names[turn % 3 :] + names[: turn % 3]:
            runs[name].append(_in_a_process(name, threads, requests))
    seconds = {name: statistics.median(r["seconds"] for r in found) for name, found in runs.items()}
    values = {
        "s": seconds[OURS],
        "dynamic_s": seconds[DYNAMIC],
        "static_s": seconds[STATIC],
        "of_peer": seconds[OURS] / min(seconds[DYNAMIC], seconds[STATIC]),
        "compiles": runs[OURS][0]["compiles"],
        "dynamic_compiles": runs[DYNAMIC][0]["compiles"],
        "static_compiles": runs[STATIC][0]["compiles"],
        "shapes": runs[OURS][0]["shapes"],
    }
    yield Result(FAMILY, NAME, threads, rounded(values), {"runs": runs})


def _in_a_process(contestant: str, threads: int, requests: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="tilewright-bench-") as empty:
        count = str(threads)
        environment = {
            **os.environ, "TILEWRIGHT_CACHE_DIR": empty, "TORCHINDUCTOR_CACHE_DIR": empty,
            "TILEWRIGHT_THREADS": count, "OMP_NUM_THREADS": count,
        }  # fmt: skip
        command = [sys.executable, "-m", "tilewright.bench.serve_dynamic", contestant, str(requests)]
        done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if done.returncode:
        raise TilewrightError(f"{contestant} ended with {done.returncode}: {done.stderr.strip()[-300:]}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


# ------------------------------------------------------------------------------------------ in the process
def contest(contestant: str, requests: int) -> dict[str, Any]:
    """Run every request of the trace by one contestant: total seconds, compiles, and milliseconds of each request."""
    import torch

    random = torch.Generator().manual_seed(0)
    data = torch.randn(LONGEST, HIDDEN, generator=random)
    weights = [
        torch.randn(n, k, generator=random) * k**-0.5 for n, k in ((WIDE, HIDDEN), (WIDE, HIDDEN), (HIDDEN, WIDE))
    ]
    lengths = [r.prompt for r in served_trace(requests).requests]
    times, begun = [], time.perf_counter()
    with torch.no_grad():
        block, compiles = _contestant(contestant, torch.ones(HIDDEN), weights)
        for n in lengths:
            start = time.perf_counter()
            result = block(data[:n])
            times.append(round((time.perf_counter() - start) * 1e3, 3))
        seconds = time.perf_counter() - begun
        expected = _torch_block(torch.ones(HIDDEN), weights)(data[:n])
        torch.testing.assert_close(result, expected, rtol=0, atol=1e-3)
    return {"seconds": seconds, "compiles": compiles(), "shapes": len(set(lengths)), "request_ms": times}


def _contestant(name: str, norm: Any, weights: list[Any]) -> tuple[Block, Callable[[], int]]:
    """The block, and what says how often something was compiled for it."""
    if name == OURS:
        return _our_block(norm, weights), _our_compiles
    import torch
    from torch._dynamo.utils import counters

    compiled: Block = torch.compile(_torch_block(norm, weights), dynamic=name == DYNAMIC)
    return compiled, lambda: int(counters["stats"]["unique_graphs"])


def _our_block(norm: Any, weights: list[Any]) -> Block:
    from tilewright import ops

    gate, up, down = weights

    def block(x: Any) -> Any:
        return ops.linear(ops.gate_up(ops.rmsnorm(x, norm, _EPSILON), gate, up), down, residual=x)

    return block


def _our_compiles() -> int:
    from tilewright.runtime import dispatch

    return sum(kernel.binary.seconds > 0 for kernel in dispatch.kernels())


def _torch_block(norm: Any, weights: list[Any]) -> Block:
    import torch.nn.functional as F

    gate, up, down = weights

    def block(x: Any) -> Any:
        h = F.rms_norm(x, norm.shape, norm, _EPSILON)
        return F.linear(F.silu(F.linear(h, gate)) * F.linear(h, up), down) + x

    return block


if __name__ == "__main__":
    print(json.dumps(contest(sys.argv[1], int(sys.argv[2]))))
