"""The tables of the README, one set for each machine, made from results files and floors and from nothing else."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import geometric_mean
from typing import Any

from tilewright.bench.floors import Floor, missed, read_floors
from tilewright.bench.record import newest
from tilewright.bench.result import Result
from tilewright.bench.table_form import Table
from tilewright.bench.tables import TABLES
from tilewright.errors import ArgumentError

KINDS = {
    "cpu": "cpu", "design": "design", "gemm": "gpu", "rows": "rows-gpu", "llm": "llm", "decode": "decode-gpu",
    "serve": "serve",
}  # fmt: skip
"""The benches that have tables, each between markers of its own, and the kind of their results files."""


def markers(kind: str) -> tuple[str, str]:
    """The lines of the README between which the tables of a bench go."""
    return f"<!-- bench:{kind} -->", f"<!-- /bench:{kind} -->"


def render(record: dict[str, Any], source: str, floors: Sequence[Floor], kind: str = "cpu") -> str:
    """A bench's tables of `record` as Markdown, headed by where and how they were measured, and what falls short."""
    results: list[Result] = record["results"]
    parts = [_heading(record), _provenance(record, source)]
    tables = [table for table in TABLES if table.kind == kind]
    floors = [f for f in floors if any(f.family in table.families for table in tables)]
    filled = [(t, mine) for t in tables if (mine := [r for r in results if r.family in t.families])]
    whole = [f"**{table.title}**\n\n{_markdown(table, mine)}" for table, mine in filled]
    parts += [*_summary(filled), _folded("Every case", "\n\n".join(whole)), _shortfall(results, floors)]
    return "\n\n".join(parts)


def _folded(title: str, text: str) -> str:
    """Text that a reader opens."""
    return f"<details>\n<summary>{title}</summary>\n\n{text}\n\n</details>"


