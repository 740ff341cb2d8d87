"""The tables of the README and of a page for each bench, made from results files and floors and from nothing else."""

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


WHOLE = 6
"""A table without a ratio, of at most so many results, stands in the README as it is."""


def page(kind: str) -> str:
    """Where under the root every case of a bench is."""
    return f"docs/benchmarks/{kind}.md"


def render(record: dict[str, Any], floors: Sequence[Floor], kind: str = "cpu") -> str:
    """What the README says of a bench's `record`: a line for each table of ratios, small tables whole, misses."""
    filled, floors = _of_bench(record, floors, kind)
    small = [_titled(t, mine) for t, mine in filled if not t.compares and len(mine) <= WHOLE]
    missing = missed(record["results"], floors)
    short = f"{len(missing)} floors are missed" if missing else "No floor is missed"
    link = f"[{page(kind)}]({page(kind)})"
    told = f"{_against(record)} {short}. Every case, with its commits, how to measure it again, and its floor: {link}."
    return "\n\n".join([f"### {_heading(record)}", told, *_summary(filled), *small, *_absent(record, floors)])


def every_case(record: dict[str, Any], source: str, floors: Sequence[Floor], kind: str = "cpu") -> str:
    """A bench's tables of `record` as Markdown, headed by where and how they were measured, and what falls short."""
    filled, floors = _of_bench(record, floors, kind)
    whole = [_titled(table, mine) for table, mine in filled]
    parts = [f"## {_heading(record)}", _provenance(record, source), *_summary(filled), *whole]
    return "\n\n".join([*parts, _shortfall(record, floors), *_absent(record, floors)])


Filled = list[tuple[Table, list[Result]]]


def _of_bench(record: dict[str, Any], floors: Sequence[Floor], kind: str) -> tuple[Filled, list[Floor]]:
    """The tables of a bench that have results in `record`, each with them, and the floors that are the bench's."""
    tables = [table for table in TABLES if table.kind == kind]
    mine = [f for f in floors if any(f.family in table.families for table in tables)]
    filled = [(t, [r for r in record["results"] if r.family in t.families]) for t in tables]
    return [(t, results) for t, results in filled if results], mine


def _titled(table: Table, results: Sequence[Result]) -> str:
    return f"**{table.title}**\n\n{_markdown(table, results)}"


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
    """`AMD EPYC (amd-26-2), 2 cores, 2026-01-31`."""
    machine = record["machine"]
    if machine.get("kind") == "nvidia":
        return f"{machine['name']}, {machine['architecture']}, {machine['cores']} SMs, {record['date'][:10]}"
    cores = "1 core" if machine["cores"] == 1 else f"{machine['cores']} cores"
    return f"{record['system']['processor']} ({machine['architecture']}), {cores}, {record['date'][:10]}"


def _short(commit: str | None) -> str:
    """The first 12 digits, and whether files differed from it."""
    digits, dirty, _ = (commit or "unknown").partition("-dirty")
    return digits[:12] + dirty


def _against(record: dict[str, Any]) -> str:
    """The versions of the peers."""
    runs = record["runs"]
    versions = {name: _unique(run["versions"].get(name, "") for run in runs) for name in ("torch", "transformers")}
    return "Against " + ", ".join(f"{name} {' and '.join(found)}" for name, found in versions.items() if found) + "."


def _provenance(record: dict[str, Any], source: str) -> str:
    """How the numbers of `record` came about, at which commits, and how to get them again."""
    commits = " and ".join(_unique(_short(run["commit"]) for run in record["runs"]))
    commands = ", ".join(f"`{command}`" for command in _unique(run["command"] for run in record["runs"]))
    again = f"Raw samples: `{source}`, of commits {commits}; to measure again: {commands}."
    if record["machine"].get("kind") == "nvidia":
        return (
            f"{_against(record)} Medians of single calls from a cold L2 cache; ratios are medians of paired, "
            "interleaved runs, above 1 where Tilewright is faster, in brackets their 95% interval; shares of reading "
            f"are of the bandwidth measured on the card. {again}"
        )
    return (
        f"{_against(record)} Medians; ratios are medians of paired, interleaved runs, above 1 where Tilewright is "
        "faster, and shares of bandwidth are paired with streams through memory in the same rounds; in brackets their "
        f"95% interval (75% for the largest products). {again}"
    )


def _unique(texts: Iterable[str]) -> list[str]:
    return [text for text in dict.fromkeys(texts) if text]


def _shortfall(record: dict[str, Any], floors: Sequence[Floor]) -> str:
    """Every floor that the results miss."""
    lines = missed(record["results"], floors)
    if not lines:
        return "Missed floors: none."
    return "\n".join([f"**Missed floors: {len(lines)}**", "", *(f"- {line}" for line in lines)])


def _absent(record: dict[str, Any], floors: Sequence[Floor]) -> list[str]:
    """The families with a floor that were not measured."""
    measured = {r.family for r in record["results"]}
    absent = _unique(f.family for f in floors if f.family not in measured)
    return [f"Not measured: {', '.join(absent)}."] if absent else []


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
    """Put the tables of each machine's newest results under `root` into its README and a page for each bench.

    True where all of them already held those results. With `check` nothing is written. ArgumentError where there are no
    results, or no markers to write between; a bench that was never saved leaves its place empty and has no page.
    """
    readme = root / "README.md"
    text = readme.read_text(encoding="utf-8")
    wanted = {readme: text}
    floors = read_floors(root / "benchmarks" / "floors.toml")
    for kind, files in KINDS.items():
        if kind == "cpu" or any((root / "benchmarks" / "results").glob(f"{files}-*.json")):
            found = newest(root / "benchmarks" / "results", files)
            told = "\n\n".join(render(record, floors, kind) for _, record in found)
            wanted[readme] = _placed(wanted[readme], readme, kind, told)
            whole = [every_case(record, path.relative_to(root).as_posix(), floors, kind) for path, record in found]
            wanted[root / page(kind)] = "\n\n".join([_PAGE.format(kind=kind), *whole]) + "\n"
    stale = {path: new for path, new in wanted.items() if _held(path) != new}
    for path, new in stale.items() if not check else ():
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_suffix(".unfinished")
        unfinished.write_text(new, encoding="utf-8")
        unfinished.replace(path)
    return not stale


_PAGE = """# Every case of `tilewright bench {kind}`

Made by `tilewright bench table` from the newest results of each machine; the README has a line for each table."""


def _held(path: Path) -> str | None:
    """The text of a file; None where there is none."""
    return path.read_text(encoding="utf-8") if path.exists() else None


def _placed(text: str, readme: Path, kind: str, tables: str) -> str:
    """`text` with the tables between the markers of their bench."""
    begin, end = markers(kind)
    pattern = re.compile(re.escape(begin) + ".*?" + re.escape(end), re.DOTALL)
    if len(pattern.findall(text)) != 1:
        raise ArgumentError(f"{readme}: needs exactly one pair of {begin} and {end}; the tables go between them")
    return pattern.sub(lambda _: f"{begin}\n{tables}\n{end}", text)
