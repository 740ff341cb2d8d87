"""The README's tables of what runs on a GPU: products, rows, attention, and whole models."""

from __future__ import annotations

from collections.abc import Callable

from tilewright.bench.table_form import Column, Metrics, Table, maybe, number, percent, ratio


def _part_of(peer: str) -> Callable[[Metrics], str]:
    """Our time as a share of a peer's, with its interval; blank where that peer was not timed."""

    def show(m: Metrics) -> str:
        key = f"of_{peer}"
        return f"{m[key]:.2f}x [{m[f'{key}_low']:.2f}, {m[f'{key}_high']:.2f}]" if key in m else ""

    return show


def _ladder_share(m: Metrics) -> str:
    return f"{100 * m['ratio']:.1f}% [{100 * m['ratio_low']:.1f}, {100 * m['ratio_high']:.1f}]"


_GPU_TIMES: tuple[Column, ...] = (("us", number("us", 1)), ("cuBLAS", number("peer_us", 1)))
_GPU_RATIOS: tuple[Column, ...] = (
    ("default design", lambda m: f"{m['default_ratio']:.2f}x"),
    ("ratio to cuBLAS", ratio),
)
_GPU_RATES = (*_GPU_TIMES, ("TFLOP/s", number("tflops")), *_GPU_RATIOS)
_GPU_READS = (*_GPU_TIMES, ("of reading", percent("bandwidth")), *_GPU_RATIOS)
_SEARCHED: tuple[Column, ...] = (
    ("us", number("us", 1)),
    ("trials", number("trials")),
    ("of the default", lambda m: f"{m['of_default']:.2f}x"),
    ("of the best known", percent("of_best")),
)
_GPU_ROWS: tuple[Column, ...] = (
    ("us", number("us", 1)),
    ("torch.compile", number("peer_us", 1)),
    ("eager", number("eager_us", 1)),
    ("of copying", percent("of_copy")),
    ("default design", lambda m: f"{m['default_ratio']:.2f}x"),
    ("ratio to torch.compile", ratio),
)
_GPU_FEW_ROWS: tuple[Column, ...] = (
    ("us", number("us", 2)),
    ("torch.compile", number("peer_us", 2)),
    ("eager", number("eager_us", 2)),
    ("empty kernel", number("empty_us", 2)),
    ("on the GPU", maybe("kernel_us", 2)),
    ("torch.compile's", maybe("kernel_peer_us", 2)),
    ("a lone call", number("alone_us", 1)),
    ("torch.compile's", number("alone_peer_us", 1)),
    ("empty kernel's", number("empty_alone_us", 1)),
    ("ratio to torch.compile", ratio),
)
_ATTENTION: tuple[Column, ...] = (
    ("us", number("us", 1)),
    ("cuDNN", number("peer_us", 1)),
    ("TFLOP/s", number("tflops")),
    ("of cuDNN", number("peer_tflops")),
    ("default design", lambda m: f"{m['default_ratio']:.2f}x"),
    ("ratio to cuDNN", ratio),
)
_PACKED: tuple[Column, ...] = (
    ("us", number("us", 1)),
    ("torch, packed", number("packed_us", 1)),
    ("cuDNN, padded", number("padded_us", 1)),
    ("TFLOP/s", number("tflops")),
    ("GB/s", number("gbs")),
    ("ratio to the better", ratio),
)
_DECODES: tuple[Column, ...] = (
    ("us", number("us", 1)),
    ("torch", number("peer_us", 1)),
    ("GB/s", number("gbs")),
    ("of reading", percent("bandwidth")),
    ("default design", lambda m: f"{m['default_ratio']:.2f}x"),
    ("ratio to torch", ratio),
)
_PAGES: tuple[Column, ...] = (
    *_DECODES[:-1],
    ("rows over pages", lambda m: f"{m['of_rows']:.2f}x" if "of_rows" in m else ""),
    _DECODES[-1],
)
GPU_TABLES = (
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
            ("tokens/s", number("tokens_per_s")),
            ("weights, GB/s", number("gbs")),
            ("eager", maybe("eager_ms", 2)),
            ("compiled", maybe("compiled_ms", 2)),
            ("of eager", _part_of("eager")),
            ("of compiled", _part_of("compiled")),
        ),
        kind="llm",
    ),
    Table(
        "Prefill on a GPU: milliseconds, and our time as a share of transformers'",
        ("llm_prefill",),
        (("ms", number("ms", 2)), ("eager", number("eager_ms", 2)), ("of eager", _part_of("eager"))),
        kind="llm",
    ),
    Table("Waiting for the first token on a GPU", ("llm_start",), (("seconds", number("s", 2)),), kind="llm"),
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
        (("us", number("us", 1)), ("torch.mm", number("peer_us", 1)), ("an empty op", number("empty_us", 1))),
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
            ("us", number("us", 1)),
            ("GFLOP/s", number("gflops")),
            ("faster by", lambda m: f"{m['step']:.2f}x" if "step" in m else ""),
            ("of torch", _ladder_share),
        ),
        kind="gemm",
    ),
)


__all__ = ["GPU_TABLES"]
