"""Samples for the cost model: legal designs drawn at random for a few kernels, compiled, and timed on this machine.

    python benchmarks/cost_samples.py draw PLAN.json [--count 150]     designs and machine, as JSON
    python benchmarks/cost_samples.py compile PLAN.json                fills the cache of kernels
    python benchmarks/cost_samples.py time PLAN.json OUT.json          nanoseconds of each design, raw samples kept
    python benchmarks/cost_samples.py report OUT.json                  accuracy of the cost model on these samples

Drawing and compiling may share the machine; timing wants it alone. Cases are warm: each design runs once, untimed,
before its samples. The default design is the first of every case and is timed again between the others, as a control.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from tilewright.design.cost import estimate, features
from tilewright.design.cost.accuracy import accuracy, cross_validated
from tilewright.design.default import Facts, default_design
from tilewright.design.design import Choice, Design
from tilewright.design.legality import legal
from tilewright.design.mutations import neighbours
from tilewright.language import ir, structure
from tilewright.operators import OPERATORS
from tilewright.runtime import dispatch
from tilewright.runtime.buffer import Buffer
from tilewright.runtime.compiled import compile_at

CASES: tuple[tuple[str, str, str, dict[str, int]], ...] = (
    ("f32 matmul", "matmul", "f32", {"M": 512, "N": 512, "K": 512}),
    ("f32 matmul", "matmul", "f32", {"M": 1000, "N": 777, "K": 333}),
    ("f32 matmul", "matmul", "f32", {"M": 64, "N": 2048, "K": 2048}),
    ("f32 matmul", "matmul", "f32", {"M": 2048, "N": 256, "K": 1024}),
    ("bf16 few rows", "matmul", "bf16", {"M": 1, "N": 4096, "K": 4096}),
    ("bf16 few rows", "matmul", "bf16", {"M": 4, "N": 2048, "K": 2048}),
    ("bf16 few rows", "matmul", "bf16", {"M": 8, "N": 4096, "K": 4096}),
    ("bf16 few rows", "matmul", "bf16", {"M": 16, "N": 1024, "K": 4096}),
    ("rows", "rmsnorm", "f32", {"M": 2048, "D": 4096}),
    ("rows", "rmsnorm", "bf16", {"M": 512, "D": 2048}),
    ("rows", "softmax", "f32", {"M": 1024, "D": 4096}),
    ("rows", "softmax", "bf16", {"M": 256, "D": 1000}),
)
_NUMPY: dict[str, Any] = {"f32": np.float32, "bf16": ml_dtypes.bfloat16}
_TILES = (1, 2, 3, 4, 5, 6, 8, 10, 12, 14, 16, 24, 32, 48, 64, 96, 128, 256, 512)
_ALIGN = 64


# ----------------------------------------------------------------------------------------------- cases
class Case:
    """A kernel at fixed sizes, with operands in memory."""

    def __init__(self, name: str, dtype: str, sizes: dict[str, int]) -> None:
        self.name, self.dtype, self.sizes = name, dtype, sizes
        self.operator = OPERATORS[name]
        self.kernel = compile_at(self.operator, sizes, dtype=dtype).program
        tensors = [p for p in self.kernel.params if p.dims is not None]
        aligned = frozenset(p.name for p in tensors if self._row_bytes(p) % _ALIGN == 0)
        unit = {p.name: (len(p.dims or ()) - 1,) for p in tensors}
        self.facts = Facts(sizes, unit, dispatch.machine(), aligned)

    def _row_bytes(self, p: ir.Param) -> int:
        dims = p.dims or (1,)
        last = dims[-1]
        return p.dtype.bytes * (self.sizes[last] if isinstance(last, str) else last)

    def operands(self, seed: int = 0) -> dict[str, np.ndarray[Any, Any]]:
        """Random operands, each at the start of a cache line."""
        rng = np.random.default_rng(seed)
        arrays = {}
        for p in self.kernel.params:
            if p.dims is None:
                continue
            shape = tuple(self.sizes[d] if isinstance(d, str) else d for d in p.dims)
            kind = np.dtype(_NUMPY[p.dtype.name])
            memory = np.empty(int(np.prod(shape)) * kind.itemsize + _ALIGN, np.uint8)
            start = -memory.ctypes.data % _ALIGN
            array = memory[start : start + memory.size - _ALIGN].view(kind).reshape(shape)
            array[...] = rng.standard_normal(shape, np.float32).astype(kind)
            arrays[p.name] = array
        return arrays

    def launch(self, design: Design, arrays: dict[str, Any]) -> Any:
        """The compiled design, bound to operands."""
        made = compile_at(self.operator, self.sizes, design, dtype=self.dtype)
        buffers = {n: Buffer.of(a) for n, a in arrays.items()}
        scalars = {p.name: 1e-6 for p in self.kernel.params if p.dims is None}
        return made._kernel(buffers).bind(buffers, scalars, self.sizes)


# --------------------------------------------------------------------------------------------- drawing
def draw(case: Case, count: int, seed: int, walks: float) -> list[Design]:
    """The default design, then different legal ones: the share `walks` by walks from it, others drawn whole."""
    rng = random.Random(seed)
    default = default_design(case.kernel, case.facts)
    found = {default: None}
    while len(found) < count:
        fresh = _walk(case, default, rng) if rng.random() < walks else _drawn(case, rng)
        if fresh is not None:
            found.setdefault(fresh)
    return list(found)


def _walk(case: Case, start: Design, rng: random.Random) -> Design:
    design = start
    for _ in range(rng.randint(1, 6)):
        options = list(neighbours(case.kernel, design, case.facts))
        result = rng.choice(options).apply(design)
        design = result if isinstance(result, Design) else design
    return design


def _drawn(case: Case, rng: random.Random) -> Design | None:
    """Decisions drawn one by one; None where they make no legal design."""
    decisions = dict(_decisions(case, rng))
    design = Design.of(decisions)
    return None if legal(case.kernel, design, case.facts) else design


def _decisions(case: Case, rng: random.Random) -> Iterator[tuple[str, Choice]]:
    axes = [a for a in structure.axes(case.kernel).values() if not a.each]
    names = [a.name for a in axes]
    yield "lanes", tuple(rng.sample(names, rng.randint(1, len(names))))
    tile = {a.name: rng.choice([t for t in _TILES if t <= max(2, case.facts.size(case.kernel, a))]) for a in axes}
    yield from ((f"tile.{a}", n) for a, n in tile.items())
    for nest in structure.nests(case.kernel):
        for loop in (s for s in ir.walk(nest.loop.body) if isinstance(s, ir.Loop) and not s.parallel):
            if (times := rng.choice((1, 1, 2, 4, 8))) > 1:
                yield f"unroll.{loop.axes[-1].name}", times
        yield from _blocking(nest, tile, rng)
        yield from _dots(case, nest, rng)
    for tensor in sorted({s.ref.buffer for s in ir.walk(case.kernel.body) if isinstance(s, ir.Store)}):
        if rng.random() < 0.3:
            yield f"nontemporal.{tensor}", True


def _blocking(nest: structure.Nest, tile: dict[str, int], rng: random.Random) -> Iterator[tuple[str, Choice]]:
    parallel = [a.name for a in nest.loop.axes if not a.each]
    blocked = [a for a in parallel if rng.random() < 0.5]
    for a in blocked:
        yield f"block.{a}", tile[a] * rng.choice((2, 4, 8, 16, 32))
    if blocked and nest.main is not None and rng.random() < 0.5:
        depth = nest.main.axes[0].name
        yield f"block.{depth}", tile[depth] * max(1, rng.choice((64, 128, 256, 512, 1024)) // tile[depth])
    if len(parallel) > 1:
        yield "order", tuple(rng.sample(parallel, len(parallel)))
    if len(blocked) > 1:
        yield "inner", tuple(rng.sample(blocked, len(blocked)))


def _dots(case: Case, nest: structure.Nest, rng: random.Random) -> Iterator[tuple[str, Choice]]:
    if not nest.dots:
        return
    values = structure.lets(case.kernel)
    names = [n for d in nest.dots if isinstance(d.expr, ir.Dot) for n in (d.expr.a, d.expr.b)]
    tensors = [e.ref.buffer for n in names if isinstance(e := values[n].expr, ir.Load)]
    pairs = case.dtype == "bf16" and rng.random() < 0.6
    layout = "pair" if pairs else "panel"
    for d in nest.dots if pairs else ():
        yield f"atom.{d.name}", "bf16x2"
    packed = [t for t in tensors if rng.random() < 0.6]
    for t in packed:
        yield f"pack.{t}", layout
        if rng.random() < 0.5:
            yield f"local.{t}", True
        if case.dtype == "bf16" and not pairs and len(packed) == len(tensors):
            yield f"unpack.{t}", True


# ------------------------------------------------------------------------------------ compile and time
def _compile(job: tuple[str, str, dict[str, int], list[str]]) -> int:
    name, dtype, sizes, designs = job
    case = Case(name, dtype, sizes)
    arrays = case.operands()
    for text in designs:
        case.launch(Design.from_json(text), arrays)
    return len(designs)


def compile_all(plan: list[dict[str, Any]]) -> None:
    """Every design of a plan into the cache of kernels, by two processes."""
    jobs = [
        (c["operator"], c["dtype"], c["sizes"], c["designs"][n : n + 20])
        for c in plan
        for n in range(0, len(c["designs"]), 20)
    ]
    with ProcessPoolExecutor(2) as pool:
        for done, n in enumerate(pool.map(_compile, jobs)):
            print(f"{done + 1}/{len(jobs)} jobs, {n} kernels", flush=True)


def sample(launch: Any, seconds: float = 0.03, least: int = 3, most: int = 15) -> list[float]:
    """Seconds of single calls, after one that is not counted."""
    launch()
    taken: list[float] = []
    end = time.perf_counter() + seconds
    while len(taken) < least or (time.perf_counter() < end and len(taken) < most):
        start = time.perf_counter()
        launch()
        taken.append(time.perf_counter() - start)
    return taken


def time_all(plan: list[dict[str, Any]], seconds: float, rounds: int) -> list[dict[str, Any]]:
    """The plan with raw samples (nanoseconds) of each design; the default's again every tenth design."""
    results = []
    for entry in plan:
        case = Case(entry["operator"], entry["dtype"], entry["sizes"])
        arrays = case.operands()
        launches = [case.launch(Design.from_json(d), arrays) for d in entry["designs"]]
        control: list[int] = []
        samples: list[list[int]] = [[] for _ in launches]
        for _ in range(rounds):
            for n, launch in enumerate(launches):
                if n % 10 == 0:
                    control.append(round(1e9 * statistics.median(sample(launches[0], seconds))))
                samples[n] += [round(1e9 * s) for s in sample(launch, seconds)]
        results.append({**entry, "control_ns": control, "samples_ns": samples})
        spread = max(control) / min(control)
        print(f"{entry['operator']} {entry['sizes']}: {len(samples)} designs, control varies {spread:.2f}x", flush=True)
    return results