def _summary(filled: Sequence[tuple[Table, Sequence[Result]]]) -> list[str]:
    """A line for each table of ratios and each thread count: how many cases, their geometric mean, and the extremes."""
    lines = [
        "| ratio to the peer | threads | cases | geometric mean | lowest | highest |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for table, mine in filled:
        for threads in sorted({r.threads for r in mine}) if table.compares else ():
            ratios = [r.metrics["ratio"] for r in mine if r.threads == threads and not r.error]
            if ratios:
                cells = (f"{geometric_mean(ratios):.2f}x", f"{min(ratios):.2f}x", f"{max(ratios):.2f}x")
                lines.append(_line([table.title, str(threads), str(len(ratios)), *cells]))
    return ["\n".join(lines)] if len(lines) > 2 else []


def _heading(record: dict[str, Any]) -> str:
    """`### AMD EPYC (amd-26-2), 2 cores, 2026-01-31, commit 0123456789ab`."""
    machine = record["machine"]
    commits = _unique(_short(run["commit"]) for run in record["runs"])
    if machine.get("kind") == "nvidia":
        where = f"{machine['name']}, {machine['architecture']}, {machine['cores']} SMs"
        return f"### {where}, {record['date'][:10]}, commit {' and '.join(commits)}"
    cores = "1 core" if machine["cores"] == 1 else f"{machine['cores']} cores"
    where = f"{record['system']['processor']} ({machine['architecture']}), {cores}"
    return f"### {where}, {record['date'][:10]}, commit {' and '.join(commits)}"


def _short(commit: str | None) -> str:
    """The first 12 digits, and whether files differed from it."""
    digits, dirty, _ = (commit or "unknown").partition("-dirty")
    return digits[:12] + dirty


def _provenance(record: dict[str, Any], source: str) -> str:
    runs = record["runs"]
    versions = {name: _unique(run["versions"].get(name, "") for run in runs) for name in ("torch", "transformers")}
    against = ", ".join(f"{name} {' and '.join(found)}" for name, found in versions.items() if found)
    commands = ", ".join(f"`{command}`" for command in _unique(run["command"] for run in runs))
    if record["machine"].get("kind") == "nvidia":
        return (
            f"Against {against}. Medians of single calls from a cold L2 cache; ratios are medians of paired, "
            "interleaved runs, above 1 where Tilewright is faster, in brackets their 95% interval; shares of reading "
            f"are of the bandwidth measured on the card. Raw samples: `{source}`; to measure again: {commands}."
        )
    return (
        f"Against {against}. Medians; ratios are medians of paired, interleaved runs, above 1 where Tilewright is "
        "faster, and shares of bandwidth are paired with streams through memory in the same rounds; in brackets their "
        f"95% interval (75% for the largest products). Raw samples: `{source}`; to measure again: {commands}."
    )


def _unique(texts: Iterable[str]) -> list[str]:
    return [text for text in dict.fromkeys(texts) if text]


def _shortfall(results: Sequence[Result], floors: Sequence[Floor]) -> str:
    """Every floor that the results miss, and the families with a floor that were not measured."""
    lines = missed(results, floors)
    measured = {r.family for r in results}
    absent = _unique(f.family for f in floors if f.family not in measured)
    parts = [_folded(f"Missed floors: {len(lines)}", "\n".join(f"- {line}" for line in lines))] if lines else []
    if not lines:
        parts.append("Missed floors: none.")
    return "\n\n".join([*parts, *([f"Not measured: {', '.join(absent)}."] if absent else [])])


def _markdown(table: Table, results: Sequence[Result]) -> str:
    titles = ["case", "threads", *(title for title, _ in table.columns)]
    lines = ["| " + " | ".join(titles) + " |", "|---|" + "---:|" * (len(titles) - 1)]
    lines += [_line([r.name, str(r.threads), *_cells(table, r)]) for r in results]
    if table.geomean:
        for threads in sorted({r.threads for r in results}):
            ratios = [r.metrics["ratio"] for r in results if r.threads == threads and not r.error]
            if ratios:
                blanks = [""] * (len(table.columns) - 1)
                lines.append(_line(["**geometric mean**", str(threads), *blanks, f"**{geometric_mean(ratios):.2f}x**"]))
    return "\n".join(lines)


def _cells(table: Table, result: Result) -> list[str]:
    if result.error:
        return ["failed", *[""] * (len(table.columns) - 1)]
    return [show(result.metrics) for _, show in table.columns]


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def regenerate(root: Path, check: bool) -> bool:
    """Put the tables of each machine's newest results under `root` into its README; whether it already held them.

    With `check` nothing is written. ArgumentError where there are no results, or no markers to write between; a bench
    that was never saved leaves its place empty.
    """
    readme = root / "README.md"
    text = wanted = readme.read_text(encoding="utf-8")
    for kind, files in KINDS.items():
        if kind == "cpu" or any((root / "benchmarks" / "results").glob(f"{files}-*.json")):
            wanted = _placed(wanted, readme, kind, _tables(root, kind))
    if wanted != text and not check:
        unfinished = readme.with_suffix(".unfinished")
        unfinished.write_text(wanted, encoding="utf-8")
        unfinished.replace(readme)
    return wanted == text


def _tables(root: Path, kind: str) -> str:
    """The tables of a bench, of every machine."""
    floors = read_floors(root / "benchmarks" / "floors.toml")
    found = newest(root / "benchmarks" / "results", KINDS[kind])
    return "\n\n".join(render(record, path.relative_to(root).as_posix(), floors, kind) for path, record in found)


def _placed(text: str, readme: Path, kind: str, tables: str) -> str:
    """`text` with the tables between the markers of their bench."""
    begin, end = markers(kind)
    pattern = re.compile(re.escape(begin) + ".*?" + re.escape(end), re.DOTALL)
    if len(pattern.findall(text)) != 1:
        raise ArgumentError(f"{readme}: needs exactly one pair of {begin} and {end}; the tables go between them")
    return pattern.sub(lambda _: f"{begin}\n{tables}\n{end}", text)
