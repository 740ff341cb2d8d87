"""Designs of matrix products tried on the GPU at hand: verified against float64, timed beside cuBLAS, one line each.

A child process does the work, so that a kernel that traps or hangs costs its own line only.

    python tools/try_gemm.py first            # the named list below
    python tools/try_gemm.py default 16 4096 4096
"""

from __future__ import annotations

import json
import sys
from typing import Any

from watched import watched

BASE: dict[str, Any] = {
    "tile.m": 128, "tile.n": 256, "tile.k": 64, "atom.dot0": "wgmma", "warpgroups": 2, "stages": 4,
}  # fmt: skip
FEW: dict[str, Any] = {
    "tile.m": 16, "tile.n": 64, "tile.k": 64, "atom.dot0": "wgmma", "warpgroups": 1, "stages": 8, "swap": True,
    "producer": "warp",
}  # fmt: skip
PERSISTENT = {"persistent": True, "grid.order": "grouped", "grid.group": 8}
Job = tuple[tuple[int, int, int, str], dict[str, Any] | None]

FIRST: list[Job] = [
    ((256, 512, 512, ""), BASE),
    ((2048, 4096, 4096, ""), BASE),
    ((2048, 4096, 4096, ""), {**BASE, **PERSISTENT}),
    ((2048, 4096, 4096, ""), {**BASE, **PERSISTENT, "cluster.m": 2}),
    ((2048, 4096, 4096, ""), {**BASE, **PERSISTENT, "cluster.n": 2, "grid.order": "hilbert"}),
    ((8192, 6144, 4096, ""), {**BASE, **PERSISTENT, "cluster.m": 2}),
    ((8192, 6144, 4096, ""), {**BASE, **PERSISTENT, "tile.m": 256, "tile.n": 128, "cluster.n": 2}),
    ((8192, 6144, 4096, ""), {**BASE, **PERSISTENT, "schedule": "pingpong", "tile.m": 64, "tile.n": 256, "stages": 5}),
    ((8192, 6144, 4096, ""), {**BASE, **PERSISTENT, "schedule": "pingpong", "tile.m": 128, "tile.n": 128, "stages": 6}),
    ((16, 4096, 4096, ""), FEW),
    ((16, 4096, 4096, ""), {**FEW, "split.k": 2, "how.k": "two_pass"}),
    ((16, 4096, 4096, ""), {**FEW, "split.k": 2, "how.k": "cluster", "stages": 16}),
    ((16, 4096, 4096, ""), {**FEW, "split.k": 4, "how.k": "cluster"}),
    ((1, 4096, 4096, ""), {**FEW, "tile.m": 8, "split.k": 2, "how.k": "cluster", "stages": 16}),
    ((1, 28672, 4096, ""), {**FEW, "tile.m": 8, "split.k": 2, "how.k": "cluster", "stages": 8}),
    ((1, 28672, 4096, ""), {**FEW, "tile.m": 8, "stages": 8, "cache.b": "evict_first"}),
    ((1, 28672, 4096, ""), {**FEW, "tile.m": 8, "stages": 16, "cache.b": "evict_first"}),
    ((128, 4096, 4096, ""), {**FEW, "tile.m": 128, "tile.n": 128, "warpgroups": 2, "stages": 6, "split.k": 4}),
    ((64, 4096, 4096, ""), {**FEW, "tile.m": 64, "split.k": 2, "stages": 12}),
    ((2048, 6144, 4096, "bias_gelu"), {**BASE, **PERSISTENT}),
    ((2048, 6144, 4096, "residual"), {**BASE, **PERSISTENT}),
    ((2048, 6144, 4096, "gate_up"), {**BASE, **PERSISTENT, "tile.n": 128, "atom.dot1": "wgmma"}),
    ((16, 6144, 4096, "gate_up"), {**FEW, "atom.dot1": "wgmma"}),
    ((1000, 776, 328, ""), BASE),
    ((100, 5000, 1000, ""), {**FEW, "tile.m": 104}),
    *(((m, n, k, ""), None) for n, k in ((4096, 4096), (28672, 4096), (2048, 2048)) for m in (1, 16, 128, 512, 2048)),
]
TMA = {**BASE, **PERSISTENT, "store.c": "tma"}
LARGE: list[Job] = [
    ((m, n, k, ""), design)
    for m, n, k in ((2048, 4096, 4096), (8192, 6144, 4096), (2048, 28672, 4096), (8192, 4096, 14336))
    for design in (
        {**BASE, **PERSISTENT, "cluster.m": 2},
        TMA,
        {**TMA, "cluster.m": 2},
        {**TMA, "cluster.n": 2},
        {**TMA, "cluster.m": 2, "grid.order": "hilbert"},
        {**TMA, "cluster.m": 2, "grid.group": 16},
        {**TMA, "cluster.m": 2, "grid.group": 4},
        {**TMA, "tile.m": 256, "tile.n": 128, "cluster.n": 2},
        {**TMA, "schedule": "pingpong", "tile.m": 64, "tile.n": 256, "stages": 4, "cluster.m": 2},
        {**TMA, "schedule": "pingpong", "tile.m": 128, "tile.n": 128, "stages": 5, "cluster.m": 2},
        {**TMA, "tile.n": 192, "stages": 4, "cluster.m": 2},
    )
]
SMALL: list[Job] = [
    ((m, n, k, ""), {**FEW, **more, "tile.m": max(8, m)})
    for m, n, k in (
        (1, 4096, 4096),
        (16, 4096, 4096),
        (16, 6144, 4096),
        (16, 28672, 4096),
        (1, 2048, 8192),
        (64, 4096, 4096),
    )
    for more in (
        {"stages": 8, "inflight": 0},
        {"stages": 8, "split.k": 2, "how.k": "two_pass", "inflight": 0},
        {"stages": 12, "split.k": 2, "how.k": "cluster", "inflight": 0},
        {"stages": 12, "split.k": 2, "how.k": "cluster"},
        {"stages": 8, "split.k": 4, "how.k": "cluster", "inflight": 0},
        {"stages": 8, "split.k": 4, "how.k": "two_pass", "inflight": 0},
        {"stages": 5, "split.k": 8, "how.k": "cluster", "inflight": 0},
        {"stages": 5, "tile.k": 128, "split.k": 4, "how.k": "cluster", "inflight": 0},
        {"stages": 6, "tile.n": 128, "warpgroups": 2, "split.k": 4, "how.k": "two_pass", "inflight": 0},
    )
]
MIDDLE: list[Job] = [
    ((m, n, k, ""), {**FEW, **more, "tile.m": m, "inflight": 0})
    for m, n, k in ((64, 4096, 4096), (128, 4096, 4096), (64, 2048, 2048), (128, 4096, 14336))
    for more in (
        {"stages": 6},
        {"stages": 6, "store.c": "tma"},
        {"stages": 6, "split.k": 2, "how.k": "cluster"},
        {"stages": 6, "split.k": 2, "how.k": "cluster", "store.c": "tma"},
        {"stages": 5, "split.k": 4, "how.k": "cluster", "store.c": "tma"},
        {"stages": 4, "tile.n": 128, "warpgroups": 2, "split.k": 2, "how.k": "cluster", "store.c": "tma"},
        {"stages": 4, "tile.n": 128, "warpgroups": 2, "split.k": 4, "how.k": "cluster", "store.c": "tma"},
        {"stages": 4, "tile.n": 128, "warpgroups": 2, "split.k": 4, "how.k": "cluster"},
        {"stages": 4, "tile.n": 128, "warpgroups": 2, "split.k": 4, "how.k": "two_pass", "store.c": "tma"},
        {"stages": 6, "cluster.n": 2, "split.k": 2, "how.k": "two_pass", "store.c": "tma"},
        {"stages": 6, "cluster.n": 4, "split.k": 2, "how.k": "two_pass"},
    )
]
# What a kernel takes beside reading: hardly any weights, then one step, then a column of steps.
FLOOR: list[Job] = [
    ((1, 64, 64, ""), {**FEW, "tile.m": 8, "stages": 2, "inflight": 0}),
    ((1, 8448, 64, ""), {**FEW, "tile.m": 8, "stages": 2, "inflight": 0}),
    ((1, 8448, 512, ""), {**FEW, "tile.m": 8, "stages": 8, "inflight": 0}),
    ((1, 64, 4096, ""), {**FEW, "tile.m": 8, "stages": 8, "inflight": 0}),
    ((1, 4096, 1024, ""), {**FEW, "tile.m": 8, "stages": 8, "split.k": 2, "how.k": "cluster", "inflight": 0}),
    ((1, 4096, 1024, ""), {**FEW, "tile.m": 8, "stages": 8, "split.k": 2, "how.k": "two_pass", "inflight": 0}),
    ((16, 4096, 1024, ""), {**FEW, "stages": 8, "split.k": 2, "how.k": "cluster", "inflight": 0}),
    ((16, 4096, 1024, ""), {**FEW, "stages": 8, "split.k": 4, "how.k": "cluster", "inflight": 0}),
    ((16, 4096, 1024, ""), {**FEW, "stages": 8, "inflight": 0}),
]
PINGPONG: list[Job] = [
    ((m, n, k, ""), {**TMA, "schedule": "pingpong", "tile.m": rows, "tile.n": columns, "stages": stages, **more})
    for m, n, k in ((2048, 4096, 4096), (8192, 3072, 2048))
    for rows, columns, stages in ((64, 256, 4), (128, 128, 5), (64, 192, 5))
    for more in ({}, {"cluster.m": 2})
]
DEFAULTS: list[Job] = [
    ((m, n, k, ""), None)
    for n, k in ((3072, 2048), (2048, 8192), (6144, 4096), (4096, 4096), (4096, 14336))
    for m in (1, 16, 64, 128, 512, 2048)
]
FUSED: list[Job] = [
    ((m, n, 4096, epilogue), None)
    for n in (14336, 4096)
    for m in (16, 512, 2048)
    for epilogue in ("bias_gelu", "residual", "gate_up")
]
LISTS = {
    "first": FIRST, "large": LARGE, "small": SMALL, "middle": MIDDLE, "floor": FLOOR, "pingpong": PINGPONG,
    "defaults": DEFAULTS, "fused": FUSED,
}  # fmt: skip


