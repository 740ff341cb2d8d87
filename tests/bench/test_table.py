"""The README's tables and the pages of every case: made from the newest results, and found out when stale."""

from __future__ import annotations

import json

import pytest

from tilewright.bench import record, table
from tilewright.bench.result import Result
from tilewright.errors import ArgumentError
from tilewright.machines.machine import Machine


def rates(**more: float) -> dict[str, float]:
    return {"gflops": 1234.6, "peer_gflops": 1000, "gbs": 20.04, "peer_gbs": 10,
            "bandwidth": 0.876, "bandwidth_low": 0.85, "bandwidth_high": 0.9,
            "ratio": 2.0, "ratio_low": 1.9, "ratio_high": 2.1, **more}  # fmt: skip


RESULTS = [
    Result("matmul_f32", "matmul f32 8x8x8", 1, rates()),
    Result("matmul_f32", "linear f32 1x8x8", 1, rates(ratio=0.5)),
    Result("matmul_f32", "linear f32 2x8x8", 1, error="VerificationError: far off"),
    Result("rows", "softmax f32 8x8", 2, rates(of_copy=1.2, of_copy_low=1.1, of_copy_high=1.3)),
    Result("decode_linear", "linear bf16 1x8x8", 2, rates()),
    Result("compile", "compile matmul f32 1x8x8", 1, {"cpu_ms": 20.04, "wall_ms": 21.0}),
    Result("decoder", "prefill", 2, {**rates(tokens_per_s=500.0, peer_tokens_per_s=250.0)}),
    Result("memory", "peak resident memory", 2, {"peak_mb": 2600, "need_mb": 2500, "peak_over_need": 1.04}),
    Result("startup", "import tilewright", 2, {"s": 0.123}),
]

BEGIN, END = table.markers("cpu")

FLOORS = """
[[floor]]
family = "matmul_f32"
metric = "ratio"
min = 0.75

[[floor]]
family = "rows_best"
metric = "ratio"
min = 1.0
"""


@pytest.fixture
def root(tmp_path):
    described = record.describe(Machine.named("x86-avx2"), RESULTS, ["tilewright", "bench", "cpu", "--save"], tmp_path)
    record.save(described, tmp_path / "benchmarks" / "results")
    (tmp_path / "benchmarks" / "floors.toml").write_text(FLOORS)
    (tmp_path / "README.md").write_text(f"# Title\n\n{BEGIN}\n{END}\n\n## After\n")
    return tmp_path


def page(root, kind="cpu"):
    return (root / table.page(kind)).read_text()


def test_written_once_then_fresh(root):
    assert table.regenerate(root, check=True) is False
    assert BEGIN + "\n" + END in (root / "README.md").read_text()  # check writes nothing
    assert table.regenerate(root, check=False) is False
    assert table.regenerate(root, check=True) is True
    text = (root / "README.md").read_text()
    assert text.startswith("# Title\n") and text.endswith("\n\n## After\n")
    assert [p.name for p in root.rglob("*.unfinished")] == []


def test_the_readme_has_a_line_for_each_table_and_the_small_ones_whole(root):
    table.regenerate(root, check=False)
    text = (root / "README.md").read_text()
    assert "| Matrix products, f32 | 1 | 2 | 1.00x | 0.50x | 2.00x |" in text
    assert "| compile matmul f32 1x8x8 | 1 | 20.0 | 21.0 |" in text
    assert "matmul f32 8x8x8" not in text
    assert "2 floors are missed." in text and "[docs/benchmarks/cpu.md](docs/benchmarks/cpu.md)" in text
    assert "Not measured: rows_best." in text.splitlines()


@pytest.mark.parametrize("lost", ["docs/benchmarks/cpu.md", "README.md"])
def test_either_file_makes_it_stale(root, lost):
    table.regenerate(root, check=False)
    (root / lost).write_text((root / lost).read_text().replace("1.00x", "9.00x"))
    assert table.regenerate(root, check=True) is False
    assert "9.00x" in (root / lost).read_text()
    table.regenerate(root, check=False)
    assert "9.00x" not in (root / lost).read_text()
    (root / "docs/benchmarks/cpu.md").unlink()
    assert table.regenerate(root, check=True) is False


