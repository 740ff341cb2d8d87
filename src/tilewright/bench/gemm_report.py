"""The report of a ladder on a GPU, from a results file: a page, its pictures, and a table in Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tilewright.bench.gemm_ladder import CASE, FAMILY
from tilewright.bench.record import newest
from tilewright.bench.result import Result
from tilewright.design.design import Design
from tilewright.design.trial import Outcome
from tilewright.errors import ArgumentError
from tilewright.machines.machine import Machine
from tilewright.report.canvas import duration, percent
from tilewright.report.evidence import Evidence, write_whole
from tilewright.report.ladder import Rung
from tilewright.report.report import write_report
from tilewright.report.topic import Topic
from tilewright.report.words import choice_words

_STOPPED = "the last of its moves"


def write_ladders(root: Path) -> list[Path]:
    """Write docs/reports/hgemm/MACHINE for every GPU with a measured ladder; the pages written.

    ArgumentError where no results file under `root` holds one.
    """
    found = [
        (path, record, results)
        for path, record in newest(root / "benchmarks" / "results", "gpu")
        if (results := [r for r in record["results"] if r.family == FAMILY])
    ]
    if not found:
        raise ArgumentError("no results file holds a ladder; run `tilewright bench gemm --only gemm_ladder --save`")
    return [_write(root, path, record, results) for path, record, results in found]


def _write(root: Path, path: Path, record: dict[str, Any], results: Sequence[Result]) -> Path:
    evidence = evidence_of(record, results)
    folder = root / "docs" / "reports" / "hgemm" / evidence.topic.machine.partition(" ")[0]
    page = write_report(evidence, folder)
    source = path.relative_to(root).as_posix()
    write_whole(folder / "README.md", markdown(evidence, results, source, record["date"][:10]).encode())
    return page


def evidence_of(record: dict[str, Any], results: Sequence[Result]) -> Evidence:
    """The ladder as evidence of a report; ArgumentError if its last rung failed."""
    machine = Machine.from_dict(record["machine"])
    last = results[-1]
    if last.error:
        raise ArgumentError(f"the last rung of the ladder failed ({last.error}); measure it again")
    seconds, peer = last.metrics["us"] * 1e-6, last.metrics["peer_us"] * 1e-6
    sizes = (("M", CASE.m), ("N", CASE.n), ("K", CASE.k))
    topic = Topic(
        "matmul", sizes, CASE.dtype, machine.name, 1, CASE.flops, CASE.bytes, machine.peak(CASE.dtype),
        machine.memory.read or machine.memory.bandwidth, "torch", peer,
    )  # fmt: skip
    return Evidence(
        topic, _design(last), seconds, last.metrics.get("default_us", last.metrics["us"]) * 1e-6,
        last.metrics["noise"], _STOPPED, (), (), tuple(map(_rung, results)), "ladder", 0,
        "tilewright bench gemm --only gemm_ladder --save",
    )  # fmt: skip


def _design(result: Result) -> Design:
    chosen = result.raw.get("design", {})
    return Design.of({name: tuple(c) if isinstance(c, list) else c for name, c in chosen.items()})


def _rung(result: Result) -> Rung:
    title = result.name.partition(" ")[2]
    if result.error:
        return Rung(Design(), title, 0.0, Outcome("crash", reason=result.error), "", "")
    samples = tuple(ns * 1e-9 for ns in result.raw["samples_ns"]["tilewright"])
    outcome = Outcome("ok", result.metrics["us"] * 1e-6, samples, result.metrics["noise"])
    terms = tuple((str(n), float(v), str(u)) for n, v, u in result.raw["terms"])
    said = {name: result.raw[name] for name in ("predicted", "bound", "reason")}
    return Rung(design=_design(result), mutation=title, outcome=outcome, terms=terms, **said)


def markdown(evidence: Evidence, results: Sequence[Result], source: str, date: str) -> str:
    """The ladder as a table, each rung with the decisions that its move set."""
    topic = evidence.topic
    lines = [
        f"# The ladder of {topic.title}",
        "",
        f"{topic.machine}, {date}. From `{source}`, by `tilewright bench ladder`; measured by `{evidence.command}`. "
        "Every rung is one design of the same tile program, one move after the rung before it, verified against "
        "float64 before and after it was timed; the share of torch is the median of paired rounds, L2 flushed.",
        "",
        "| | move | time | GFLOP/s | of torch | step | what the cost model says |",
        "|---|---|---:|---:|---:|---:|---|",
        *(_line(n, r, rung) for n, (r, rung) in enumerate(zip(results, evidence.ladder, strict=True))),
        "",
        *_decisions(evidence.ladder),
        "![The ladder](ladder.png)",
        "",
        "![Roofline](roofline.png)",
        "",
    ]
    return "\n".join(lines)


def _line(number: int, result: Result, rung: Rung) -> str:
    if rung.seconds is None:
        return f"| {number} | {rung.mutation} | failed | | | | |"
    m = result.metrics
    step = f"{m['step']:.2f}x" if "step" in m else ""
    why = rung.reason or f"{rung.bound} bounds"
    cells = [number, rung.mutation, duration(rung.seconds), f"{m['gflops']:,.0f}", percent(m["ratio"]), step, why]
    return f"| {' | '.join(map(str, cells))} |"


def _decisions(ladder: Sequence[Rung]) -> list[str]:
    """What each move set, as decisions of the design."""
    lines, before = [], dict[str, Any]()
    for number, rung in enumerate(ladder):
        now = dict(rung.design.decisions)
        changed = [f"`{n}={choice_words(c)}`" for n, c in now.items() if before.get(n) != c]
        dropped = [f"`{n}` dropped" for n in before if n not in now]
        lines.append(f"{number}. {', '.join([*changed, *dropped]) or 'failed'}")
        before = now or before
    return ["Decisions, by rung:", "", *lines, ""]


__all__ = ["evidence_of", "markdown", "write_ladders"]
