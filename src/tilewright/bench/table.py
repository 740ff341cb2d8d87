"""The tables of the README, made from a results file and from nothing else."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tilewright.bench.record import load, newest
from tilewright.bench.result import Result
from tilewright.errors import ArgumentError

BEGIN, END = "<!-- bench:cpu -->", "<!-- /bench:cpu -->"

Metrics = dict[str, float]
Column = tuple[str, Callable[[Metrics], str]]


def _number(key: str, places: int = 0) -> Callable[[Metrics], str]:
    return lambda m: f"{m[key]:,.{places}f}"


def _percent(key: str) -> Callable[[Metrics], str]:
    return lambda m: f"{100 * m[key]:.0f}%"


def _ratio(m: Metrics) -> str:
    return f"{m['ratio']:.2f}x [{m['ratio_low']:.2f}, {m['ratio_high']:.2f}]"


@dataclass(frozen=True)
class Table:
    """One table: the families whose results it holds, and its columns after `case` and `threads`."""

    title: str
    families: tuple[str, ...]
    columns: tuple[Column, ...]
    geomean: bool = False


_RATES = (("GFLOP/s", _number("gflops")), ("torch", _number("peer_gflops")), ("ratio to torch", _ratio))
_STREAMS = (
    ("GB/s", _number("gbs", 1)),
    ("torch", _number("peer_gbs", 1)),
    ("of bandwidth", _percent("bandwidth")),
    ("ratio to torch", _ratio),
)
TABLES = (
    Table("Matrix products, f32", ("matmul_f32",), _RATES, geomean=True),
    Table("Matrix products, bf16", ("matmul_bf16",), _RATES, geomean=True),
    Table("Decode: one row by a weight matrix, bf16", ("decode_linear",), _STREAMS, geomean=True),
    Table("Row operators, 4096 x 4096, against torch eager", ("rows", "rows_best"), _STREAMS),
    Table(
        "Llama 3.2 1B's shape, random bf16 weights, against transformers",
        ("decoder",),
        (
            ("tokens/s", _number("tokens_per_s", 1)),
            ("transformers", _number("peer_tokens_per_s", 1)),
            ("of read bandwidth", lambda m: f"{100 * m['bandwidth']:.0f}%" if "bandwidth" in m else ""),
            ("ratio to transformers", _ratio),
        ),
    ),
    Table(
        "Peak memory of that model",
        ("memory",),
        (
            ("MB", _number("peak_mb")),
            ("weights and KV cache, MB", _number("need_mb")),
            ("of what it needs", _percent("peak_over_need")),
        ),
    ),
    Table("Waiting", ("startup",), (("seconds", _number("s", 2)),)),
)


def render(record: dict[str, Any], source: str) -> str:
    """All tables of `record` as Markdown, headed by where and with what they were measured."""
    results: list[Result] = record["results"]
    parts = [_heading(record, source)]
    for table in TABLES:
        mine = [r for r in results if r.family in table.families]
        if mine:
            parts.append(f"**{table.title}**\n\n{_markdown(table, mine)}")
    return "\n\n".join(parts)


def _heading(record: dict[str, Any], source: str) -> str:
    versions, machine = record["versions"], record["machine"]
    against = ", ".join(f"{name} {versions[name]}" for name in ("torch", "transformers") if name in versions)
    commit = str(record["commit"] or "unknown")[:12]
    return (
        f"Measured on {record['system']['processor']}, {machine['cores']} cores, on {record['date'][:10]} at commit "
        f"`{commit}`, against {against}. Medians; ratios are medians of paired, interleaved runs with their 95% "
        f"interval, above 1 where Tilewright is faster. Raw samples: `{source}`; to measure again: "
        f"`{record['command']}`."
    )


def _markdown(table: Table, results: Sequence[Result]) -> str:
    titles = ["case", "threads", *(title for title, _ in table.columns)]
    lines = ["| " + " | ".join(titles) + " |", "|---|" + "---:|" * (len(titles) - 1)]
    lines += [_line([r.name, str(r.threads), *_cells(table, r)]) for r in results]
    if table.geomean:
        for threads in sorted({r.threads for r in results}):
            ratios = [r.metrics["ratio"] for r in results if r.threads == threads and not r.error]
            if ratios:
                mean = math.exp(math.fsum(map(math.log, ratios)) / len(ratios))
                blanks = [""] * (len(table.columns) - 1)
                lines.append(_line(["**geometric mean**", str(threads), *blanks, f"**{mean:.2f}x**"]))
    return "\n".join(lines)


def _cells(table: Table, result: Result) -> list[str]:
    if result.error:
        return ["failed", *[""] * (len(table.columns) - 1)]
    return [show(result.metrics) for _, show in table.columns]


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def regenerate(root: Path, check: bool) -> bool:
    """Put the tables of the newest results under `root` into its README; whether the README already held them.

    With `check` nothing is written. ArgumentError where there are no results, or no markers to write between.
    """
    readme = root / "README.md"
    source = newest(root / "benchmarks" / "results")
    tables = render(load(source), source.relative_to(root).as_posix())
    text = readme.read_text(encoding="utf-8")
    pattern = re.compile(re.escape(BEGIN) + ".*?" + re.escape(END), re.DOTALL)
    if len(pattern.findall(text)) != 1:
        raise ArgumentError(f"{readme}: needs exactly one pair of {BEGIN} and {END}; the tables go between them")
    wanted = pattern.sub(lambda _: f"{BEGIN}\n{tables}\n{END}", text)
    if wanted != text and not check:
        unfinished = readme.with_suffix(".unfinished")
        unfinished.write_text(wanted, encoding="utf-8")
        unfinished.replace(readme)
    return wanted == text
