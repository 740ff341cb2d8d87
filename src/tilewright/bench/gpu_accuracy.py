"""How good the GPU model is on all that this project has measured: errors by operator and by family of cases.

The newest results file of each bench is read, and the probe that the rates of rows were fitted to. Each case is
predicted by the model alone, and by the model with a learned correction that saw no measurement of its shape; of an
operator that it saw too few other shapes of, or on whose other shapes it does not help, the model's word stands.
"""

from __future__ import annotations

import json
import re
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from statistics import fmean, median
from typing import Any

from tilewright.bench.attention_cases import AttentionCase
from tilewright.bench.decode_cases import DecodeCase
from tilewright.bench.gpu_model import LADDER, design_of, measured
from tilewright.bench.gpu_model_nests import (
    Case,
    MeasuredNest,
    attention_case,
    decode_case,
    is_made,
    measured_case,
    measured_nests,
    row_case,
)
from tilewright.bench.rows_cases import RowCase
from tilewright.design.cost.accuracy import cross_validated
from tilewright.design.cost.correction import Row
from tilewright.machines.machine import Machine

FITTED = "probe"
"""The family of what the rates of rows and of single queries were fitted to: part of no mean but its own."""
_BENCHES = ("gpu-h200-*.json", "decode-gpu-h200-*.json", "rows-gpu-h200-*.json")
_PROBES = "probes/simulate-rows-h200-*.json"
_FOLDS = 8
_SAME = re.compile(r" pages of \d+| k\d+")
"""What tells cases apart that take about as long as each other, or that two files name differently."""


@dataclass(frozen=True)
class Sample:
    """One design of a case; `group` is what the correction must not have seen when it is judged on it."""

    operator: str
    family: str
    name: str
    group: Hashable
    row: Row


@dataclass(frozen=True)
class Line:
    """Mean and median errors (as shares of what was measured) of `count` designs, by the model and corrected."""

    name: str
    count: int
    mean: float
    median: float
    corrected: float
    corrected_median: float

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)


def samples(folder: Path, machine: Machine) -> list[Sample]:
    """Every comparable measurement under `folder` (benchmarks/results)."""
    found = []
    for pattern in _BENCHES:
        results = json.loads(_newest(folder, pattern).read_text(encoding="utf-8"))
        products = [r for r in measured(results, machine) if r.case.family != LADDER]
        found += [Sample(r.operator, r.case.family, r.name, r.shape, r.row) for r in products]
        found += [_nest(n) for n in measured_nests(results, machine)]
    probe = json.loads(_newest(folder, _PROBES).read_text(encoding="utf-8"))
    return found + [_nest(n) for n in _probed(probe["results"], machine)]


def _newest(folder: Path, pattern: str) -> Path:
    return sorted(folder.glob(pattern))[-1]


def _nest(n: MeasuredNest) -> Sample:
    return Sample(n.operator, n.family, n.name, _SAME.sub("", n.name), n.row)


def _probed(results: Sequence[dict[str, Any]], machine: Machine) -> Iterator[MeasuredNest]:
    """Results of the probe, which name their cases by their fields, the default design of each first.

    A case whose default was another one is of kernels that are made no more.
    """
    made: dict[str, bool] = {}
    for result in results:
        case, name = _case(result["kind"], result["case"])
        design = design_of(result["design"])
        if made.setdefault(name, is_made(case, design, machine)):
            yield measured_case(FITTED, name, case, design, result["us"] * 1e-6, machine)


def _case(kind: str, fields: dict[str, Any]) -> tuple[Case, str]:
    known = {k: _frozen(v) for k, v in fields.items()}
    match kind:
        case "rows":
            rows = RowCase(**known)
            return row_case(rows), rows.name
        case "decode":
            single = DecodeCase(**known)
            return decode_case(single), single.name
        case _:
            prompts = AttentionCase(**known)
            return attention_case(prompts), prompts.name


def _frozen(value: Any) -> Any:
    return tuple(_frozen(v) for v in value) if isinstance(value, list) else value


@cache
def _corrected(rows: tuple[Row, ...], groups: tuple[Hashable, ...], operators: tuple[str, ...]) -> list[float]:
    return cross_validated(rows, groups, _FOLDS, kinds=operators)


def by_operator(found: Sequence[Sample]) -> list[Line]:
    """Errors of each operator that a bench times."""
    return _by(found, [s.operator if s.family != FITTED else "" for s in found])


def by_family(found: Sequence[Sample]) -> list[Line]:
    """Errors of each family of cases, of all of them, of those of rows whose shapes no rate was fitted to, and of
    the probe."""
    probed = {s.group for s in found if s.family == FITTED}
    unseen = ["of them, shapes that no rate of rows was fitted to" if s.group not in probed else "" for s in found]
    judged = ["all of the benches" if s.family != FITTED else "" for s in found]
    fitted = [s.family if s.family == FITTED else "" for s in found]
    own = ["" if s.family == FITTED else s.family for s in found]
    return [e for names in (own, judged, unseen, fitted) for e in _by(found, names)]


def _by(found: Sequence[Sample], names: Sequence[str]) -> list[Line]:
    """Errors of the samples of each name, those without one left out; the correction learns from all."""
    corrected = _corrected(*(tuple(of) for of in zip(*((s.row, s.group, s.operator) for s in found), strict=True)))
    lines = []
    for name in dict.fromkeys(n for n in names if n):
        those = [(s.row, c) for s, c, n in zip(found, corrected, names, strict=True) if n == name]
        alone = [abs(predicted / seconds - 1) for (_, predicted, seconds), _ in those]
        learned = [abs(c / seconds - 1) for (_, _, seconds), c in those]
        lines.append(Line(name, len(those), fmean(alone), median(alone), fmean(learned), median(learned)))
    return lines


__all__ = ["FITTED", "Line", "Sample", "by_family", "by_operator", "samples"]
