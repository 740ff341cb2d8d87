"""Requests, workers that fail, thread counts, and where the checkout is."""

from __future__ import annotations

import json
import sys

import pytest

from tilewright.bench import cpu, startup
from tilewright.bench.cpu import Request, measure, parse_threads, source_root
from tilewright.bench.result import Result
from tilewright.errors import ArgumentError, TilewrightError


@pytest.fixture
def jobs(monkeypatch):
    """What would be done, as (threads, job); nothing is measured, and the worker gives one result."""
    seen = []

    def work(threads, **job):
        seen.append((threads, job["job"]))
        yield Result("rows", job["job"], threads)

    def write(folder, shape):
        seen.append((shape.layers, "write"))
        (folder / "config.json").touch()

    monkeypatch.setattr(cpu, "_work", work)
    monkeypatch.setattr(cpu, "write_checkpoint", write)
    monkeypatch.setattr(cpu, "measure_startup", lambda repeats: iter([Result("startup", "import", 1)]))
    return seen


def test_a_full_run_measures_everything_on_one_checkpoint(jobs):
    results = list(measure(Request((1, 2))))
    operators = [(1, "operators"), (2, "operators")]
    assert jobs == [*operators, (1, "compile"), (16, "write"), (2, "memory"), (2, "decoder")]
    assert results[-1].family == "startup"


def test_quick_keeps_the_decode_of_a_small_model(jobs):
    list(measure(Request((1,), quick=True)))
    assert jobs == [(1, "operators"), (1, "compile"), (4, "write"), (1, "decoder")]


@pytest.mark.parametrize(
    "only, expected",
    [
        ("memory", [(16, "write"), (2, "memory")]),
        ("decode,*", [(16, "write"), (2, "decoder")]),
        ("softmax", [(1, "operators"), (2, "operators")]),
        ("compile", [(1, "compile")]),
    ],
)
def test_a_pattern_starts_only_what_it_names(jobs, only, expected):
    list(measure(Request((1, 2), only)))
    assert jobs == expected


def test_a_job_that_breaks_off_owes_failures_and_the_run_goes_on(monkeypatch, jobs):
    def work(threads, **job):
        yield Result("rows", "softmax f32 4096x4096", threads, {"ratio": 1.0})
        if threads == 1:
            raise TilewrightError("out of luck")
        yield Result("rows", "softmax bf16 4096x4096", threads, {"ratio": 1.0})

    monkeypatch.setattr(cpu, "_work", work)
    results = list(measure(Request((1, 2), "softmax")))
    assert [r.key for r in results] == [
        ("rows", f"softmax {dtype} 4096x4096", threads) for threads in (1, 2) for dtype in ("f32", "bf16")
    ]
    assert [r.error for r in results] == [None, "out of luck", None, None]


def test_a_pattern_that_fits_nothing_is_a_typed_error(jobs):
    with pytest.raises(ArgumentError, match="decode_linear"):
        list(measure(Request((1,), "sofmax")))


def worker(monkeypatch, program: str) -> None:
    """Let the worker be `program`, which finds the job in sys.argv[-1]."""
    real = cpu.subprocess.Popen
    monkeypatch.setattr(
        cpu.subprocess, "Popen", lambda command, **kw: real([sys.executable, "-c", program, command[-1]], **kw)
    )


def test_a_worker_s_threads_are_set_before_it_starts(monkeypatch):
    program = """
import json, os, sys
job = json.loads(sys.argv[1])
print(json.dumps({"family": job["job"], "name": os.environ["TILEWRIGHT_THREADS"], "threads": job["threads"],
                  "metrics": {"omp": int(os.environ["OMP_NUM_THREADS"])}}))"""
    worker(monkeypatch, program)
    assert list(cpu._work(3, job="j")) == [Result("j", "3", 3, {"omp": 3})]


def test_a_worker_that_dies_keeps_its_results_and_says_why(monkeypatch):
    line = json.dumps({"family": "f", "name": "n", "threads": 1})
    worker(monkeypatch, f"import sys; print('''{line}''', flush=True); sys.exit('out of luck')")
    results = cpu._work(1, job="operators")
    assert next(results).name == "n"
    with pytest.raises(TilewrightError, match="operators worker with 1 threads ended with 1: out of luck"):
        next(results)


def test_a_worker_that_takes_too_long_is_ended(monkeypatch):
    line = json.dumps({"family": "f", "name": "n", "threads": 1})
    worker(monkeypatch, f"import time; print('{line}', flush=True); time.sleep(600)")
    results = cpu._work(1, limit=2.0, job="llm")
    assert next(results).name == "n"
    with pytest.raises(TilewrightError, match="ended with -9 after its limit of 2 s: nothing"):
        next(results)


def test_a_listener_that_leaves_ends_the_worker(monkeypatch):
    line = json.dumps({"family": "f", "name": "n", "threads": 1})
    worker(monkeypatch, f"import time; print('''{line}''', flush=True); time.sleep(600)")
    results = cpu._work(1, job="operators")
    next(results)
    results.close()  # would wait for ten minutes


@pytest.mark.parametrize("text, counts", [("1", (1,)), ("1,2", (1, 2)), ("2, 2", (2,))])
def test_thread_counts(text, counts):
    assert parse_threads(text, available=2) == counts


@pytest.mark.parametrize("text", ["0", "3", "", "1;2", "two"])
def test_bad_thread_counts(text):
    with pytest.raises(ArgumentError, match="from 1 to 2"):
        parse_threads(text, available=2)


def test_source_root(tmp_path):
    (tmp_path / "benchmarks").mkdir()
    (tmp_path / "benchmarks" / "floors.toml").write_text("")
    inside = tmp_path / "a" / "b"
    inside.mkdir(parents=True)
    assert source_root(inside) == tmp_path
    with pytest.raises(ArgumentError, match="not inside a checkout"):
        source_root(tmp_path.parent)


def test_import_is_timed_in_a_fresh_process():
    assert 0 < startup.import_seconds() < 60


def test_a_generate_that_fails_is_reported(tmp_path, monkeypatch):
    monkeypatch.setattr(startup, "_GENERATE", ("-c", "import sys; sys.exit('error: no model')"))
    with pytest.raises(TilewrightError, match="error: no model"):
        startup.first_token_seconds(str(tmp_path))
