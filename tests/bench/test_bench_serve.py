"""`tilewright bench serve`: its jobs, and what it times gives the right rows."""

from __future__ import annotations

import numpy as np
import pytest

from tilewright.bench import serve_dispatch, serve_dynamic, serve_learn, serve_padding, serve_shake, serve_side
from tilewright.bench.checkpoint import Shape, write_checkpoint
from tilewright.bench.serve import FAMILIES, ServeRequest, serve_jobs
from tilewright.bench.serve_block import SMALL, Layer
from tilewright.bench.worker import JOBS
from tilewright.errors import ArgumentError
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
        assert set(result.metrics) == {"bare_ns", "bound_ns", "known_ns", "new_ns"}
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
