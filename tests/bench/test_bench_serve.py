"""`tilewright bench serve`: its jobs, and what it times gives the right rows."""

from __future__ import annotations

import json
from contextlib import contextmanager
from itertools import pairwise

import numpy as np
import pytest

from tilewright.bench import (
    serve_dispatch,
    serve_dynamic,
    serve_learn,
    serve_padding,
    serve_process,
    serve_shake,
    serve_side,
)
from tilewright.bench.checkpoint import Shape, write_checkpoint
from tilewright.bench.serve import FAMILIES, ServeRequest, serve_jobs
from tilewright.bench.serve_block import SMALL, Layer
from tilewright.bench.worker import JOBS
from tilewright.errors import ArgumentError, TilewrightError
from tilewright.operators import attention
from tilewright.ops.ragged import Ragged
from tilewright.runtime import dispatch
from tilewright.runtime.table import Table
from tilewright.runtime.tolerance import check


def test_every_family_has_a_job_that_can_be_run_alone():
    assert [job.kind for job in serve_jobs(ServeRequest(2))] == list(FAMILIES)
    assert set(FAMILIES) <= set(JOBS)
    (job,) = serve_jobs(ServeRequest(2, only="similar"))
    assert [s.name for s in job.steps] == [serve_padding.GROUPED]
    on_gpu = serve_jobs(ServeRequest(2, device="cuda"))
    assert [job.kind for job in on_gpu] == list(FAMILIES[:3])
    assert [job.options["device"] for job in on_gpu] == ["cuda"] * 3
    assert on_gpu[2].steps[0].name == serve_learn.GPU.name
    with pytest.raises(ArgumentError, match="no case fits 'nothing'"):
        serve_jobs(ServeRequest(2, only="nothing"))


def test_a_ragged_layer_gives_the_rows_of_the_padded_one():
    batch, random = Ragged([5, 1, 33]), np.random.default_rng(0)
    x = random.standard_normal((3, 33, SMALL.hidden), np.float32)
    for b, n in enumerate(batch.lengths):
        x[b, n:] = 0
    layer = Layer.drawn(SMALL, serve_padding.CPU.drawn)
    ragged, padded = layer.ragged(batch.pack(x), batch), batch.pack(layer.padded(x))
    np.testing.assert_allclose(ragged, padded, rtol=0, atol=1e-4)


@pytest.mark.parametrize("name", [serve_padding.ATTENTION])
def test_a_pass_is_timed_ragged_and_padded(name, monkeypatch):
    monkeypatch.setattr(serve_padding, "served_trace", lambda: serve_dynamic.served_trace(48, 64))
    (result,) = serve_padding.padding_results(serve_padding.CPU, 1, [name], quick=False)
    assert result.name == name
    assert 0 < result.metrics["waste"] < 1
    assert result.metrics["skipped_tiles"] < result.metrics["tiles"]
    assert result.metrics["ratio"] > 0


