"""The README's tables of what runs on a CPU: kernels, designs, and a served trace."""

from __future__ import annotations

from collections.abc import Callable

from tilewright.bench.table_form import Metrics, Table, maybe, number, percent, ratio, share, times


def _frozen(m: Metrics) -> str:
    return ", ".join(f"{m[f'frozen_{what}']:.0f}" for what in ("compiles", "searches", "writes"))


def _pinned(m: Metrics) -> str:
    same = "one hash" if m["pinned_hashes"] == 1 else f"{m['pinned_hashes']:.0f} hashes"
    return f"{same}, {m['pinned_swaps']:.0f} swaps"


def _until_near(m: Metrics) -> str:
    """Trials of the search and of random designs until within 2% of the best of all; older results do not say."""
    keys = ("trials_to_best", "random_trials_to_best")
    return " / ".join(f"{m[k]:.0f}" for k in keys) if all(k in m for k in keys) else "-"


def _made_anew(m: Metrics) -> str:
    """Beside the bare entry after a result was made; results before that was told have it beside the bare entry."""
    beside = f" beside {m['making_ns']:,.0f} ns for `empty`" if "making_ns" in m else ""
    return f"{m['new_ns']:+,.0f} ns{beside}"


def _added(key: str) -> Callable[[Metrics], str]:
    return lambda m: f"+{m[key]:,.0f} ns"


_RATES = (("GFLOP/s", number("gflops")), ("torch", number("peer_gflops")), ("ratio to torch", ratio))
_READS = (
    ("GB/s", number("gbs", 1)),
    ("torch", number("peer_gbs", 1)),
    ("of reading", share("bandwidth")),
    ("ratio to torch", ratio),
)
_COPIES = (
    ("GB/s", number("gbs", 1)),
    ("torch", number("peer_gbs", 1)),
    ("of copying", share("of_copy")),
    ("of the best copy", share("bandwidth")),
    ("ratio to torch", ratio),
)
HOST_TABLES = (
    Table("Matrix products, f32", ("matmul_f32",), _RATES, geomean=True),
    Table("Matrix products, bf16", ("matmul_bf16",), _RATES, geomean=True),
    Table("Decode: one row by a weight matrix, bf16", ("decode_linear",), _READS, geomean=True),
    Table("Row operators, 4096 x 4096, against torch eager", ("rows", "rows_best"), _COPIES),
    Table(
        "Llama 3.2 1B's shape, random bf16 weights, against transformers",
        ("decoder",),
        (
            ("tokens/s", number("tokens_per_s", 1)),
            ("transformers", number("peer_tokens_per_s", 1)),
            ("of reading", share("bandwidth")),
            ("ratio to transformers", ratio),
        ),
    ),
    Table(
        "Peak memory of that model",
        ("memory",),
        (
            ("MB", number("peak_mb")),
            ("weights and KV cache, MB", number("need_mb")),
            ("of what it needs", percent("peak_over_need")),
        ),
    ),
    Table(
        "Compiling a kernel that no cache knows",
        ("compile",),
        (("CPU ms", number("cpu_ms", 1)), ("wall ms", number("wall_ms", 1))),
    ),
    Table("Waiting", ("startup",), (("seconds", number("s", 2)),)),
    Table("Designed matrix products, f32", ("design_f32",), _RATES, geomean=True, kind="design"),
    Table("Designed matrix products, bf16", ("design_bf16", "design_amx"), _RATES, geomean=True, kind="design"),
    Table(
        "Designed row operators, against torch.compile",
        ("design_rows",),
        (("GB/s", number("gbs", 1)), ("torch.compile", number("peer_gbs", 1)), ("ratio to torch.compile", ratio)),
        geomean=True,
        kind="design",
    ),
    Table(
        "The cost model, beside every design of a grid, measured",
        ("design_model",),
        (
            ("designs", number("designs")),
            ("its first choice, of the best", percent("of_best")),
            ("best of its first 16", percent("of_best_16")),
            ("rank correlation", number("spearman", 2)),
            ("corrected", number("spearman_corrected", 2)),
            ("two measurements of one another", maybe("repeat", 2)),
            ("so that the truth has", maybe("ceiling", 2)),
            ("median error", percent("error")),
            ("corrected", percent("error_corrected")),
        ),
        kind="design",
    ),
    Table(
        "Search beside random designs, median of the seeds",
        ("design_race",),
        (
            ("trials of each", number("trials")),
            ("seeds", number("seeds")),
            ("search, us", number("us", 1)),
            ("random, us", number("random_us", 1)),
            ("faster by", lambda m: f"{m['over_random']:.3f}x"),
            ("after 16 trials", lambda m: f"{m['over_random_early']:.3f}x" if "over_random_early" in m else ""),
            ("trials until within 2%, of both", _until_near),
            ("best after, s", number("seconds_to_best", 1)),
        ),
        kind="design",
    ),
    Table(
        "Two searches of each key, and the same key again",
        ("design_agree",),
        (
            ("same design", lambda m: "yes" if m["same"] else "no"),
            ("us", number("us", 1)),
            ("over the default", lambda m: f"{m['over_default']:.2f}x"),
            ("trials again", number("trials_again")),
            ("compiles again", number("compiles_again")),
            ("again, ms", number("again_ms", 1)),
        ),
        kind="design",
    ),
    Table(
        "Ragged batches of a served trace, against the same padded to their longest",
        ("serve_padding",),
        (
            ("us", number("us")),
            ("padded", number("peer_us")),
            ("padding", percent("waste")),
            ("tiles skipped", lambda m: f"{m['skipped_tiles']:,.0f} of {m['tiles']:,.0f}"),
            ("ratio to padded", ratio),
        ),
        kind="serve",
    ),
    Table(
        "The lengths of a served trace, compiling included, against torch.compile",
        ("serve_dynamic",),
        (
            ("seconds", number("s", 1)),
            ("dynamic=True", number("dynamic_s", 1)),
            ("dynamic=False", number("static_s", 1)),
            ("of the better", lambda m: f"{m['of_peer']:.2f}x"),
            ("compiles", number("compiles")),
            ("of dynamic=True", number("dynamic_compiles")),
            ("of dynamic=False", number("static_compiles")),
            ("a kernel for each class, seconds", maybe("classes_s", 1)),
            ("its compiles", maybe("classes_compiles", 0)),
        ),
        kind="serve",
    ),
    Table(
        "A served trace, learned kernels against the generic ones: microseconds a token",
        ("serve_learn",),
        (
            ("us a token", number("us", 2)),
            ("generic", number("peer_us", 2)),
            ("swaps", number("swaps")),
            ("p99 while learning, ms", number("learning_p99_ms", 1)),
            ("generic p99", number("generic_p99_ms", 1)),
            ("largest stall, ms", number("stall_ms", 1)),
            ("frozen: compiles, searches, writes", _frozen),
            ("outputs under pinned", _pinned),
            ("ratio to generic", ratio),
            ("in the first pass", times("first_ratio")),
            ("a kernel for each class", maybe("classes_us", 2)),
            ("ratio to those", times("of_classes")),
        ),
        kind="serve",
    ),
    Table(
        "What a call from Python adds to the bare entry of its kernel",
        ("serve_dispatch",),
        (
            ("bare entry, ns", number("bare_ns")),
            ("bound launch", _added("bound_ns")),
            ("`ops.linear(out=)`", _added("known_ns")),
            ("`ops.linear`, a new result", _made_anew),
        ),
        kind="serve",
    ),
)


__all__ = ["HOST_TABLES"]