def main() -> None:
    """Every job of the list, through children that are replaced when they die or hang."""
    jobs = _jobs(sys.argv[1:])
    at = 0
    while at < len(jobs):
        at = _supervised(jobs, at)


def _jobs(words: list[str]) -> list[Job]:
    if words and words[0] == "default":
        m, n, k = map(int, words[1:4])
        return [((m, n, k, words[4] if len(words) > 4 else ""), None)]
    return LISTS[words[0] if words else "first"]


def _supervised(jobs: list[Job], at: int) -> int:
    """The number of the first job that is still to be done when this child has ended."""
    ended = watched([sys.executable, __file__, "--child", json.dumps(jobs[at:])])
    at += ended.told
    if at < len(jobs):
        print(f"{_shown(jobs[at])}: {'HANGS' if ended.hung else 'CRASHES'}", flush=True)
    return at + 1


def _shown(job: Job) -> str:
    (m, n, k, epilogue), design = job
    return f"{m}x{n}x{k} {epilogue} {json.dumps(design) if design else 'default'}"


def _child(jobs: list[Job]) -> None:
    for case, decisions in jobs:
        try:
            text = _tried(tuple(case), decisions)  # type: ignore[arg-type]
        except Exception as error:
            if "CUDA" in str(error) or "cuda" in type(error).__name__.lower():
                raise
            text = f"{type(error).__name__}: {error}"
        print(f"#{_shown((tuple(case), decisions))}: {text}".replace("\n", " | "), flush=True)  # type: ignore[arg-type]


