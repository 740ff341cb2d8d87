"""The tables of the README, one set for each machine, made from results files and floors and from nothing else."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import geometric_mean
from typing import Any

from tilewright.bench.floors import Floor, missed, read_floors
from tilewright.bench.record import newest
from tilewright.bench.result import Result
from tilewright.errors import ArgumentError

KINDS = {
    "cpu": "cpu", "design": "design", "gemm": "gpu", "rows": "rows-gpu", "llm": "llm", "decode": "decode-gpu",
    "serve": "serve",
}  # fmt: skip
"""The benches that have tables, each between markers of its own, and the kind of their results files."""


def markers(kind: str) -> tuple[str, str]:
    """The lines of the README between which the tables of a bench go."""
    return f"<!-- bench:{kind} -->", f"<!-- /bench:{kind} -->"


Metrics = dict[str, float]
Column = tuple[str, Callable[[Metrics], str]]


def _number(key: str, places: int = 0) -> Callable[[Metrics], str]:
    return lambda m: f"{m[key]:,.{places}f}"


def _percent(key: str) -> Callable[[Metrics], str]:
    return lambda m: f"{100 * m[key]:.0f}%"


def _share(key: str) -> Callable[[Metrics], str]:
    """A share with its interval; blank where no stream was timed."""

    def show(m: Metrics) -> str:
        interval = [f"{100 * m[end]:.0f}" for end in (f"{key}_low", f"{key}_high") if end in m]
        return (f"{100 * m[key]:.0f}%" + (f" [{', '.join(interval)}]" if interval else "")) if key in m else ""

    return show


def _ratio(m: Metrics) -> str:
    return f"{m['ratio']:.2f}x [{m['ratio_low']:.2f}, {m['ratio_high']:.2f}]"


def _frozen(m: Metrics) -> str:
    return ", ".join(f"{m[f'frozen_{what}']:.0f}" for what in ("compiles", "searches", "writes"))


def _pinned(m: Metrics) -> str:
    same = "one hash" if m["pinned_hashes"] == 1 else f"{m['pinned_hashes']:.0f} hashes"
    return f"{same}, {m['pinned_swaps']:.0f} swaps"


def _part_of(peer: str) -> Callable[[Metrics], str]:
    """Our time as a share of a peer's, with its interval; blank where that peer was not timed."""

    def show(m: Metrics) -> str:
        key = f"of_{peer}"
        return f"{m[key]:.2f}x [{m[f'{key}_low']:.2f}, {m[f'{key}_high']:.2f}]" if key in m else ""

    return show


def _maybe(key: str, places: int) -> Callable[[Metrics], str]:
    return lambda m: f"{m[key]:,.{places}f}" if key in m else ""


def _ladder_share(m: Metrics) -> str:
    return f"{100 * m['ratio']:.1f}% [{100 * m['ratio_low']:.1f}, {100 * m['ratio_high']:.1f}]"


def _added(key: str) -> Callable[[Metrics], str]:
    return lambda m: f"+{m[key]:,.0f} ns"


@dataclass(frozen=True)
class Table:
    """One table: the families whose results it holds, its columns after `case` and `threads`, and its bench."""

    title: str
    families: tuple[str, ...]
    columns: tuple[Column, ...]
    geomean: bool = False
    kind: str = "cpu"


