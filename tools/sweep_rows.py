"""Every design that the description of rows offers, timed beside torch.compile on the GPU at hand; samples as JSON.

A design is named by the choices in which it differs from the default: `accesses=2 keep=False`. All are compiled side by
side, and verified against float64 before they are timed.

    python tools/sweep_rows.py OUT.json PATTERN [ROUNDS [MOST [NAME=VALUE ...]]]

PATTERN: the cases; NAME=VALUE: decisions that each design is timed with, too.
"""

from __future__ import annotations

import json
import random
import statistics
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from sweep_builds import all_built

Named = list[tuple[str, Any]]


def designs(kernel: Any, facts: Any, most: int, more: dict[str, Any]) -> Named:
    """Legal designs by name, the default first: at most so many, drawn at random; each with those of `more`, too."""
    from tilewright.design.design import Design
    from tilewright.design.gpu.shape import Shape
    from tilewright.design.legality import legal
    from tilewright.language import structure

    shape = Shape(kernel, structure.nests(kernel)[0], facts)
    found: dict[str, Any] = {}
    for name, design in _walked(shape):
        named = [(name, design)]
        for key, value in more.items():
            named.append((f"{name} {key}={value}".strip(), Design.of({**dict(design.decisions), key: value})))
        for label, each in named:
            if each not in found.values() and not legal(kernel, each, facts):
                found[label or "default"] = each
    first, *rest = found.items()
    return [first, *random.Random(len(rest)).sample(rest, min(most, len(rest)))]


def _walked(shape: Any) -> Iterator[tuple[str, Any]]:
    """All leaves of the tree of choices that a draw makes, the first of every choice first."""
    from tilewright.design.gpu.rows import draw_rows

    open_paths: list[tuple[int, ...]] = [()]
    while open_paths:
        path = open_paths.pop(0)
        taken: list[tuple[str, int, int, Any]] = []

        def pick(what: str, options: Sequence[Any], /, path: Any = path, taken: Any = taken) -> Any:
            nth = path[len(taken)] if len(taken) < len(path) else 0
            taken.append((what, nth, len(options), options[nth]))
            return options[nth]

        design = draw_rows(shape, pick)
        yield " ".join(f"{what}={value}" for what, nth, _, value in taken if nth), design
        chosen = tuple(nth for _, nth, _, _ in taken)
        for depth in range(len(path), len(taken)):
            open_paths += [(*chosen[:depth], n) for n in range(1, taken[depth][2])]


def built(problems: Sequence[tuple[Any, Named]]) -> list[Named]:
    """Of each problem those designs that compile, compiled side by side, all of them at once."""
    from tilewright.runtime.cuda.dispatch import machine, requested

    known = machine(0)
    requests = [
        requested(p.program, p.layouts, p.sizes, known, d, p.fixed) for p, chosen in problems for _, d in chosen
    ]
    fine = iter(all_built(requests, known, each=2))
    return [[named for named in chosen if next(fine)] for _, chosen in problems]


def measured(setup: Any, chosen: Named, rounds: int, peer: bool = True) -> dict[str, Any]:
    """Samples in microseconds of every design, of the copy of as many bytes and, if wanted, of torch.compile."""
    import torch

    from tilewright.runtime.cuda.evaluator import GpuEvaluator
    from tilewright.runtime.cuda.measure import compare

    evaluator, calls, wrong = GpuEvaluator(setup.problem()), {}, {}
    if peer:
        torch._dynamo.reset()
        calls["torch.compile"] = setup.peer(compiled=True)
    half = torch.empty(setup.case.bytes // 4, dtype=torch.bfloat16, device="cuda").normal_()
    other = torch.empty_like(half)
    calls["copy"] = lambda: other.copy_(half)
    for name, design in chosen:
        try:
            launch = evaluator.launch(design)
            setup.poison()
            launch()
            setup.check()
            calls[name] = launch
        except Exception as error:  # what went wrong is the result
            if "CUDA" in str(error):
                raise
            wrong[name] = f"{type(error).__name__}: {error}"[:200]
    timed = compare(calls, rounds=rounds, poison=setup.poison, pause=setup.case.links)
    us = {name: [round(ns / 1e3, 2) for ns in timed.samples[name]] for name in calls}
    told = {n: dict(d.decisions) for n, d in chosen if n in calls}
    return {"us": us, "noise": round(timed.noise, 4), "wrong": wrong, "designs": told}


def told(name: str, found: dict[str, Any], best: int = 5) -> str:
    """A few lines on a case: the peers, the default, and the best designs."""
    medians = {label: statistics.median(samples) for label, samples in found["us"].items()}
    peers = ", ".join(f"{n} {medians.pop(n):.2f}" for n in ("torch.compile", "copy") if n in medians)
    head = (
        f"{name}: {peers}, default {medians.get('default', 0):.2f}, noise {found['noise']}, {len(found['wrong'])} wrong"
    )
    return "\n".join([head, *(f"  {us:8.2f} {n}" for n, us in sorted(medians.items(), key=lambda x: x[1])[:best])])


def main() -> None:
    """Compile all, then measure case by case, what is known so far in the file after each."""
    from tilewright.bench.cases import matches
    from tilewright.bench.gpu_case import facts_of
    from tilewright.bench.rows_cases import row_cases
    from tilewright.bench.rows_problem import RowProblem
    from tilewright.runtime.cuda.dispatch import machine

    out, pattern = Path(sys.argv[1]), sys.argv[2]
    rounds, most = (int(x) for x in (sys.argv[3:5] + ["12", "64"][len(sys.argv[3:5]) :]))
    more = {k: int(v) if v.isdigit() else v for k, v in (x.split("=") for x in sys.argv[5:])}
    setups = [RowProblem(c) for c in row_cases() if matches(pattern, c.name)]
    problems = [s.problem() for s in setups]
    chosen = [(p, designs(p.program.kernel, facts_of(p, machine(0)), most, more)) for p in problems]
    results: dict[str, Any] = {}
    for setup, fine in zip(setups, built(chosen), strict=True):
        results[setup.case.name] = found = measured(setup, fine, rounds)
        out.write_text(json.dumps(results))
        print(told(setup.case.name, found), flush=True)


if __name__ == "__main__":
    main()
