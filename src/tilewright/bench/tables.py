"""Which tables the README has: the families whose results each holds, and how its columns show their metrics."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

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


def _times(key: str) -> Callable[[Metrics], str]:
    """How many times as fast, with its interval; blank where that was not measured."""
    return lambda m: f"{m[key]:.2f}x [{m[f'{key}_low']:.2f}, {m[f'{key}_high']:.2f}]" if key in m else ""


def _maybe(key: str, places: int) -> Callable[[Metrics], str]:
    return lambda m: f"{m[key]:,.{places}f}" if key in m else ""


def _until_near(m: Metrics) -> str:
    """Trials of the search and of random designs until within 2% of the best of all; older results do not say."""
    keys = ("trials_to_best", "random_trials_to_best")
    return " / ".join(f"{m[k]:.0f}" for k in keys) if all(k in m for k in keys) else "-"


def _ladder_share(m: Metrics) -> str:
    return f"{100 * m['ratio']:.1f}% [{100 * m['ratio_low']:.1f}, {100 * m['ratio_high']:.1f}]"


def _made_anew(m: Metrics) -> str:
    """Beside the bare entry after a result was made; results before that was told have it beside the bare entry."""
    beside = f" beside {m['making_ns']:,.0f} ns for `empty`" if "making_ns" in m else ""
    return f"{m['new_ns']:+,.0f} ns{beside}"


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

    @property
    def compares(self) -> bool:
        """Whether it has a column of ratios with their intervals."""
        return any(show is _ratio for _, show in self.columns)


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
_SEARCHED: tuple[Column, ...] = (
    ("us", _number("us", 1)),
    ("trials", _number("trials")),
    ("of the default", lambda m: f"{m['of_default']:.2f}x"),
    ("of the best known", _percent("of_best")),
)
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
    ("on the GPU", _maybe("kernel_us", 2)),
    ("torch.compile's", _maybe("kernel_peer_us", 2)),
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
_PACKED: tuple[Column, ...] = (
    ("us", _number("us", 1)),
    ("torch, packed", _number("packed_us", 1)),
    ("cuDNN, padded", _number("padded_us", 1)),
    ("TFLOP/s", _number("tflops")),
    ("GB/s", _number("gbs")),
    ("ratio to the better", _ratio),
)
_DECODES: tuple[Column, ...] = (
    ("us", _number("us", 1)),
    ("torch", _number("peer_us", 1)),
    ("GB/s", _number("gbs")),
    ("of reading", _percent("bandwidth")),
    ("default design", lambda m: f"{m['default_ratio']:.2f}x"),
    ("ratio to torch", _ratio),
)
_PAGES: tuple[Column, ...] = (
    *_DECODES[:-1],
    ("rows over pages", lambda m: f"{m['of_rows']:.2f}x" if "of_rows" in m else ""),
    _DECODES[-1],
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
            ("two measurements of one another", _maybe("repeat", 2)),
            ("so that the truth has", _maybe("ceiling", 2)),
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
            ("faster by", lambda m: f"{m['over_random']:.3f}x"),
            ("after 16 trials", lambda m: f"{m['over_random_early']:.3f}x" if "over_random_early" in m else ""),
            ("trials until within 2%, of both", _until_near),
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
            ("a kernel for each class, seconds", _maybe("classes_s", 1)),
            ("its compiles", _maybe("classes_compiles", 0)),
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
            ("a kernel for each class", _maybe("classes_us", 2)),
            ("ratio to those", _times("of_classes")),
        ),
        kind="serve",
    ),
    Table("Row operators, bf16", ("gpu_rows",), _GPU_ROWS, geomean=True, kind="rows"),
    Table("Gradients of row operators, bf16", ("gpu_rows_backward",), _GPU_ROWS, geomean=True, kind="rows"),
    Table(
        "One token, or sixteen: what a call adds to a CUDA graph, its time on the GPU, a lone call between two events",
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
            ("`ops.linear`, a new result", _made_anew),
        ),
        kind="serve",
    ),
    Table("Products of many rows, bf16", ("gemm_large",), _GPU_RATES, geomean=True, kind="gemm"),
    Table("Products of few rows, bf16", ("gemm_small",), _GPU_READS, geomean=True, kind="gemm"),
    Table("Products of few rows, each a link of a chain", ("gemm_chain",), _GPU_READS, geomean=True, kind="gemm"),
    Table("Searches of 32 trials beside the best designs known", ("gemm_search",), _SEARCHED, kind="gemm"),
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
    Table(
        "Packed sequences, against FlashAttention in torch by cumulative lengths and cuDNN on a padded batch",
        ("attention_packed",),
        _PACKED,
        geomean=True,
        kind="gemm",
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
        _PAGES,
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


__all__ = ["TABLES", "Column", "Metrics", "Table"]
