"""Designs of products of few rows, many for each shape, timed beside cuBLAS on the GPU at hand; samples as JSON.

All kernels are compiled side by side first. A child process measures, so that a kernel that traps or hangs costs its
own case only. Every design is verified against float64 before it is timed.

    python tools/sweep_few_rows.py OUT.json 16,64 0,3,5 [ROUNDS [MOST [gate_up]]]    # rows; numbers of PAIRS
"""

from __future__ import annotations

import itertools
import json
import os
import random
import select
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sweep_builds import all_built

PAIRS = (
    (3072, 2048), (2048, 2048), (16384, 2048), (2048, 8192), (6144, 4096), (4096, 4096), (28672, 4096), (4096, 14336),
    (128256, 4096), (57344, 8192), (8192, 28672),
    (14336, 4096), (8192, 2048),
)  # fmt: skip
Case = tuple[int, int, int, str]
Decisions = dict[str, Any]
SMS = 132
LEAN = {"atom.dot0": "wgmma", "warpgroups": 1, "producer": "warp"}


def staged(m: int, n: int, k: int) -> Iterator[Decisions]:
    """Through shared memory: x along the rows of the atom and columns that come out even, or weights along the rows."""
    heights = {1: (8,), 4: (8,), 16: (16,), 64: (64,), 128: (64, 128)}[m]
    for rows in heights:
        down, groups = -(-m // rows), 2 if rows == 128 else 1
        base = {**LEAN, "warpgroups": groups, "tile.m": rows}
        for parts, share in itertools.product((1, 2, 4), (0.5, 1, 2)):
            if parts > 1 and share > 1:
                continue
            exact = n * down * parts / (SMS * share)
            for columns in sorted({-(-int(exact) // 8) * 8, -(-int(n * down * parts // (128 * share)) // 8) * 8}):
                if 16 <= columns <= 256:
                    yield from _rings({**base, "tile.n": columns, **_split(parts, "cluster")}, m)
                    if parts == 1:
                        for more in (
                            {"cluster.m": 2},
                            {"cluster.n": 2},
                            {"cluster.m": 2, "cluster.n": 2},
                            {"cluster.n": 4},
                        ):
                            yield from _rings({**base, "tile.n": columns, **more}, m)
        for columns, blocks, depth in itertools.product(
            (24, 32, 48, 64, 96), (2, 3, 4), (64, 128)
        ):  # many small blocks
            tiles = -(-n // columns)
            if down == 1 and tiles > 1.5 * blocks * SMS:
                yield {**base, "tile.n": columns, "tile.k": depth, "inflight": 0, "blocks": blocks}
    for rows, groups in ((64, 1), (128, 2)):
        for parts in (1, 2, 3, 4):
            for how in ("cluster", "two_pass") if parts > 1 else ("cluster",):
                columns = {"swap": True, "tile.n": rows, "tile.m": max(8, m), **_split(parts, how)}
                yield from _rings({**LEAN, "warpgroups": groups, **columns}, m)
    even = -(-n // SMS // 8) * 8
    if m < 64 and even < 64:
        yield from _rings({**LEAN, "swap": True, "tile.n": even, "tile.m": max(8, m)}, m)


def straight(m: int, n: int, k: int) -> Iterator[Decisions]:
    """Straight from memory to registers, with and without a ring of shared memory between."""
    if m > 16:
        return
    for along, across in ((8, 1), (16, 1), (8, 2), (4, 2), (4, 4), (2, 8), (4, 1), (2, 4)):
        rings = [(c, h, r, 0) for c, h, r in ((1, 4, 4), (2, 4, 2), (1, 4, 2))]
        rings += [
            (c, h, r, s)
            for c, h, r in ((1, 1, 2), (1, 2, 2), (2, 1, 2), (2, 2, 2), (1, 2, 3), (1, 1, 3), (1, 4, 2), (4, 1, 2))
            for s in (2, 3, 4, 8)
        ]
        for columns, chunks, resident, stages in rings:
            if k // (32 * chunks) >= along * max(1, stages // 2) and along * across * resident <= 48:
                yield {
                    "atom.dot0": "mma", "tile.m": 16, "tile.n": 8 * columns * across, "tile.k": 32 * chunks,
                    "warps": along * across, "warps.k": along, "resident": resident, "cache.b": "cs",
                    **({"stages": stages} if stages else {}),
                }  # fmt: skip


def tall(m: int, n: int, k: int) -> Iterator[Decisions]:
    """16 to 128 rows once more: results by the engine, blocks that stay, and parts of sums joined in each way."""
    for swap, (rows, groups) in itertools.product((False, True), ((16, 1), (64, 1), (128, 2))):
        if rows > m if not swap else rows < 64:
            continue
        for across, parts in itertools.product(
            (16, 24, 32, 40, 48, 56, 64, 96, 112, 128, 160, 192, 224, 248, 256), (1, 2)
        ):
            if (swap and across not in (m, 64)) or (swap and across > m):
                continue
            down = -(-m // (across if swap else rows))
            blocks = -(-n // (rows if swap else across)) * down * parts
            waves = -(-blocks // SMS)
            if (parts > 1 and (blocks > SMS or (down > 1 and not swap))) or waves * SMS > 1.36 * blocks:
                continue
            tile = {"swap": True, "tile.n": rows, "tile.m": across} if swap else {"tile.m": rows, "tile.n": across}
            base = {**LEAN, "warpgroups": groups, **tile}
            if max(64, rows) // groups * across > 64 * 128:
                base["producer"] = "warpgroup"
            yield from _endings(base, down, waves, parts, m)


def _endings(base: Decisions, down: int, waves: int, parts: int, m: int) -> Iterator[Decisions]:
    """Steps, and how a tile's results leave."""
    engine = {"store.c": "tma"} if m >= 64 and base["tile.n"] % 32 == 0 else {}
    for (depth, inflight), how in itertools.product(((64, 0), (64, 1), (128, 0), (128, 1)), ("cluster", "two_pass")):
        steps = {**base, "tile.k": depth, "inflight": inflight, **_split(parts, how)}
        if parts > 1:
            if how == "cluster" or (waves == 1 and base["tile.m"] * base["tile.n"] >= 128 * 128):
                yield from (steps, {**steps, **engine})
            continue
        if how == "two_pass":
            continue
        pair, stays = {"cluster.m": 2} if down > 1 else {}, {"persistent": True, "grid.order": "row"}
        yield {**steps, **pair, **engine}
        yield {**steps, **pair, **engine, "blocks": 2}
        if inflight or not engine:
            yield {**steps, **pair}
        if waves > 1:
            yield {**steps, **pair, **engine, **stays}
        if down > 1:
            yield {**steps, **engine}
        elif m < 64:
            yield {**steps, "cluster.n": 2}
            yield {**steps, "cluster.n": 2, "blocks": 2}


def by_fma(m: int, n: int, k: int) -> Iterator[Decisions]:
    """Few rows by FMA: many columns a warp, so that x is read less often."""
    for columns, (along, across), chunks in itertools.product(
        (1, 2, 4, 8), ((1, 8), (2, 4), (4, 2), (8, 1), (4, 1), (2, 2), (1, 4), (2, 8), (4, 4)), (1, 2, 4)
    ):
        for resident in (1, 2, 3, 4, 6, 8):
            warps = along * across
            if k // (256 * chunks) >= along and 16 <= warps * resident <= 48 and columns * chunks <= 8:
                yield {
                    "atom.dot0": "fma", "tile.m": m, "tile.n": columns * across, "tile.k": 256 * chunks,
                    "warps": warps, "warps.k": along, "resident": resident, "cache.b": "cs",
                }  # fmt: skip


def two_sums(facts: Any, p: Any) -> Iterator[Decisions]:
    """Gate and up in one kernel, straight to registers."""
    from tilewright.design.gpu.straight import straight as deal

    m = p.size(p.m, facts)
    for atom in ("fma", "mma") if m <= 4 else ("mma",):
        warps = ((4, 2), (2, 4), (1, 8), (8, 1), (4, 1), (4, 4)) if atom == "fma" else ((8, 1), (4, 1), (4, 2), (8, 2))
        for (along, across), (columns, chunks, resident, stages) in itertools.product(warps, (
            (1, 2, 4, 0), (1, 4, 2, 0), (1, 4, 4, 0), (1, 2, 2, 2), (1, 2, 2, 4), (1, 1, 2, 4), (1, 4, 2, 2),
        )):  # fmt: skip
            found = dict(deal(p, facts, columns, along, across, chunks, atom).decisions)
            yield {**found, "resident": resident, **({"stages": stages} if stages else {})}


def _split(parts: int, how: str) -> Decisions:
    return {"split.k": parts, "how.k": how} if parts > 1 else {}


def _rings(base: Decisions, m: int) -> Iterator[Decisions]:
    """Depths of a step and of the ring, blocks on an SM, rows of a box."""
    for depth, inflight, blocks in ((64, 0, 1), (128, 0, 1), (128, 1, 1), (256, 0, 1), (64, 0, 2), (128, 0, 2)):
        if blocks == 1 or "split.k" not in base:
            yield {**base, "tile.k": depth, "inflight": inflight, "blocks": blocks}
    rows_of_c = base["tile.n"] if base.get("swap") else base["tile.m"]
    if m >= 64 and rows_of_c >= 64 and base["tile.n"] % 32 == 0 and "split.k" not in base:  # results by the engine
        for depth, inflight in ((128, 1), (128, 0), (64, 0)):
            yield {**base, "tile.k": depth, "inflight": inflight, "blocks": 1, "store.c": "tma"}
    if "split.k" not in base or base.get("how.k") == "cluster":
        for depth, rows in ((128, 8), (256, 8), (256, 16)):
            yield {**base, "tile.k": depth, "inflight": 0, "blocks": 1, "box.b": rows}


def designs(case: Case, facts: Any, kernel: Any, most: int = 1 << 30) -> list[Decisions]:
    """Legal designs of the grid, at most so many drawn at random, the default one first."""
    from tilewright.design.default import default_design
    from tilewright.design.design import Design
    from tilewright.design.gpu.default import deepest_ring, default_product
    from tilewright.design.gpu.product import product
    from tilewright.design.legality import legal

    p = product(kernel)
    found: dict[str, Decisions] = {}
    m, n, k, epilogue = case
    only = os.environ.get("ONLY", "")
    grids = {"staged": staged, "straight": straight, "tall": tall, "fma": by_fma}
    plain = [grids[g](m, n, k) for g in only.split(",") if g in grids] or [staged(m, n, k), straight(m, n, k)]
    for chosen in itertools.chain(*plain) if epilogue != "gate_up" else two_sums(facts, p):
        d = dict(chosen)
        blocks = d.pop("blocks", 1)
        if "warps" not in d:
            room = int(facts.machine.limit("shared_bytes_per_block")) // blocks - 2048 * (blocks - 1)
            d["stages"] = deepest_ring(p, Design.of({**d, "stages": 2}), facts, room)
            if d["stages"] < 3:
                continue
        if not legal(kernel, Design.of(d), facts):
            found.setdefault(Design.of(d).hash, d)
    default = dict(default_design(kernel, facts).decisions)
    if epilogue == "gate_up":  # the default as it was: through shared memory
        found.setdefault("staged", dict(default_product(p, facts).decisions))
    if default["atom.dot0"] == "wgmma" and os.environ.get("ONLY") == "near":  # the default's tile, and other rings
        bare = {n: x for n, x in default.items() if n not in ("stages", "tile.k", "inflight")}
        found = {}
        hinted = {**default, "cache.a": "evict_last", "cache.b": "evict_first"}
        if not legal(kernel, Design.of(hinted), facts):
            found["hints"] = hinted
        for ring in _rings(bare, m):
            blocks = ring.pop("blocks")
            room = int(facts.machine.limit("shared_bytes_per_block")) // blocks - 2048 * (blocks - 1)
            ring["stages"] = deepest_ring(p, Design.of({**ring, "stages": 2}), facts, room)
            if not legal(kernel, Design.of(ring), facts):
                found.setdefault(Design.of(ring).hash, ring)
    others = [d for h, d in found.items() if h != Design.of(default).hash]
    return [default, *random.Random(len(others)).sample(others, min(most, len(others)))]


def setup_of(case: Case) -> Any:
    from tilewright.bench.gemm_cases import GemmCase
    from tilewright.bench.gemm_problem import GemmProblem

    return GemmProblem(GemmCase("gemm_small", *case), 0)


def measured(case: Case, chosen: list[Decisions], rounds: int) -> Iterator[dict[str, Any]]:
    """Designs in groups beside cuBLAS."""
    from tilewright.design.design import Design
    from tilewright.runtime.cuda.evaluator import GpuEvaluator
    from tilewright.runtime.cuda.measure import captured, compare

    setup = setup_of(case)
    evaluator = GpuEvaluator(setup.problem())
    peer = captured(setup.peer())
    calls: dict[int, Any] = {}
    for i, decisions in enumerate(chosen):
        line: dict[str, Any] = {"case": case, "design": decisions}
        try:
            launch = evaluator.launch(Design.of(decisions))
            setup.poison()
            launch()
            setup.check()
            calls[i] = captured(launch)
        except Exception as error:  # what went wrong is the result
            if "CUDA" in str(error):
                raise
            yield {**line, "error": f"{type(error).__name__}: {error}"[:200]}
    keys = list(calls)
    for at in range(0, len(keys), 24):
        group = {str(i): calls[i] for i in keys[at : at + 24]}
        timed = compare({"torch": peer, **group}, rounds=rounds, poison=setup.poison, control=False)
        for name in group:
            samples = [round(x) for x in timed.samples[name]]
            line = {"case": case, "design": chosen[int(name)], "us": statistics.median(samples) / 1e3}
            torch_ns = [round(x) for x in timed.samples["torch"]]
            yield {**line, "torch": statistics.median(torch_ns) / 1e3, "ns": samples, "torch_ns": torch_ns}


def built(cases: list[Case], most: int) -> list[tuple[Case, list[Decisions]]]:
    """The designs of every case that compile, compiled side by side."""
    from tilewright.bench.gpu_case import facts_of
    from tilewright.design.design import Design
    from tilewright.runtime.cuda.dispatch import machine, requested

    known, jobs, requests = machine(0), [], []
    for case in cases:
        problem = setup_of(case).problem()
        chosen = designs(case, facts_of(problem, known), problem.program.kernel, most)
        for d in chosen:
            requests.append(
                requested(problem.program, problem.layouts, problem.sizes, known, Design.of(d), problem.fixed)
            )
            jobs.append((case, d))
    begun = time.time()
    built_ones = all_built(requests, known, each=4)
    kept: dict[Case, list[Decisions]] = {c: [] for c in cases}
    for (case, d), fine in zip(jobs, built_ones, strict=True):
        if fine:
            kept[case].append(d)
    count = sum(map(len, kept.values()))
    print(f"{count} designs of {len(requests)} built, {time.time() - begun:.0f} s", flush=True)
    return list(kept.items())


def main() -> None:
    """Compile all, then measure case by case."""
    out, rows = Path(sys.argv[1]), [int(x) for x in sys.argv[2].split(",")]
    pairs = [PAIRS[int(x)] for x in sys.argv[3].split(",")]
    rounds = int(sys.argv[4]) if len(sys.argv) > 4 else 12
    most = int(sys.argv[5]) if len(sys.argv) > 5 else 1 << 30
    epilogue = sys.argv[6] if len(sys.argv) > 6 else ""
    work = built([(m, n, k, epilogue) for n, k in pairs for m in rows], most)
    results: list[dict[str, Any]] = []
    while work:
        command = [sys.executable, __file__, "--child", str(rounds)]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
            assert child.stdin is not None and child.stdout is not None
            child.stdin.write(json.dumps(work).encode())
            child.stdin.close()
            while work:
                ready, _, _ = select.select([child.stdout], [], [], 25.0)
                line = child.stdout.readline().decode() if ready else ""
                if line.startswith("#done"):
                    _tell(results, *work.pop(0))
                    out.write_text(json.dumps(results))
                elif line.startswith("#"):
                    results.append(json.loads(line[1:]))
                elif not line:
                    break
            child.kill()
        if work:
            print(f"{work[0][0]}: the process died or hung", flush=True)
            work.pop(0)


def _tell(results: list[dict[str, Any]], case: Case, chosen: list[Decisions]) -> None:
    mine = [r for r in results if tuple(r["case"]) == tuple(case)]
    fine = sorted((r for r in mine if "us" in r), key=lambda r: r["us"] / r["torch"])
    wrong = [r for r in mine if "error" in r]
    default = next((r for r in fine if r["design"] == chosen[0]), None)
    if fine:
        best = fine[0]
        text = f"{best['us']:.1f} of {best['torch']:.1f}, {best['torch'] / best['us']:.3f}x"
        rest = f"default {default['torch'] / default['us']:.3f}x" if default else "no default"
        print(f"{case}: {text}, {rest}, {len(fine)} ok {len(wrong)} wrong, {json.dumps(best['design'])}", flush=True)
    for r in wrong[:2]:
        print(f"  {r['error']}: {json.dumps(r['design'])}", flush=True)


def child() -> None:
    """Results of all cases, a line each."""
    for case, chosen in json.load(sys.stdin):
        for line in measured(tuple(case), chosen, int(sys.argv[2])):
            print("#" + json.dumps(line), flush=True)
        print("#done", flush=True)


if __name__ == "__main__":
    child() if sys.argv[1] == "--child" else main()
