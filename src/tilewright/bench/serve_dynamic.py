"""The lengths of a served trace through one block, compiling included: Tilewright beside torch.compile, dynamic or not.

Each contestant runs in fresh processes with empty caches, in turns. The clock starts when operands are there and stops
after the last request, so whatever is imported, traced, compiled or looked up on the way counts. On a GPU a request has
been served when its result is there. There Tilewright answers by one kernel for all lengths, as where a learner is at
work; what a process takes where nobody learns, with a kernel for each class of lengths, is told beside it.
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
from dataclasses import dataclass
from typing import Any

from tilewright.bench.result import Result, rounded
from tilewright.errors import TilewrightError
from tilewright.observe.served import LONGEST, REQUESTS, served_trace

FAMILY = "serve_dynamic"
OURS, CLASSES, DYNAMIC, STATIC = "tilewright", "classes", "dynamic", "static"
_EPSILON = 1e-5

Block = Callable[[Any], Any]


@dataclass(frozen=True)
class Setting:
    """Where the trace is served, through a block of which size and type; `near` bounds errors of its results, near 1.

    `modes` are those of the run time, by contestant; each contestant has so many `turns`.
    """

    device: str
    name: str
    hidden: int
    wide: int
    dtype: str
    near: float
    modes: tuple[tuple[str, str], ...]
    turns: int


CPU = Setting("cpu", "2,000 requests, gated block of 256 x 768, f32", 256, 768, "float32", 1e-3, ((OURS, "learn"),), 3)
GPU = Setting(
    "cuda", "2,000 requests, gated block of 2048 x 8192, bf16", 2048, 8192, "bfloat16", 6e-2,
    ((OURS, "generic"), (CLASSES, "learn")), 2,
)  # fmt: skip
SETTINGS = {s.device: s for s in (CPU, GPU)}


def dynamic_results(setting: Setting, threads: int, quick: bool) -> Iterator[Result]:
    """One result: total seconds of each contestant, and the ratio of ours to the better of torch's."""
    repeats, requests = (1, 200) if quick else (setting.turns, REQUESTS)
    names = [*dict(setting.modes), DYNAMIC, STATIC]
    runs: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
    for turn in range(repeats):
        at = turn % len(names)
        for name in names[at:] + names[:at]:
            runs[name].append(_in_a_process(setting, name, threads, requests))
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
    if CLASSES in seconds:
        values |= {"classes_s": seconds[CLASSES], "classes_compiles": runs[CLASSES][0]["compiles"]}
    yield Result(FAMILY, setting.name, threads, rounded(values), {"runs": runs})


def _in_a_process(setting: Setting, contestant: str, threads: int, requests: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="tilewright-bench-") as empty:
        count = str(threads)
        environment = {
            **os.environ, "TILEWRIGHT_CACHE_DIR": empty, "TORCHINDUCTOR_CACHE_DIR": empty,
            "TILEWRIGHT_THREADS": count, "OMP_NUM_THREADS": count,
            "TILEWRIGHT_MODE": dict(setting.modes).get(contestant, "learn"),
        }  # fmt: skip
        command = [sys.executable, "-m", "tilewright.bench.serve_dynamic", setting.device, contestant, str(requests)]
        done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if done.returncode:
        raise TilewrightError(f"{contestant} ended with {done.returncode}: {done.stderr.strip()[-300:]}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


# ------------------------------------------------------------------------------------------ in the process
def contest(setting: Setting, contestant: str, requests: int) -> dict[str, Any]:
    """Run every request of the trace by one contestant: total seconds, compiles, and milliseconds of each request."""
    import torch

    random, dtype = torch.Generator().manual_seed(0), getattr(torch, setting.dtype)
    narrow, wide = setting.hidden, setting.wide
    drawn = [
        torch.randn(LONGEST, narrow, generator=random),
        *(torch.randn(n, k, generator=random) * k**-0.5 for n, k in ((wide, narrow), (wide, narrow), (narrow, wide))),
    ]
    data, norm, *weights = (x.to(setting.device, dtype) for x in (drawn[0], torch.ones(narrow), *drawn[1:]))
    served = _waiting if setting.device == "cpu" else torch.cuda.synchronize
    lengths = [r.prompt for r in served_trace(requests).requests]
    served()
    times, begun = [], time.perf_counter()
    with torch.no_grad():
        block, compiles = _contestant(contestant, norm, weights)
        for n in lengths:
            start = time.perf_counter()
            result = block(data[:n])
            served()
            times.append(round((time.perf_counter() - start) * 1e3, 3))
        seconds = time.perf_counter() - begun
        exact = [x.float() for x in (data[:n], norm, *weights)]
        expected = _torch_block(exact[1], exact[2:])(exact[0])
        torch.testing.assert_close(result.float(), expected, rtol=0, atol=setting.near)
    return {"seconds": seconds, "compiles": compiles(), "shapes": len(set(lengths)), "request_ms": times}


def _waiting() -> None:
    """On a CPU a result is there when its call returns."""


def _contestant(name: str, norm: Any, weights: list[Any]) -> tuple[Block, Callable[[], int]]:
    """The block, and what says how often something was compiled for it."""
    if name in (OURS, CLASSES):
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
    from tilewright.runtime import modes

    return modes.counts().compiles


def _torch_block(norm: Any, weights: list[Any]) -> Block:
    import torch.nn.functional as F

    gate, up, down = weights

    def block(x: Any) -> Any:
        h = F.rms_norm(x, norm.shape, norm, _EPSILON)
        return F.linear(F.silu(F.linear(h, gate)) * F.linear(h, up), down) + x

    return block


if __name__ == "__main__":
    print(json.dumps(contest(SETTINGS[sys.argv[1]], sys.argv[2], int(sys.argv[3]))))
