"""The starter book of a GPU, made of what `tilewright bench gemm --save` found on it.

Each design that was faster than the default of its run beyond the noise of both becomes a hint; on another host it is
verified and measured before it is used (`tilewright book adopt`). Products whose reference in float64 takes long on a
host are left out.

    python tools/gpu_starter.py benchmarks/results/gpu-h200-2026-11-24.json src/tilewright/design/book/starter/h200.json
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "src"))

from tilewright import operators
from tilewright.bench.gemm_cases import GemmCase, gemm_cases
from tilewright.bench.gemm_jobs import SEARCH as SEARCHED
from tilewright.design.book.document import Document, write
from tilewright.design.book.record import Record
from tilewright.design.design import Design
from tilewright.design.legality import legal
from tilewright.language.printer import show
from tilewright.machines.machine import Machine
from tilewright.runtime.subject import Subject

_MOST_FLOPS = 3e11


def subject_of(case: GemmCase, machine: Machine) -> Subject:
    """What a case of the bench is to a search."""
    operator = operators.gate_up if case.epilogue == "gate_up" else operators.matmul
    options = None if case.epilogue == "gate_up" else {"activation": "gelu" if case.epilogue == "bias_gelu" else None}
    present = {"bias_gelu": ("bias",), "residual": ("residual",)}.get(case.epilogue, ())
    sizes = {"M": case.m, "N": case.n, "K": case.k}
    return Subject.of(operator, sizes, case.dtype, options=options, present=present, machine=machine)


def _gain(metrics: dict[str, float]) -> float:
    """How much faster than the default the design that was found is; 0 where nothing says it."""
    if "of_default" in metrics:
        return metrics["of_default"]
    return metrics["ratio"] / metrics["default_ratio"] if "default_ratio" in metrics else 0.0


def records(results: dict[str, Any]) -> Iterator[Record]:
    """A hint for each case whose search paid."""
    machine = Machine.from_dict(results["machine"])
    cases = {c.name: c for c in gemm_cases() if not c.links}
    for result in results["results"]:
        case, metrics = cases.get(result["name"]), result.get("metrics", {})
        if case is None or result["family"] not in (case.family, SEARCHED) or case.flops > _MOST_FLOPS:
            continue
        gain = _gain(metrics)
        if gain < 1 + 2 * metrics["noise"]:
            continue
        subject, design = subject_of(case, machine), Design.of(result["raw"]["design"])
        if legal(subject.kernel, design, subject.facts):
            continue
        seconds = metrics["us"] * 1e-6
        yield Record(
            subject.key(), design, seconds, seconds * gain, metrics["noise"], False, 0,
            results["runs"][result.get("run", 0)]["date"], origin="starter",
        )  # fmt: skip


def book(results: dict[str, Any]) -> Document:
    """The starter book, with its programs and its machine."""
    found = tuple(sorted(records(results), key=lambda r: r.key.label))
    programs = {r.key.semantics: show(r.key.kernel) for r in found if r.key.kernel is not None}
    machine = Machine.from_dict(results["machine"])
    return Document(tuple(found), programs=programs, machines={machine.fingerprint: machine.to_json()})


def text_of(results: dict[str, Any]) -> str:
    """The file; its date is that of the results, so that it depends on nothing else."""
    data = json.loads(book(results).to_text())
    return json.dumps({**data, "date": results["date"]}, indent=1) + "\n"


def main(source: str, target: str) -> None:
    """Write the book."""
    results = json.loads(Path(source).read_text())
    write(Path(target), text_of(results))
    print(f"{target}: {len(list(records(results)))} designs")


if __name__ == "__main__":
    main(*sys.argv[1:3])
