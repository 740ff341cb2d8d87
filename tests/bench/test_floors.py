"""Floors: what counts as missed, and what a broken file says."""

from __future__ import annotations

from pathlib import Path

import pytest

from tilewright.bench import attention_decode, attention_jobs, design_cases, gemm_jobs, llm_cases, rows_cases, serve
from tilewright.bench.cases import FAMILIES
from tilewright.bench.floors import Floor, missed, read_floors
from tilewright.bench.result import Result
from tilewright.errors import ArgumentError

COMMITTED = Path(__file__).parents[2] / "benchmarks" / "floors.toml"


def result(name: str, threads: int = 1, family: str = "f", **metrics: float) -> Result:
    return Result(family, name, threads, metrics)


def test_each_result_below_the_bound_is_named():
    floor = Floor("f", "ratio", min=0.75)
    results = [result("good", ratio=0.75), result("bad", threads=2, ratio=0.5), result("other", family="g", ratio=0.1)]
    assert missed(results, [floor]) == ["bad, threads 2: ratio is 0.5, the floor is at least 0.75"]


def test_geometric_mean_is_taken_at_each_thread_count():
    floor = Floor("f", "ratio", min=1.0, over="geomean")
    results = [
        result("a", 1, ratio=0.5),
        result("b", 1, ratio=2.0),
        result("a", 2, ratio=0.5),
        result("b", 2, ratio=1.9),
    ]
    (line,) = missed(results, [floor])
    assert "threads 2" in line and "0.975" in line


def test_a_mean_may_be_of_zeros():
    floor = Floor("f", "same", min=0.95, over="mean")
    assert missed([result("a", same=1.0), result("b", same=1.0)], [floor]) == []
    (line,) = missed([result("a", same=0.0), result("b", same=1.0)], [floor])
    assert line == "f mean, threads 1: same is 0.5, the floor is at least 0.95"


def test_upper_bounds_and_names():
    floor = Floor("startup", "s", max=0.3, name="import")
    results = [result("import tilewright", family="startup", s=0.31), result("first token", family="startup", s=9.0)]
    assert missed(results, [floor]) == ["import tilewright, threads 1: s is 0.31, the floor is at most 0.3"]


def test_a_missing_metric_and_a_failed_case_are_misses():
    floor = Floor("f", "ratio", min=0.5)
    assert len(missed([result("no metric", us=1.0)], [floor])) == 1
    assert len(missed([result("no metric", us=1.0)], [Floor("f", "ratio", min=0.5, over="geomean")])) == 1
    failed = Result("f", "broken", 1, error="VerificationError: far off")
    assert missed([failed], [floor]) == ["broken, threads 1: VerificationError: far off"]


def test_committed_floors_are_those_of_families_that_exist():
    floors = read_floors(COMMITTED)
    others = (design_cases, gemm_jobs, rows_cases, llm_cases, attention_decode, attention_jobs, serve)
    known = (FAMILIES, *(m.FAMILIES for m in others))
    assert {f.family for f in floors} <= {name for families in known for name in families}
    assert {f.family for f in floors} >= set(design_cases.FAMILIES)
    bounds = {(f.family, f.metric, f.over, f.name): f.max if f.min == float("-inf") else f.min for f in floors}
    assert bounds["matmul_f32", "ratio", "geomean", ""] == 0.90
    assert bounds["attention_prefill", "ratio", "geomean", "d64"] == 1.05
    assert bounds["attention_prefill", "tflops", "each", "d128 B2 S8192 full"] == 640
    assert bounds["decoder", "bandwidth", "each", "decode"] == 0.85
    assert bounds["serve_learn", "ratio", "each", "a model of 2 layers"] == 1.25
    assert bounds["compile", "cpu_ms", "each", ""] == bounds["compile", "wall_ms", "each", ""] == 50
    assert bounds["memory", "peak_over_need", "each", ""] == 1.10
    assert bounds["design_f32", "ratio", "geomean", ""] == 1.05 and bounds["design_f32", "ratio", "each", ""] == 0.95
    assert bounds["design_amx", "ratio", "geomean", ""] == bounds["design_rows", "ratio", "each", ""] == 1.10
    assert (bounds["design_model", "of_best", "each", ""], bounds["design_model", "of_best_16", "each", ""]) == (
        0.9,
        0.98,
    )
    assert bounds["design_model", "spearman", "each", ""] == 0.75
    assert bounds["design_model", "spearman_corrected", "each", ""] == 0.9
    assert (bounds["design_agree", "same", "mean", ""], bounds["design_agree", "again_ms", "each", ""]) == (0.95, 100)


@pytest.mark.parametrize(
    "text, says",
    [
        ('[[floor]]\nfamily = "f"\nmetric = "ratio"', "min or max"),
        ('[[floor]]\nfamily = "f"\nmetric = "ratio"\nmin = 1\nover = "median"', "each, geomean or mean"),
        ('[[floor]]\nfamily = "f"\nmin = 1', "metric"),
        ("[[floor", "floors.toml"),
        ("floor = 3", "floors.toml"),
    ],
)
def test_a_broken_file_is_a_typed_error(tmp_path, text, says):
    path = tmp_path / "floors.toml"
    path.write_text(text)
    with pytest.raises(ArgumentError, match=says):
        read_floors(path)