def test_attention_of_queries_at_the_end_is_that_of_the_sequence():
    batch, random = Ragged([3, 9]), np.random.default_rng(0)
    kv, head = SMALL.kv_heads, SMALL.head
    group = (2, kv, SMALL.heads // kv, 9, head)
    q = random.standard_normal(group, np.float32)
    k, v = random.standard_normal((2, 2, kv, 9, head), np.float32)
    whole = attention.reference(q, k, v, 0.1, batch.lengths, causal=True)["o"]
    one = attention.reference(q[:1, ..., 6:, :], k[:1, :, :3], v[:1, :, :3], 0.1, causal=True)["o"]
    check("o", whole.value[:1, ..., 6:, :].astype(np.float32), one)


def test_our_side_of_the_contest_counts_what_it_compiled():
    found = serve_dynamic.contest(serve_dynamic.CPU, serve_dynamic.OURS, 6)
    assert len(found["request_ms"]) == 6
    assert found["shapes"] <= 6
    assert found["compiles"] >= 0
    assert found["seconds"] * 1e3 >= sum(found["request_ms"]) * 0.99


def test_what_a_call_costs_is_told_for_both_libraries(monkeypatch):
    monkeypatch.setattr(serve_dispatch, "CALLS", 20)
    found = list(serve_dispatch.dispatch_results(serve_dispatch.NAMES, quick=True))
    assert [r.name for r in found] == list(serve_dispatch.NAMES)
    for result in found:
        assert set(result.metrics) == {"bare_ns", *serve_dispatch.ADDED}
        assert result.metrics["bare_ns"] > 0
        assert all(len(samples) == 8 for samples in result.raw["samples_ns"].values())


def test_under_pinned_numerics_swaps_on_purpose_change_no_bit(tmp_path, monkeypatch):
    """The pinned part of the bench, small: many designs are put in use, and all logits have one hash."""
    monkeypatch.setenv("TILEWRIGHT_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("TILEWRIGHT_NUMERICS", "pinned")
    monkeypatch.setenv("TILEWRIGHT_THREADS", "1")
    monkeypatch.setattr(dispatch, "TABLE", Table())
    monkeypatch.setattr(serve_shake, "PERIOD", 0.01)
    dispatch.forget_chosen()
    shape = Shape(hidden=64, layers=1, heads=2, kv_heads=1, head_dim=32, intermediate=96, vocabulary=128, context=4096)
    write_checkpoint(tmp_path / "model", shape)
    server = serve_side.Server(serve_side.Task(str(tmp_path / "model"), 12, 1))
    before = server.serve()["hash"]
    passes, designs = serve_shake.shaken(3.0, server.serve)
    assert designs > 3
    assert {p["hash"] for p in passes} == {before}
    assert sum(s.swaps for s in dispatch.TABLE.slots()) >= designs


def side_of(us, swaps=0):
    """What one process tells of 80 requests of 10 tokens, each of which takes so many microseconds."""
    one = {"us": [us] * 80, "hash": "same"}
    return {
        "tokens": [10] * 80, "passes": [one, one], "learning": [one], "shaken": [], "designs": 0,
        "events": [{"kind": "promote"}] * swaps, "counts": {"compiles": 7}, "status": None, "rows": 3,
        "peak_mb": 1.0, "device_mb": 0.0, "generic_times": [1.5, 2.5],
    }  # fmt: skip


class Told:
    """A process that is ready for so many passes and then says what it found; one that `writes` does so in a pass."""

    def __init__(self, found, passes, folder, writes):
        self._said, self._folder, self._writes = [serve_process.READY] * passes + [json.dumps(found)], folder, writes

    def pass_(self):
        assert len(self._said) > 1 or self._said[0] != serve_process.READY
        if self._writes:
            (self._folder / "kernel").write_text(f"{len(self._said)} passes were left when it was last of use")

    def line(self):
        return self._said.pop(0)


@pytest.mark.parametrize("frozen_writes", [0, 1])
@pytest.mark.parametrize("setting", [serve_learn.CPU, serve_learn.GPU])
def test_what_is_learned_stands_beside_generic_kernels_and_those_of_classes(monkeypatch, setting, frozen_writes):
    """What a frozen process writes is counted, and not what the processes write that are compared with it."""
    took = {"generic": 300, "frozen": 200, "learn": 250}
    asked = []

    @contextmanager
    def process(folder, mode, numerics, task):
        asked.append((task["device"], numerics, mode, folder.name))
        folder.mkdir(exist_ok=True)
        us = 220 if folder.name == "classes" else took[mode]
        passes, writes = task["passes"] if task.get("asked") else 0, mode != "frozen" or frozen_writes
        yield Told(side_of(us, swaps=4 if mode == "learn" else 0), passes, folder, writes)

    monkeypatch.setattr(serve_learn, "process", process)
    monkeypatch.setattr(serve_learn, "write_checkpoint", lambda *_: None)
    (result,) = serve_learn.learn_results(setting, quick=False)
    found = result.metrics
    assert (found["us"], found["peer_us"], found["ratio"]) == (20.0, 30.0, 1.5)
    assert (found["first_us"], found["first_peer_us"], found["first_ratio"]) == (20.0, 30.0, 1.5)
    assert (found["pinned_hashes"], found["swaps"], found["frozen_writes"]) == (1, 4, frozen_writes)
    assert found["generic_times"] == 2.5
    on_gpu = setting.device == "cuda"
    assert ((setting.device, "free", "learn", "classes") in asked) == on_gpu
    assert ("of_classes" in found) == on_gpu
    if on_gpu:
        assert (found["classes_us"], found["of_classes"], found["classes_compiles"]) == (22.0, 1.1, 7)


def test_processes_serve_in_turns_while_the_others_wait(tmp_path):
    """Each pass of one lies between two of the other, and what each found is its own."""
    shape = Shape(hidden=64, layers=1, heads=2, kv_heads=1, head_dim=32, intermediate=96, vocabulary=128, context=4096)
    write_checkpoint(tmp_path, shape)
    task = {"folder": str(tmp_path), "requests": 5, "passes": 3, "asked": True}
    ways = [(tmp_path / name, mode, "free", task) for name, mode in (("a", "generic"), ("b", "frozen"))]
    with serve_process.process(*ways[0]) as one, serve_process.process(*ways[1]) as other:
        assert [one.line(), other.line()] == [serve_process.READY] * 2
        found = serve_process.in_turns([one, other], 3)
    assert [len(f["passes"]) for f in found] == [3, 3]
    turns = [p for both in zip(*(f["passes"] for f in found), strict=True) for p in both]
    assert all(a["ended"] <= b["began"] for a, b in pairwise(turns))


def test_a_process_that_fails_says_why(tmp_path):
    task = {"folder": str(tmp_path / "nowhere"), "requests": 5, "passes": 1}
    with (
        serve_process.process(tmp_path, "generic", "free", task) as one,
        pytest.raises(TilewrightError, match="nowhere"),
    ):
        one.line()


@pytest.mark.parametrize("setting", [serve_dynamic.CPU, serve_dynamic.GPU])
def test_the_contest_is_with_the_better_of_both(monkeypatch, setting):
    seconds = {"tilewright": 4.0, "classes": 6.0, "dynamic": 10.0, "static": 20.0}
    modes = []

    def run(command, env, **_):
        contestant = command[-2]
        modes.append((contestant, env["TILEWRIGHT_MODE"]))
        told = {"seconds": seconds[contestant], "compiles": 3, "shapes": 504}
        return serve_dynamic.subprocess.CompletedProcess(command, 0, json.dumps(told), "")

    monkeypatch.setattr(serve_dynamic.subprocess, "run", run)
    (result,) = serve_dynamic.dynamic_results(setting, 2, quick=False)
    assert result.metrics["of_peer"] == 0.4
    assert result.metrics.get("classes_s") == (6.0 if setting.device == "cuda" else None)
    assert ("tilewright", "generic" if setting.device == "cuda" else "learn") in modes
    assert len(modes) == setting.turns * (4 if setting.device == "cuda" else 3)
