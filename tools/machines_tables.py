"""The tables of docs/machines.md, row by row."""

from __future__ import annotations

import csv
import json
import statistics
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from machines_figures import MODEL, grown, looped, products

from tilewright.bench.gpu_accuracy import Line, Sample, by_family, by_operator, samples
from tilewright.bench.gpu_fit import held_out
from tilewright.bench.gpu_model import LADDER, Measured, errors, measured
from tilewright.machines.machine import Machine
from tilewright.report.canvas import duration
from tilewright.simulate.chips.plan import stops_at
from tilewright.simulate.kinds import simulate
from tilewright.simulate.simulation import Job
from tilewright.simulate.systolic.applications import APPLICATIONS, awaited, by_causes, by_counters, by_machine
from tilewright.simulate.systolic.tpu import bound

ROOT = Path(__file__).parents[1]
RUNS = ROOT / "tests" / "simulate" / "systolic" / "scalesim.csv"
MEASURED = ROOT / "benchmarks" / "results" / "gpu-h200-2026-11-24.json"
ROOFLINES = {"MLP0": 13.60, "MLP1": 11.42, "LSTM0": 4.35, "LSTM1": 6.53, "CNN0": 91.75, "CNN1": 91.75}
TPU = Machine.named("tpu-v1")


def matmul() -> Iterator[str]:
    """One matmul on every machine."""
    for each in products():
        rest = max(each.parts[1:], key=lambda p: p.seconds)
        cycles = "-" if each.cycles is None else f"{each.cycles:,.0f}"
        most = f"{rest.name}, {rest.seconds / each.seconds:.0%}"
        yield f"| {each.machine} | {duration(each.seconds)} | {cycles} | {each.utilisation or 0:.1%} | {most} |"


def ways() -> Iterator[str]:
    """Kernel by kernel, a kernel a layer, and looped, on 8 and 16 sockets."""
    for chips in (8, 16):
        for way in looped(chips).layers:
            rate, share = float(way.number("tokens per second")), float(way.number("of peak bandwidth"))
            yield f"| {chips} | {way.program} | {way.number('kernel calls')} | {rate:,.0f} | {share:.1%} |"


def stops() -> Iterator[str]:
    """Where each way to share a model stops to gain."""
    for batch in (1, 64, 4096):
        for plan, splits in grown(batch).splits.items():
            end = stops_at(splits)
            there = next(s for s in splits if s.chips == end)
            shares = {"GEMM": there.gemm, "attention": there.attention, "all-reduce or sends": there.all_reduce,
                      "calls": there.sync}  # fmt: skip
            most = max(shares, key=lambda name: shares[name])
            taken = f"{most}, {shares[most] / there.seconds:.0%}"
            fits = "yes" if there.fits else "no"
            yield f"| {batch} | {plan} | {end} | {there.tokens_per_second:,.0f} | {taken} | {fits} |"


def exact() -> Iterator[str]:
    """Errors against what others published."""
    rows = list(csv.DictReader(RUNS.open(encoding="utf-8")))
    off = [abs(_cycles(r) - int(r["total_cycles"])) for r in rows]
    roofs = [abs(bound(TPU, a.rows) / 1e12 / ROOFLINES[a.name] - 1) for a in APPLICATIONS]
    single = simulate(Job("matmul", TPU, {"M": 2048, "N": 512, "K": 512}, options={"values": "no"})).cycles or 0
    fetched = 9 * 65536 / 34e9 * 1e6
    yield f"| SCALE-Sim 3.0.0: cycles, stalls included | {len(rows)} | {max(off)} cycles |"
    yield f"| TPU v1: rooflines of six applications | {len(roofs)} | {max(roofs):.2%} |"
    yield f"| TPU v1: 2048 x 512 x 512 with double-buffered weights | 1 | {abs(single - 8958):.0f} cycles |"
    yield f"| TPU v1: 600 x 600 weights, 18 us in the paper | 1 | {abs(fetched / 18 - 1):.1%} |"


def _cycles(row: dict[str, str]) -> int:
    machine = Machine.named(f"systolic:{row['R']}x{row['C']}:{row['df']}")
    limited = {"scratchpads": f"64x{row['bw']}"} if row["mode"] == "USER" else {}
    sizes = {d: int(row[d]) for d in ("M", "N", "K")}
    return int(simulate(Job("matmul", machine, sizes, options={"values": "no", **limited})).cycles or 0)


def applications() -> Iterator[str]:
    """The six applications of the TPU v1."""
    ways, off = (by_counters, by_causes, by_machine), []
    for a in APPLICATIONS:
        made = [way(TPU, a) / 1e12 for way in ways]
        shown = " | ".join(f"{x:.1f} ({x / a.tops - 1:+.0%})" for x in made)
        waits = f"{awaited(TPU, a):.0%}, {a.weights:.0%}"
        yield f"| {a.name} | {a.tops} | {ROOFLINES[a.name]} | {shown} | {waits} | {a.error:.1%} |"
        off.append((*(abs(x / a.tops - 1) for x in made), a.error))
    for what, rows in (("mean error without CNN1", off[:-1]), ("mean error of all six", off)):
        *means, google = (f"{statistics.fmean(column):.1%}" for column in zip(*rows, strict=True))
        yield f"| {what} | | | {' | '.join(means)} | | {google} |"


def products_measured() -> Iterator[str]:
    """The GPU model beside measured products."""
    machine = Machine.named("h200")
    rows = measured(json.loads(MEASURED.read_text(encoding="utf-8")), machine)
    judged: list[Measured] = [r for r in rows if r.case.family != LADDER]
    unseen = held_out(judged, machine)
    for e in errors(rows):
        held = f"{unseen[e.family][1]:.1%}" if e.family in unseen else "-"
        learned = "-" if e.family == LADDER else f"{e.corrected.mean_error:.1%}"
        yield f"| {e.family} | {e.model.count} | {e.model.mean_error:.1%} | {held} | {learned} |"


def by_operator_measured() -> Iterator[str]:
    """Errors of the GPU model on everything that was measured, by operator."""
    yield from _errors(by_operator(_samples()))


def by_family_measured() -> Iterator[str]:
    """The same by family of cases."""
    yield from _errors(by_family(_samples()))


@cache
def _samples() -> list[Sample]:
    return samples(ROOT / "benchmarks" / "results", Machine.named("h200"))


def _errors(lines: list[Line]) -> Iterator[str]:
    for e in lines:
        yield f"| {e.name} | {e.count} | {e.mean:.1%} | {e.corrected:.1%} |"


def grounds() -> Iterator[str]:
    """What is published of the SN40L, and what is assumed."""
    told = looped(8)
    yield from (f"- Published: {text}" for text in told.facts)
    yield from (f"- Assumed: {text}" for text in told.assumptions)


__all__ = [
    "MODEL",
    "applications",
    "by_family_measured",
    "by_operator_measured",
    "exact",
    "grounds",
    "matmul",
    "products_measured",
    "stops",
    "ways",
]
