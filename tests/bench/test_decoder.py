"""The whole-model bench on a tiny model: the engine is driven as described, and the figures follow from the samples."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from tilewright.bench import decoder
from tilewright.bench.checkpoint import Shape, write_checkpoint
from tilewright.bench.operators import OURS, PEER
from tilewright.bench.peers import Transformers
from tilewright.errors import TilewrightError
from tilewright.runtime.measure import CONTROL, Comparison

TINY = Shape(hidden=32, layers=2, heads=4, kv_heads=2, head_dim=8, intermediate=48, vocabulary=100, context=64)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("checkpoint")
    write_checkpoint(path, TINY)
    return path


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr(decoder, "PROMPT_TOKENS", 5)
    monkeypatch.setattr(decoder, "CONTEXT", 16)


@pytest.mark.usefixtures("interpreter_backend")
def test_a_step_of_the_engine_is_one_token_and_a_new_prompt_starts_over(folder):
    side = decoder.Tilewright(folder)
    side.prefill([5, 6, 7])
    side.step()
    first = list(side._request.output_ids)
    assert len(first) == 2
    side.prefill([5, 6, 7])
    side.step()
    assert side._request.output_ids == first
    with pytest.raises(TilewrightError, match="context of 16 tokens is full"):
        for _ in range(20):
            side.step()


def test_transformers_decodes_as_it_would_without_a_cache(folder):
    import torch

    side = Transformers(folder)
    side.prefill([5, 6, 7])
    ids = [5, 6, 7, int(side._token)]
    side.step()
    with torch.inference_mode():
        whole = side._model(torch.tensor([ids])).logits[0, -1].float()
    # bf16 sums differ with the shape; the token chosen is among the likeliest two of the run without a cache.
    assert int(side._token) in whole.topk(2).indices.tolist()


@pytest.mark.usefixtures("interpreter_backend")
def test_results_of_both_kinds(folder, monkeypatch):
    monkeypatch.setattr(decoder, "compare", lambda calls, **_: comparison(calls))
    prefill, decode = decoder.decoder_results(folder, TINY, 2, {"read": 40.0, "copy": 30.0}, seconds=0)
    assert prefill.metrics["tokens_per_s"] == pytest.approx(5 / 0.1)
    assert decode.metrics["tokens_per_s"] == pytest.approx(decoder.STEPS / 0.1)
    assert decode.metrics["peer_tokens_per_s"] == pytest.approx(decoder.STEPS / 0.2)
    assert decode.metrics["ratio"] == 2
    assert decode.metrics["gbs"] == pytest.approx(decoder.STEPS / 0.1 * TINY.weight_bytes / 1e9, rel=1e-4)
    assert decode.metrics["bandwidth"] == pytest.approx(decode.metrics["gbs"] / 40, rel=1e-4)


def comparison(calls) -> Comparison:
    """Each side called once, then said to take 0.1 s and 0.2 s."""
    assert list(calls) == [OURS, PEER]
    for call in calls.values():
        call()
    samples = {OURS: (1e8,) * 6, PEER: (2e8,) * 6, CONTROL: (1e8,) * 6}
    return Comparison(samples, dict.fromkeys(samples, 1), (OURS, PEER), flush=False)


@pytest.mark.usefixtures("interpreter_backend")
def test_memory_counts_the_peak(folder, monkeypatch):
    monkeypatch.setattr(decoder, "MEMORY_STEPS", 2)
    result = decoder.memory_result(folder, TINY, threads=1)
    need = TINY.weight_bytes + TINY.kv_bytes(5 + 2)
    assert result.metrics["need_mb"] == pytest.approx(need / 1e6, rel=1e-4)
    assert result.metrics["peak_over_need"] == pytest.approx(
        result.metrics["peak_mb"] / result.metrics["need_mb"], rel=1e-3
    )


def test_peak_memory_remembers_what_was_given_back():
    before = decoder.peak_resident_bytes()
    block = np.ones(before // 8)  # as many bytes again as were ever resident
    del block
    assert decoder.peak_resident_bytes() > before


def test_prompts_are_new_each_time_and_the_same_each_run():
    one, two = itertools.islice(decoder.prompts(TINY), 2)
    assert len(one) == 5 and one != two
    assert all(3 <= i < TINY.vocabulary for i in one)
    assert next(decoder.prompts(TINY)) == one
