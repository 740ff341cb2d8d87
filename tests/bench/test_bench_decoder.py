"""The whole-model bench on a tiny model: the engine is driven as described, and the figures follow from the samples."""

from __future__ import annotations

import itertools

import pytest

from tilewright.bench import decoder, engine_side
from tilewright.bench.cases import OURS, PEER
from tilewright.bench.checkpoint import Shape, write_checkpoint
from tilewright.bench.peers import Transformers
from tilewright.errors import TilewrightError
from tilewright.machines._stream_kernels import StreamKernel
from tilewright.machines._streaming import Stream
from tilewright.runtime.measure import CONTROL, Comparison

TINY = Shape(hidden=32, layers=2, heads=4, kv_heads=2, head_dim=8, intermediate=48, vocabulary=100, context=64)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("checkpoint")
    write_checkpoint(path, TINY)
    return path


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr(engine_side, "PROMPT_TOKENS", 5)
    monkeypatch.setattr(engine_side, "CONTEXT", 16)


@pytest.mark.usefixtures("interpreter_backend")
def test_a_step_of_the_engine_is_one_token_and_a_new_prompt_starts_over(folder):
    side = engine_side.Tilewright(folder)
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


def results(folder, monkeypatch, **options):
    monkeypatch.setattr(decoder, "compare", lambda calls, **_: comparison(calls))
    roof = {"read": Stream(StreamKernel("read", 512, 1, 64), 2_000_000_000, lambda: 0.0)}
    return list(decoder.decoder_results(folder, TINY, 2, roof, seconds=0, **options))


@pytest.mark.usefixtures("interpreter_backend")
def test_results_of_both_kinds(folder, monkeypatch):
    prefill, decode = results(folder, monkeypatch)
    assert prefill.metrics["tokens_per_s"] == pytest.approx(5 / 0.1)
    assert "bandwidth" not in prefill.metrics
    assert decode.metrics["tokens_per_s"] == pytest.approx(decoder.STEPS / 0.1)
    assert decode.metrics["peer_tokens_per_s"] == pytest.approx(decoder.STEPS / 0.2)
    assert decode.metrics["ratio"] == 2
    assert decode.metrics["gbs"] == pytest.approx(decoder.STEPS / 0.1 * TINY.weight_bytes / 1e9, rel=1e-4)
    assert decode.metrics["roof_gbs"] == pytest.approx(40)  # 2 GB in 50 ms
    assert decode.metrics["bandwidth"] == pytest.approx(decode.metrics["gbs"] / 40, rel=1e-4)
    assert decode.raw["streams"]["read"]["bytes"] == 2_000_000_000


@pytest.mark.usefixtures("interpreter_backend")
def test_decode_alone(folder, monkeypatch):
    (decode,) = results(folder, monkeypatch, prefill=False)
    assert decode.name == "decode, after 5 tokens, 2 layers"


def comparison(calls) -> Comparison:
    """Each candidate called once, then said to take 0.1 s, 0.2 s, and the stream 0.05 s."""
    assert list(calls)[:2] == [OURS, PEER]
    for call in calls.values():
        call()
    seconds = {OURS: 0.1, PEER: 0.2, "read": 0.05}
    samples = {name: (seconds[name] * 1e9,) * 6 for name in calls}
    return Comparison({**samples, CONTROL: samples[OURS]}, dict.fromkeys(calls, 1), tuple(calls), flush=False)


def test_prompts_are_new_each_time_and_the_same_each_run():
    one, two = itertools.islice(engine_side.prompts(TINY), 2)
    assert len(one) == 5 and one != two
    assert all(3 <= i < TINY.vocabulary for i in one)
    assert next(engine_side.prompts(TINY)) == one