# ---------------------------------------------------------------------------------------------- report
def _rows(entry: dict[str, Any]) -> list[tuple[tuple[float, ...], float, float]]:
    """Features, predicted and measured (least) seconds of each design of a case."""
    case, rows = Case(entry["operator"], entry["dtype"], entry["sizes"]), []
    for data, samples in zip(entry["designs"], entry["samples_ns"], strict=True):
        design = Design.from_json(data if isinstance(data, str) else json.dumps(data))
        found = estimate(case.kernel, design, case.facts)
        rows.append((features(case.kernel, design, case.facts, found), found.seconds, min(samples) * 1e-9))
    return rows


def report(cases: list[dict[str, Any]]) -> None:
    """Accuracy by family and by case: the analytical model, and the correction that saw no row of its group.

    A group is a shape, or (one of eight parts of) the designs of all shapes: what a book with other measurements of
    the same shapes would know.
    """
    for family in dict.fromkeys(c["family"] for c in cases):
        mine = [c for c in cases if c["family"] == family]
        parts = [_rows(c) for c in mine]
        rows = [r for part in parts for r in part]
        shapes = [n for n, part in enumerate(parts) for _ in part]
        rng = random.Random(0)
        drawn = [rng.randrange(8) for _ in rows]
        measured = [r[2] for r in rows]
        judged = {
            "model": [r[1] for r in rows],
            "corrected, new shape": cross_validated(rows, shapes),
            "corrected, new designs": cross_validated(rows, drawn, 8),
        }
        for name, predicted in judged.items():
            print(family, name, accuracy(predicted, measured).to_json())
            for n, case in enumerate(mine):
                own = [k for k, shape in enumerate(shapes) if shape == n]
                found = accuracy([predicted[k] for k in own], [measured[k] for k in own])
                print("   ", case["operator"], case["dtype"], case["sizes"], found.to_json())


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("step", choices=("draw", "compile", "time", "report"))
    parser.add_argument("plan", type=Path)
    parser.add_argument("out", type=Path, nargs="?")
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--walks", type=float, default=0.4)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--family", default="all")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=0.03)
    args = parser.parse_args()
    if args.step == "draw":
        plan = [
            {
                "family": family, "operator": name, "dtype": dtype, "sizes": sizes,
                "designs": [d.to_json() for d in draw(Case(name, dtype, sizes), args.count, args.seed + n, args.walks)],
            }
            for n, (family, name, dtype, sizes) in enumerate(CASES)
            if args.family in ("all", family)
        ]  # fmt: skip
        args.plan.write_text(json.dumps(plan))
        return
    plan = json.loads(args.plan.read_text())
    if args.step == "report":
        report(plan["cases"])
        return
    if args.step == "compile":
        compile_all(plan)
        return
    machine = dispatch.machine()
    results = time_all(plan, args.seconds, args.rounds)
    args.out.write_text(json.dumps({"machine": machine.to_dict(), "date": time.strftime("%Y-%m-%d"), "cases": results}))


if __name__ == "__main__":
    main()
