"""Results files: complete, readable again, written whole; the newest is found by its date."""

from __future__ import annotations

import json

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
    assert described["command"] == "tilewright bench cpu"
    assert described["commit"] is None  # a folder outside git
    assert {"python", "tilewright", "numpy", "torch", "llvmlite"} <= set(described["versions"])
    assert described["machine"]["name"] == "x86-avx2"
    assert described["system"]["processor"]
    json.dumps(described)


def test_saved_and_loaded_again(described, tmp_path):
    path = record.save(described, tmp_path / "results")
    assert path.name == f"cpu-x86-avx2-{described['date'][:10]}.json"
    assert record.load(path)["results"] == RESULTS
    assert "[1, 2, 3]" in path.read_text()
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_newest_by_date_inside(described, tmp_path):
    for name, date in (("cpu-a.json", "2026-01-02T00:00:00+00:00"), ("cpu-b.json", "2025-01-02T00:00:00+00:00")):
        (tmp_path / name).write_text(json.dumps({**described, "date": date}))
    assert record.newest(tmp_path).name == "cpu-a.json"


@pytest.mark.parametrize("text", ["{", '{"format": 99}', "[]", '{"format": 1, "results": [{"nonsense": 1}]}'])
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

    git("init")
    (tmp_path / "file").write_text("1")
    git("add", "file")
    git("commit", "-m", "one", "--no-verify")
    clean = record.git_commit(tmp_path)
    assert clean and len(clean) == 40
    (tmp_path / "file").write_text("2")
    assert record.git_commit(tmp_path) == clean + "-dirty"
