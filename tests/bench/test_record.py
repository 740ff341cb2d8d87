"""Results files: complete, readable again, written whole; the newest is found by its date."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tilewright.bench import record
from tilewright.bench.result import Result
from tilewright.errors import ArgumentError
from tilewright.machines.machine import Machine

RESULTS = [Result("rows", "softmax", 2, {"ratio": 1.5}, {"samples_ns": {"tilewright": [1, 2, 3]}}),
           Result("rows", "rope", 2, error="failed")]  # fmt: skip


@pytest.fixture
def described(tmp_path):
    return record.describe(Machine.named("x86-avx2"), RESULTS, ["tilewright", "bench", "cpu"], tmp_path)


def test_everything_needed_to_judge_a_number_is_in_it(described):
    (run,) = described["runs"]
    assert run["command"] == "tilewright bench cpu"
    assert run["commit"] is None  # a folder outside git
    assert run["threads"] == [2]
    assert {"python", "tilewright", "numpy", "torch", "transformers", "llvmlite", "llvm"} <= set(run["versions"])
    assert described["machine"]["name"] == "x86-avx2"
    assert described["system"]["processor"]
    json.dumps(described)


def test_the_command_can_be_pasted_into_a_shell(monkeypatch, tmp_path):
    monkeypatch.setattr(record.sys, "argv", ["/usr/bin/tilewright", "bench", "cpu", "--only", "softmax f32*"])
    (run,) = record.describe(Machine.named("x86-avx2"), [], record.this_command(), tmp_path)["runs"]
    assert run["command"] == "tilewright bench cpu --only 'softmax f32*'"


def test_saved_and_loaded_again(described, tmp_path):
    path = record.save(described, tmp_path / "results")
    assert path.name == f"cpu-generic-4-cores-{described['date'][:10]}.json"
    assert record.load(path)["results"] == RESULTS
    assert "[1, 2, 3]" in path.read_text()
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_newest_by_date_inside(described, tmp_path):
    for name, date in (("cpu-a.json", "2026-01-02T00:00:00+00:00"), ("cpu-b.json", "2025-01-02T00:00:00+00:00")):
        (tmp_path / name).write_text(json.dumps({**described, "date": date}))
    ((path, found),) = record.newest(tmp_path)
    assert path.name == "cpu-a.json" and found["results"] == RESULTS


def later(described: dict, results: list[Result], **changes: object) -> dict:
    """Another run on the same day."""
    run = {**described["runs"][0], "command": "tilewright bench cpu --only rows"}
    return {**described, "runs": [run], "results": [r.to_json() for r in results], **changes}


def test_a_day_s_file_is_gathered_in_several_runs(described, tmp_path):
    record.save(described, tmp_path)
    again = [Result("rows", "rope", 2, {"ratio": 3.0}), Result("startup", "import", 2, {"s": 0.1})]
    path = record.save(later(described, again), tmp_path)
    found = record.load(path)
    assert [r.name for r in found["results"]] == ["softmax", "rope", "import"]
    assert [r.run for r in found["results"]] == [0, 1, 1]
    assert [run["command"] for run in found["runs"]] == ["tilewright bench cpu", "tilewright bench cpu --only rows"]
    assert found["results"][1].metrics == {"ratio": 3.0} and found["results"][1].error is None
    assert [p.name for p in tmp_path.glob("*.json")] == [path.name]


def test_a_run_of_which_nothing_is_left_is_forgotten(described, tmp_path):
    record.save(described, tmp_path)
    found = record.load(record.save(later(described, RESULTS), tmp_path))
    assert [run["command"] for run in found["runs"]] == ["tilewright bench cpu --only rows"]
    assert {r.run for r in found["results"]} == {0}


def test_a_file_of_something_else_is_not_replaced(described, tmp_path):
    first = record.save(described, tmp_path)
    other = record.save(later(described, RESULTS, fingerprint="0123456789abcdef"), tmp_path)
    assert other.name == f"{first.stem}-0123456789abcdef.json"
    assert len(list(tmp_path.glob("*.json"))) == 2
    first.write_text("notes")
    assert record.save(described, tmp_path) != first
    assert first.read_text() == "notes"


def test_two_machines_have_two_readable_names():
    def key(name: str, architecture: str) -> str:
        return record.machine_key({"machine": {"name": name, "architecture": architecture, "cores": 2}})

    assert key("AMD EPYC", "amd-26-2") == "amd-26-2-2-cores"
    assert key("Intel(R) Xeon(R) Platinum 8581C CPU", "intel-6-207") == "intel-6-207-2-cores"
    assert key("AMD EPYC as x86-avx2", "amd-26-2") == "amd-26-2-2-cores-as-x86-avx2"
    assert key(Machine.detect().name, Machine.detect().architecture)


def test_newest_of_each_machine(described, tmp_path):
    for name, architecture, date in (("a", "amd-1-1", "2026-01-01"), ("b", "intel-6-1", "2025-01-01"),
                                     ("c", "amd-1-1", "2026-01-02")):  # fmt: skip
        machine = {**described["machine"], "architecture": architecture}
        (tmp_path / f"cpu-{name}.json").write_text(json.dumps({**described, "machine": machine, "date": date}))
    assert [path.name for path, _ in record.newest(tmp_path)] == ["cpu-c.json", "cpu-b.json"]


@pytest.mark.parametrize("text", ["{", '{"format": 99}', "[]", '{"format": 2, "results": [{"nonsense": 1}]}'])
def test_what_is_no_results_file_is_a_typed_error(tmp_path, text):
    path = tmp_path / "cpu-x.json"
    path.write_text(text)
    with pytest.raises(ArgumentError, match=r"cpu-x\.json"):
        record.load(path)
    with pytest.raises(ArgumentError, match="bench cpu --save"):
        record.newest(tmp_path / "nowhere")


def test_git_commit_of_a_checkout(tmp_path):
    import subprocess

    def git(*arguments: str) -> None:
        identity = ["-c", "user.name=x", "-c", "user.email=x@example.org"]
        subprocess.run(["git", "-C", str(tmp_path), *identity, *arguments], check=True, capture_output=True)

    results = tmp_path / "benchmarks" / "results"
    results.mkdir(parents=True)
    git("init")
    (tmp_path / "file").write_text("1")
    (results / "kept.json").write_text("1")
    git("add", ".")
    git("commit", "-m", "one", "--no-verify")
    clean = record.git_commit(tmp_path)
    assert clean and len(clean) == 40
    (results / "kept.json").write_text("2")  # by a run that keeps its results as they come
    assert record.git_commit(tmp_path) == clean == record.git_commit(results)
    (tmp_path / "file").write_text("2")
    assert record.git_commit(tmp_path) == clean + "-dirty" == record.git_commit(results)


def test_outside_git_the_commit_is_the_one_that_git_archive_wrote(tmp_path, monkeypatch):
    written = tmp_path / "archived.txt"
    monkeypatch.setattr(record, "ARCHIVED", written)
    assert record.git_commit(tmp_path) is None
    for text, commit in (("$Format:%H$", None), ("a" * 40, "a" * 40)):
        written.write_text(text + "\n")
        assert record.git_commit(tmp_path) == commit


def test_git_archive_writes_the_commit():
    root = Path(__file__).parents[2]
    assert record.ARCHIVED.parts[-3:] == ("tilewright", "bench", "archived.txt")
    assert "src/tilewright/bench/archived.txt export-subst" in (root / ".gitattributes").read_text().splitlines()
    text = record.ARCHIVED.read_text().strip()
    assert text == "$Format:%H$" or len(text) == 40  # in a checkout, in an archive
