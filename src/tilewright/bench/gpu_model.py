"""How near the cost model comes to the products that `tilewright bench gemm` measured: errors by family.

A row is one design of one case: the winner of its search and, where it is another, the default design. Times are
medians of the raw samples (replays of CUDA graphs, L2 flushed). Nothing is run.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from tilewright import operators
from tilewright.bench.gemm_cases import GemmCase, gemm_cases
from tilewright.design.cost import features
from tilewright.design.cost.accuracy import Accuracy, accuracy, cross_validated
from tilewright.design.cost.correction import Row
from tilewright.design.cost.gpu import estimate_gpu
from tilewright.design.cost.gpu_rates import as_link
from tilewright.design.default import Facts
from tilewright.design.design import Choice, Design
from tilewright.language import ir
from tilewright.machines.machine import Machine

LADDER = "gemm_ladder"
"""Kernels that are slow on purpose, step by step: reported, and no part of a mean."""
COPIES = Design.of({"lanes": ("c", "r"), "tile.c": 4096, "tile.r": 1, "vec.x": 8, "vec.y": 8, "warps": 8})
"""How unaligned operands were packed in results of before COPIES_UNTIL; since then, by today's default design."""

COPIES_UNTIL = "2026-11-29"
_LADDER_CASE = GemmCase(LADDER, 4096, 4096, 4096)


@dataclass(frozen=True)
class Measured:
    """One design of a case, its estimate's features, and seconds predicted and measured; `copies` as `estimate_gpu`
    takes it."""

    case: GemmCase
    name: str
    design: Design
    copies: Design | None
    features: tuple[float, ...]
    predicted: float
    seconds: float

    @property
    def operator(self) -> str:
        """The name of its program."""
        return _kernel(self.case.epilogue).name

    @property
    def row(self) -> Row:
        """As the learned correction takes it."""
        return self.features, self.predicted, self.seconds

    @property
    def shape(self) -> tuple[int, int, int]:
        """What the correction must not have seen when it is judged on this row."""
        return self.case.m, self.case.n, self.case.k


def measured(results: Mapping[str, Any], machine: Machine) -> list[Measured]:
    """The rows of a results file, by the model of `machine` (what the file says of its machine is not used)."""
    cases = {(c.family, c.name): c for c in gemm_cases()}
    found = []
    for result in results["results"]:
        ladder = result["family"] == LADDER
        case = _LADDER_CASE if ladder else cases.get((result["family"], result["name"]))
        if case is not None and "design" in result["raw"]:
            copies = _copies(results, result)
            found += [_row(case, result["name"], d, copies, s, machine) for d, s in designs_of(result["raw"])]
    return found


def _copies(results: Mapping[str, Any], result: Mapping[str, Any]) -> Design | None:
    """How a result's unaligned operands were packed; None for the default design, as where no date is told."""
    runs = results.get("runs")
    return COPIES if runs and runs[result["run"]]["date"] < COPIES_UNTIL else None


def designs_of(raw: Mapping[str, Any]) -> Iterator[tuple[Design, float]]:
    """Each different design with its median seconds."""
    samples, seen = raw["samples_ns"], set()
    for key, name in (("design", "tilewright"), ("default", "default")):
        if key in raw:
            design = design_of(raw[key])
            if design not in seen:
                seen.add(design)
                yield design, statistics.median(samples[name if name in samples else next(iter(samples))]) * 1e-9


def design_of(decisions: Mapping[str, Any]) -> Design:
    """A design from the decisions of a result, whose names are lists there."""
    return Design.of({k: _choice(v) for k, v in decisions.items()})


def _choice(value: Any) -> Choice:
    return tuple(value) if isinstance(value, list) else value


def _row(
    case: GemmCase, name: str, design: Design, copies: Design | None, seconds: float, machine: Machine
) -> Measured:
    kernel, facts = _facts(case, machine)
    found = estimate_gpu(kernel, design, facts, copies=copies)
    numbers = features(kernel, design, facts, found)
    return Measured(case, name, design, copies, numbers, _seconds(case, found.seconds, machine), seconds)


def predicted(row: Measured, machine: Machine) -> float:
    """Seconds of the row's design by the model of another machine, or of the same one with other rates."""
    kernel, facts = _facts(row.case, machine)
    return _seconds(row.case, estimate_gpu(kernel, row.design, facts, copies=row.copies).seconds, machine)


def _seconds(case: GemmCase, alone: float, machine: Machine) -> float:
    return as_link(alone, machine) if case.links else alone


def _facts(case: GemmCase, machine: Machine) -> tuple[ir.Kernel, Facts]:
    """The program of a case, and what is known of its operands: rows side by side."""
    kernel = _kernel(case.epilogue)
    unit = {p.name: (len(p.dims) - 1,) for p in kernel.params if p.dims}
    return kernel, Facts({"M": case.m, "N": case.n, "K": case.k}, unit, machine)


@cache
def _kernel(epilogue: str) -> ir.Kernel:
    if epilogue == "gate_up":
        gated: ir.Kernel = operators.gate_up.kernel.trace(dict.fromkeys(("x", "gate", "up", "y"), "bf16"))
        return gated
    more = {"bias_gelu": ["bias"], "residual": ["residual"]}.get(epilogue, [])
    activation = "gelu" if epilogue == "bias_gelu" else None
    names = dict.fromkeys(("a", "b", "c", *more), "bf16")
    plain: ir.Kernel = operators.matmul.kernel.trace(names, options={"activation": activation})
    return plain


@dataclass(frozen=True)
class Errors:
    """Of one family ("all": of all but the ladder): the model alone, and corrected by other shapes only."""

    family: str
    model: Accuracy
    corrected: Accuracy

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {"family": self.family, "model": self.model.to_json(), "corrected": self.corrected.to_json()}


def errors(rows: Sequence[Measured], folds: int = 8) -> list[Errors]:
    """Errors by family and of all; the correction is trained on all families, and judged on shapes it never saw."""
    judged = [r for r in rows if r.case.family != LADDER]
    corrected = cross_validated([r.row for r in judged], [r.shape for r in judged], folds)
    pairs = list(zip(judged, corrected, strict=True))
    families = dict.fromkeys(r.case.family for r in judged)
    found = [_errors(f, [p for p in pairs if p[0].case.family == f]) for f in families]
    ladder = [(r, r.predicted) for r in rows if r.case.family == LADDER]
    return [*found, _errors("all", pairs), *([_errors(LADDER, ladder)] if ladder else [])]


def _errors(family: str, pairs: Sequence[tuple[Measured, float]]) -> Errors:
    seconds = [r.seconds for r, _ in pairs]
    return Errors(family, accuracy([r.predicted for r, _ in pairs], seconds), accuracy([c for _, c in pairs], seconds))


__all__ = ["LADDER", "Errors", "Measured", "design_of", "designs_of", "errors", "measured", "predicted"]