def _tried(case: tuple[int, int, int, str], decisions: dict[str, Any] | None) -> str:
    from tilewright.bench.gemm_cases import GemmCase
    from tilewright.bench.gemm_problem import GemmProblem
    from tilewright.design.default import default_design
    from tilewright.design.design import Design
    from tilewright.runtime.cuda.dispatch import machine, requested
    from tilewright.runtime.cuda.evaluator import GpuEvaluator
    from tilewright.runtime.cuda.measure import compare

    setup = GemmProblem(GemmCase("try", *case), 0)
    problem = setup.problem()
    known = machine(0)
    if decisions is None:
        facts = requested(problem.program, problem.layouts, problem.sizes, known, Design(), problem.fixed).facts(known)
        design = default_design(problem.program.kernel, facts)
    else:
        design = Design.of(decisions)
    launch = GpuEvaluator(problem).launch(design)
    setup.poison()
    launch()
    try:
        setup.check()
        verdict = "ok"
    except Exception as wrong:
        verdict = f"WRONG {wrong}"
    timed = compare({"ours": launch, "torch": setup.peer()}, rounds=15, poison=setup.poison)
    ours, peer = timed.median_ns("ours") * 1e-3, timed.median_ns("torch") * 1e-3
    c = setup.case
    rates = f"{c.flops / ours * 1e-6:.0f} TFLOP/s {c.bytes / ours * 1e-6:.2f} TB/s"
    report = launch.kernel.binary.report
    chosen = "" if decisions else f" {design.to_json()}"
    return (
        f"{verdict} {ours:.1f} us, torch {peer:.1f} us, {peer / ours:.2f}x, {rates}, {report.registers} regs "
        f"{report.spill_stores} spills{chosen}"
    )


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        _child(json.loads(sys.argv[2]))
    else:
        main()