_RATES = (("GFLOP/s", _number("gflops")), ("torch", _number("peer_gflops")), ("ratio to torch", _ratio))
_READS = (
    ("GB/s", _number("gbs", 1)),
    ("torch", _number("peer_gbs", 1)),
    ("of reading", _share("bandwidth")),
    ("ratio to torch", _ratio),
)
_COPIES = (
    ("GB/s", _number("gbs", 1)),
    ("torch", _number("peer_gbs", 1)),
    ("of copying", _share("of_copy")),
    ("of the best copy", _share("bandwidth")),
    ("ratio to torch", _ratio),
)
_GPU_TIMES: tuple[Column, ...] = (("us", _number("us", 1)), ("cuBLAS", _number("peer_us", 1)))
_GPU_RATIOS: tuple[Column, ...] = (
    ("default design", lambda m: f"{m['default_ratio']:.2f}x"),
    ("ratio to cuBLAS", _ratio),
)
_GPU_RATES = (*_GPU_TIMES, ("TFLOP/s", _number("tflops")), *_GPU_RATIOS)
_GPU_READS = (*_GPU_TIMES, ("of reading", _percent("bandwidth")), *_GPU_RATIOS)
_GPU_ROWS: tuple[Column, ...] = (
    ("us", _number("us", 1)),
    ("torch.compile", _number("peer_us", 1)),
    ("eager", _number("eager_us", 1)),
    ("of copying", _percent("of_copy")),
    ("default design", lambda m: f"{m['default_ratio']:.2f}x"),
    ("ratio to torch.compile", _ratio),
)
_GPU_FEW_ROWS: tuple[Column, ...] = (
    ("us", _number("us", 2)),
    ("torch.compile", _number("peer_us", 2)),
    ("eager", _number("eager_us", 2)),
    ("empty kernel", _number("empty_us", 2)),
    ("a lone call", _number("alone_us", 1)),
    ("torch.compile's", _number("alone_peer_us", 1)),
    ("empty kernel's", _number("empty_alone_us", 1)),
    ("ratio to torch.compile", _ratio),
)
_ATTENTION: tuple[Column, ...] = (
    ("us", _number("us", 1)),
    ("cuDNN", _number("peer_us", 1)),
    ("TFLOP/s", _number("tflops")),
    ("of cuDNN", _number("peer_tflops")),
    ("default design", lambda m: f"{m['default_ratio']:.2f}x"),
    ("ratio to cuDNN", _ratio),
)
_DECODES: tuple[Column, ...] = (
    ("us", _number("us", 1)),
    ("torch", _number("peer_us", 1)),
    ("GB/s", _number("gbs")),
    ("of reading", _percent("bandwidth")),
    ("default design", lambda m: f"{m['default_ratio']:.2f}x"),
    ("ratio to torch", _ratio),
)
TABLES = (
    Table("Matrix products, f32", ("matmul_f32",), _RATES, geomean=True),
    Table("Matrix products, bf16", ("matmul_bf16",), _RATES, geomean=True),
    Table("Decode: one row by a weight matrix, bf16", ("decode_linear",), _READS, geomean=True),
    Table("Row operators, 4096 x 4096, against torch eager", ("rows", "rows_best"), _COPIES),
    Table(
        "Llama 3.2 1B's shape, random bf16 weights, against transformers",
        ("decoder",),
        (
            ("tokens/s", _number("tokens_per_s", 1)),
            ("transformers", _number("peer_tokens_per_s", 1)),
            ("of reading", _share("bandwidth")),
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
    Table(
        "Compiling a kernel that no cache knows",
        ("compile",),
        (("CPU ms", _number("cpu_ms", 1)), ("wall ms", _number("wall_ms", 1))),
    ),
    Table("Waiting", ("startup",), (("seconds", _number("s", 2)),)),
    Table("Designed matrix products, f32", ("design_f32",), _RATES, geomean=True, kind="design"),
    Table("Designed matrix products, bf16", ("design_bf16", "design_amx"), _RATES, geomean=True, kind="design"),
    Table(
        "Designed row operators, against torch.compile",
        ("design_rows",),
        (("GB/s", _number("gbs", 1)), ("torch.compile", _number("peer_gbs", 1)), ("ratio to torch.compile", _ratio)),
        geomean=True,
        kind="design",
    ),
    Table(
        "The cost model, beside every design of a grid, measured",
        ("design_model",),
        (
            ("designs", _number("designs")),
            ("its first choice, of the best", _percent("of_best")),
            ("best of its first 16", _percent("of_best_16")),
            ("rank correlation", _number("spearman", 2)),
            ("corrected", _number("spearman_corrected", 2)),
            ("median error", _percent("error")),
            ("corrected", _percent("error_corrected")),
        ),
        kind="design",
    ),
    Table(
        "Search beside random designs, median of the seeds",
        ("design_race",),
        (
            ("trials of each", _number("trials")),
            ("seeds", _number("seeds")),
            ("search, us", _number("us", 1)),
            ("random, us", _number("random_us", 1)),
            ("faster by", lambda m: f"{m['over_random']:.2f}x"),
            ("best after, s", _number("seconds_to_best", 1)),
        ),
        kind="design",
    ),
    Table(
        "Two searches of each key, and the same key again",
        ("design_agree",),
        (
            ("same design", lambda m: "yes" if m["same"] else "no"),
            ("us", _number("us", 1)),
            ("over the default", lambda m: f"{m['over_default']:.2f}x"),
            ("trials again", _number("trials_again")),
            ("compiles again", _number("compiles_again")),
            ("again, ms", _number("again_ms", 1)),
        ),
        kind="design",
    ),
    Table(
        "Ragged batches of a served trace, against the same padded to their longest",
        ("serve_padding",),
        (
            ("us", _number("us")),
            ("padded", _number("peer_us")),
            ("padding", _percent("waste")),
            ("tiles skipped", lambda m: f"{m['skipped_tiles']:,.0f} of {m['tiles']:,.0f}"),
            ("ratio to padded", _ratio),
        ),
        kind="serve",
    ),
    Table(
        "The lengths of a served trace, compiling included, against torch.compile",
        ("serve_dynamic",),
        (
            ("seconds", _number("s", 1)),
            ("dynamic=True", _number("dynamic_s", 1)),
            ("dynamic=False", _number("static_s", 1)),
            ("of the better", lambda m: f"{m['of_peer']:.2f}x"),
            ("compiles", _number("compiles")),
            ("of dynamic=True", _number("dynamic_compiles")),
            ("of dynamic=False", _number("static_compiles")),
        ),
        kind="serve",
    ),
    Table(
        "A served trace, learned kernels against the generic ones: microseconds a token",
        ("serve_learn",),
        (
            ("us a token", _number("us", 2)),
            ("generic", _number("peer_us", 2)),
            ("swaps", _number("swaps")),
            ("p99 while learning, ms", _number("learning_p99_ms", 1)),
            ("generic p99", _number("generic_p99_ms", 1)),
            ("largest stall, ms", _number("stall_ms", 1)),
            ("frozen: compiles, searches, writes", _frozen),
            ("outputs under pinned", _pinned),
            ("ratio to generic", _ratio),
        ),
        kind="serve",
    ),
    Table("Row operators, bf16", ("gpu_rows",), _GPU_ROWS, geomean=True, kind="rows"),
    Table("Gradients of row operators, bf16", ("gpu_rows_backward",), _GPU_ROWS, geomean=True, kind="rows"),
    Table(
        "One token, or sixteen: what a call adds to a CUDA graph, and a call alone between two events",
        ("gpu_rows_few",),
        _GPU_FEW_ROWS,
        geomean=True,
        kind="rows",
    ),
    Table("Very long rows", ("gpu_rows_long",), _GPU_ROWS, geomean=True, kind="rows"),
    Table("Other types, odd lengths, unaligned rows", ("gpu_rows_odd",), _GPU_ROWS, geomean=True, kind="rows"),
    Table(
        "Decode on a GPU, random bf16 weights: milliseconds a step, and our time as a share of transformers'",
        ("llm_decode",),
        (
            ("ms", lambda m: f"{m['us'] / 1e3:.2f}"),
            ("tokens/s", _number("tokens_per_s")),
            ("weights, GB/s", _number("gbs")),
            ("eager", _maybe("eager_ms", 2)),
            ("compiled", _maybe("compiled_ms", 2)),
            ("of eager", _part_of("eager")),
            ("of compiled", _part_of("compiled")),
        ),
        kind="llm",
    ),
    Table(
        "Prefill on a GPU: milliseconds, and our time as a share of transformers'",
        ("llm_prefill",),
        (("ms", _number("ms", 2)), ("eager", _number("eager_ms", 2)), ("of eager", _part_of("eager"))),
        kind="llm",
    ),
    Table("Waiting for the first token on a GPU", ("llm_start",), (("seconds", _number("s", 2)),), kind="llm"),
    Table(
        "What a call from Python adds to the bare entry of its kernel",
        ("serve_dispatch",),
        (
            ("bare entry, ns", _number("bare_ns")),
            ("bound launch", _added("bound_ns")),
            ("`ops.linear(out=)`", _added("known_ns")),
            ("`ops.linear`, a new result", _added("new_ns")),
        ),
        kind="serve",
    ),
    Table("Products of many rows, bf16", ("gemm_large",), _GPU_RATES, geomean=True, kind="gemm"),
    Table("Products of few rows, bf16", ("gemm_small",), _GPU_READS, geomean=True, kind="gemm"),
    Table(
        "Products with epilogues, against cuBLAS followed by torch.compile's kernel",
        ("gemm_fused",),
        _GPU_RATES,
        geomean=True,
        kind="gemm",
    ),
    Table("Attention of whole prompts, against cuDNN", ("attention_prefill",), _ATTENTION, geomean=True, kind="gemm"),
    Table(
        "Ragged prompts, and few queries, against cuDNN", ("attention_prompts",), _ATTENTION, geomean=True, kind="gemm"
    ),
    Table("Products of odd sizes, rows unaligned", ("gemm_odd",), _GPU_RATES, geomean=True, kind="gemm"),
    Table(
        "Host time of a call from Python",
        ("gemm_launch",),
        (("us", _number("us", 1)), ("torch.mm", _number("peer_us", 1)), ("an empty op", _number("empty_us", 1))),
        kind="gemm",
    ),
    Table(
        "Attention of one query a request, against the better of cuDNN and FlashAttention in torch",
        ("attention_decode",),
        _DECODES,
        geomean=True,
        kind="decode",
    ),
    Table(
        "The same out of pages, against torch's on rows one after the other",
        ("attention_paged",),
        _DECODES,
        geomean=True,
        kind="decode",
    ),
    Table(
        "Requests of different lengths, against torch's on rows as long as the longest",
        ("attention_ragged",),
        _DECODES,
        geomean=True,
        kind="decode",
    ),
    Table(
        "Keys and values of 8 bits, against torch's of 16",
        ("attention_fp8",),
        _DECODES,
        geomean=True,
        kind="decode",
    ),
    Table(
        "The ladder of 4096 x 4096 x 4096, one move a rung",
        ("gemm_ladder",),
        (
            ("us", _number("us", 1)),
            ("GFLOP/s", _number("gflops")),
            ("faster by", lambda m: f"{m['step']:.2f}x" if "step" in m else ""),
            ("of torch", _ladder_share),
        ),
        kind="gemm",
    ),
)


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
        for threads in sorted({r.threads for r in mine}) if _ratio in dict(table.columns).values() else ():
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
    absent = _unique(f.family for f in floors if not any(f.holds_for(r) for r in results))
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