def test_figures_are_those_of_the_results(root):
    table.regenerate(root, check=False)
    text = page(root)
    assert "| matmul f32 8x8x8 | 1 | 1,235 | 1,000 | 2.00x [1.90, 2.10] |" in text
    assert "| linear f32 2x8x8 | 1 | failed |" in text
    assert "| **geometric mean** | 1 |  |  | **1.00x** |" in text
    assert "| softmax f32 8x8 | 2 | 20.0 | 10.0 | 120% [110, 130] | 88% [85, 90] | 2.00x [1.90, 2.10] |" in text
    assert "| linear bf16 1x8x8 | 2 | 20.0 | 10.0 | 88% [85, 90] | 2.00x [1.90, 2.10] |" in text
    assert "| compile matmul f32 1x8x8 | 1 | 20.0 | 21.0 |" in text
    assert "| peak resident memory | 2 | 2,600 | 2,500 | 104% |" in text
    assert "benchmarks/results/cpu-generic-4-cores-" in text
    assert "`tilewright bench cpu --save`" in text


def test_a_newer_file_makes_the_readme_stale(root):
    table.regenerate(root, check=False)
    (path,) = (root / "benchmarks" / "results").iterdir()
    newer = json.loads(path.read_text())
    newer["date"] = "2999-01-01T00:00:00+00:00"
    newer["results"][0]["metrics"]["gflops"] = 4321
    (path.parent / "cpu-newer.json").write_text(json.dumps(newer))
    assert table.regenerate(root, check=True) is False


def test_what_falls_short_is_said(root):
    table.regenerate(root, check=False)
    _, _, after = page(root).partition("**Missed floors: ")
    lines = after.splitlines()
    listed = [line for line in lines if line.startswith("- ")]
    assert lines[0] == f"{len(listed)}**"
    assert "- linear f32 1x8x8, threads 1: ratio is 0.5, the floor is at least 0.75" in listed
    assert "- linear f32 2x8x8, threads 1: VerificationError: far off" in listed
    assert "Not measured: rows_best." in lines


def test_each_machine_has_its_heading_and_its_tables(root):
    (path,) = (root / "benchmarks" / "results").iterdir()
    other = json.loads(path.read_text())
    other["machine"] |= {"architecture": "intel-6-207", "cores": 2}
    other["system"]["processor"] = "INTEL(R) XEON(R)"
    other["runs"][0]["commit"] = "0123456789abcdef-dirty"
    (path.parent / "cpu-intel.json").write_text(json.dumps(other))
    table.regenerate(root, check=False)
    readme = root / "README.md"
    for text, depth in ((readme.read_text(), "### "), (page(root), "## ")):
        heads = [line for line in text.splitlines() if line.startswith(depth)]
        assert len(heads) == 2 and "(generic), 4 cores" in heads[0]
        assert heads[1] == f"{depth}INTEL(R) XEON(R) (intel-6-207), 2 cores, {other['date'][:10]}"
    assert page(root).count("| softmax f32 8x8 |") == 2
    assert page(root).count("of commits 0123456789ab-dirty;") == 1
    assert table.regenerate(root, check=True) is True


def test_every_table_row_has_as_many_cells_as_its_head(root):
    (path,) = (root / "benchmarks" / "results").iterdir()
    blocks = table.every_case(record.load(path), "x.json", []).split("\n\n")
    for block in (b for b in blocks if b.startswith("|")):
        assert len({line.count("|") for line in block.splitlines()}) == 1, block


def test_a_readme_without_markers_is_a_typed_error(root):
    (root / "README.md").write_text("# Title\n")
    with pytest.raises(ArgumentError, match="exactly one pair"):
        table.regenerate(root, check=True)


DESIGNED = [
    Result("design_f32", "matmul f32 M=8 N=8 K=8", 1, rates(ratio=1.5)),
    Result("design_model", "softmax f32", 1, {"designs": 64, "of_best": 0.95, "of_best_16": 0.99, "spearman": 0.8,
                                              "spearman_corrected": 0.93, "error": 0.4, "error_corrected": 0.1}),
]  # fmt: skip


def test_each_bench_has_a_place_of_its_own(root):
    described = record.describe(Machine.named("x86-avx2"), DESIGNED, ["tilewright", "bench", "design"], root)
    record.save(described, root / "benchmarks" / "results", "design")
    with pytest.raises(ArgumentError, match="exactly one pair of <!-- bench:design -->"):
        table.regenerate(root, check=False)
    begin, end = table.markers("design")
    (root / "README.md").write_text(f"{BEGIN}\n{END}\n\n{begin}\n{end}\n")
    table.regenerate(root, check=False)
    cpu, design = page(root), page(root, "design")
    assert "| matmul f32 M=8 N=8 K=8 | 1 | 1,235 | 1,000 | 1.50x [1.90, 2.10] |" in design
    assert "| softmax f32 | 1 | 64 | 95% | 99% | 0.80 | 0.93 |  |  | 40% | 10% |" in design
    assert "M=8 N=8 K=8" not in cpu and "softmax f32 8x8" not in design
    assert table.regenerate(root, check=True) is True
