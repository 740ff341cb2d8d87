"""Every operator on the GPU at hand: odd sizes against float64, and those of a model timed. One line each.

A child process does the work, so that a kernel that traps or hangs costs its own line only.

    python tools/try_operators.py [odd|large] [NAMES] [SEEDS]
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Any

from watched import watched

sys.path[:0] = [str(Path(__file__).parents[1] / "tests" / "gpu"), str(Path(__file__).parents[1] / "src")]


_REPORTED = 3  # exit status of a child that said itself what went wrong


def main() -> None:
    """Every case of the list, through children that are replaced when they die or hang."""
    from operator_cases import NAMES

    words = sys.argv[1:]
    kind = words[0] if words else "odd"
    names = words[1].split(",") if len(words) > 1 and words[1] != "all" else NAMES
    seeds = int(words[2]) if len(words) > 2 else (8 if kind == "odd" else 1)
    jobs = [f"{kind} {n} {s} {t}" for n in names for s in range(seeds) for t in _types(kind, s)]
    at = 0
    while at < len(jobs):
        at = _supervised(jobs, at)


def _types(kind: str, seed: int) -> tuple[str, ...]:
    return ("bf16",) if kind == "large" else (("bf16", "f32", "f16")[seed % 3],)


def _supervised(jobs: list[str], at: int) -> int:
    ended = watched([sys.executable, __file__, "--child", *jobs[at:]])
    at += ended.told
    if at < len(jobs) and ended.status != _REPORTED:
        print(f"{jobs[at]}: DIED", flush=True)
        at += 1
    return at


def _child(jobs: list[str]) -> None:
    for job in jobs:
        kind, name, seed, element = job.split()
        try:
            said = _tried(name, int(seed), element, kind == "large")
        except Exception as error:  # the line says what happened
            said = f"FAILED {type(error).__name__}: {str(error)[:600]!r}"
            if "CUDA" in str(error) or "illegal" in str(error):
                print(f"#{job}: {said}", flush=True)
                os._exit(_REPORTED)
        print(f"#{job}: {said}", flush=True)


def _tried(name: str, seed: int, element: str, large: bool) -> str:
    import torch
    from operator_cases import draw

    from tilewright.runtime import tolerance
    from tilewright.runtime.compiled import bind

    call = draw(name, seed, element, large)
    inputs = {n: _to_gpu(x) for n, x in call.inputs.items() if n not in call.outputs}
    outputs = {}
    for n, (shape, kind) in call.outputs.items():
        import numpy as np

        start = call.inputs.get(n, np.full(shape, -1 if np.dtype(kind).kind == "i" else np.nan, kind))
        outputs[n] = _to_gpu(start)
    began = time.perf_counter()
    launch = bind(call.operator, **inputs, **outputs, **call.scalars, **call.options)
    built = time.perf_counter() - began
    launch()
    torch.cuda.synchronize()
    expected = call.expected()
    worst = max(
        tolerance.check(f"{name}.{n}", _to_numpy(t, call.outputs[n][1]), expected[n]) for n, t in outputs.items()
    )
    shapes = " ".join(f"{n}{list(x.shape)}" for n, x in call.inputs.items())
    said = f"ok {worst:.2f} of the bound, built in {built:.2f}s"
    if large:
        times = _timed(launch)
        said += f", {times * 1e6:.1f} us, {call.bytes / times / 1e9:.0f} GB/s"
    return f"{said}; {shapes}"


def _timed(launch: Any) -> float:
    """Seconds of one launch, caches flushed before: the median of 20."""
    import torch

    flush = torch.empty(1 << 29, dtype=torch.int8, device="cuda")
    times = []
    for _ in range(20):
        flush.zero_()
        start, stop = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        launch()
        stop.record()
        stop.synchronize()
        times.append(start.elapsed_time(stop) / 1e3)
    return sorted(times)[10]


def _to_gpu(x: Any) -> Any:
    import numpy as np
    import torch

    if x.dtype.name == "bfloat16":
        return torch.from_numpy(np.ascontiguousarray(x).view(np.int16)).view(torch.bfloat16).cuda()
    return torch.from_numpy(np.ascontiguousarray(x)).cuda()


def _to_numpy(t: Any, kind: Any) -> Any:
    import torch

    return (t.view(torch.int16) if t.dtype == torch.bfloat16 else t).cpu().numpy().view(kind)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        _child(sys.argv[2:])
    else:
        main()
