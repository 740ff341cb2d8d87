"""The forward pass against transformers: same logits, same greedy tokens, alone or in a batch, chunked or not."""

from __future__ import annotations

import numpy as np
import pytest
from model_folders import MODELS, make_model

from tilewright.errors import ContextError
from tilewright.models import decoder as decoder_module
from tilewright.models.decoder import Decoder, Want

torch = pytest.importorskip("torch")

PROMPT = [5, 17, 200, 3, 99, 42, 8, 8, 250, 31, 77, 1, 64, 128, 254, 19, 23]
# f32 sums of a few hundred terms over two layers; measured against the largest logit.
F32_BOUND = 1e-4


@pytest.fixture(scope="module", params=sorted(MODELS))
def model(request, tmp_path_factory):
    """(folder, transformers' model) in f32."""
    folder = tmp_path_factory.mktemp(request.param)
    return folder, make_model(request.param, folder)


def reference_logits(model, ids):
    with torch.no_grad():
        return model(torch.tensor([ids])).logits[0].to(torch.float64).numpy()


def greedy(decoder, prompts, steps):
    """Greedy continuations of `prompts`, decoded together."""
    cache = decoder.new_cache(max_rows=len(prompts))
    decoder.reserve(cache, len(prompts), 1)
    last = [int(np.argmax(decoder.prefill(cache, row, ids))) for row, ids in enumerate(prompts)]
    out = [[token] for token in last]
    for _ in range(steps - 1):
        last = np.argmax(decoder.decode(cache, last), axis=1).tolist()
        for tokens, token in zip(out, last, strict=True):
            tokens.append(token)
    return out


def test_logits_equal_transformers(model, operators):
    folder, theirs = model
    wanted = reference_logits(theirs, PROMPT)
    found = Decoder.from_folder(folder, operators=operators).logits([PROMPT])[0]
    assert found.dtype == np.float32
    assert found.shape == wanted.shape
    assert np.max(np.abs(found - wanted)) <= F32_BOUND * np.max(np.abs(wanted))


@pytest.mark.parametrize("model", ["llama-rope3", "mistral-window", "qwen2", "qwen3"], indirect=True)
def test_logits_of_interpreted_kernels(model, interpreted_ops):
    folder, theirs = model
    wanted = reference_logits(theirs, PROMPT)
    found = Decoder.from_folder(folder, operators=interpreted_ops).logits([PROMPT])[0]
    assert np.max(np.abs(found - wanted)) <= F32_BOUND * np.max(np.abs(wanted))


def test_greedy_tokens_equal_transformers(model, operators):
    folder, theirs = model
    with torch.no_grad():
        ids = torch.tensor([PROMPT])
        wanted = theirs.generate(
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=64, min_new_tokens=64, do_sample=False
        )[0, len(PROMPT) :].tolist()
    decoder = Decoder.from_folder(folder, operators=operators)
    decoder_tokens = greedy_without_end(decoder, theirs, wanted)
    assert decoder_tokens == wanted


def greedy_without_end(decoder, theirs, wanted):
    """Greedy tokens where, as under min_new_tokens, the end token is never chosen."""
    cache = decoder.new_cache()
    logits = decoder.prefill(cache, 0, PROMPT)
    out = []
    for _ in wanted:
        logits = logits.reshape(-1).copy()
        logits[theirs.config.eos_token_id] = -np.inf
        out.append(int(np.argmax(logits)))
        logits = decoder.decode(cache, out[-1:])
    return out


def test_alone_and_in_a_batch(model, operators):
    decoder = Decoder.from_folder(model[0], operators=operators)
    prompts = [PROMPT, PROMPT[3:9], PROMPT[::-1], PROMPT[:1]]
    together = greedy(decoder, prompts, 20)
    assert together == [greedy(decoder, [ids], 20)[0] for ids in prompts]


def test_prompt_in_chunks(model, operators):
    decoder = Decoder.from_folder(model[0], operators=operators)
    whole = decoder.prefill(decoder.new_cache(), 0, PROMPT).copy()
    cache = decoder.new_cache()
    assert decoder.prefill(cache, 0, PROMPT[:7], Want.CACHE) is None
    decoder.prefill(cache, 0, PROMPT[7:8], Want.CACHE)
    parts = decoder.prefill(cache, 0, PROMPT[8:])
    assert np.max(np.abs(parts - whole)) <= 1e-5 * np.max(np.abs(whole))


@pytest.mark.parametrize("half", ["bfloat16", "float16"])
@pytest.mark.parametrize("name", ["llama-rope3", "mistral-window", "qwen2", "qwen3"])
def test_half_precision_no_further_than_twice_transformers(name, half, operators, tmp_path):
    theirs = make_model(name, tmp_path, half)
    rough = reference_logits(theirs, PROMPT)
    exact = reference_logits(theirs.to(torch.float64), PROMPT)
    decoder = Decoder.from_folder(tmp_path, operators=operators)
    assert decoder.weights.dtype.numpy.name == half
    found = decoder.logits([PROMPT])[0]
    assert rms(found - exact) <= 2 * rms(rough - exact)
    assert np.max(np.abs(found - exact)) <= 2 * np.max(np.abs(rough - exact))


def rms(x):
    return float(np.sqrt(np.mean(x * x)))


@pytest.fixture(scope="module")
def llama(tmp_path_factory):
    folder = tmp_path_factory.mktemp("one")
    make_model("llama", folder)
    return folder


def test_steps_reuse_plans(llama, operators):
    decoder = Decoder.from_folder(llama, operators=operators)
    cache = decoder.new_cache()
    decoder.prefill(cache, 0, PROMPT)
    decoder.decode(cache, [1])
    plan = decoder.plan(cache, 0, 1, 1, Want.LAST)
    decoder.decode(cache, [2])
    assert decoder.plan(cache, 0, 1, 1, Want.LAST) is plan


def test_what_lies_beyond_a_sequence_is_never_read(llama, operators):
    decoder = Decoder.from_folder(llama, operators=operators)
    clean, dirty = decoder.new_cache(), decoder.new_cache()
    for each in (clean, dirty):
        decoder.reserve(each, 1, 40)
    for array in (*dirty.keys, *dirty.values):
        array.fill(np.nan)
    for array in (*clean.keys, *clean.values):
        array.fill(0)
    assert np.array_equal(decoder.prefill(clean, 0, PROMPT).copy(), decoder.prefill(dirty, 0, PROMPT))
    assert np.array_equal(decoder.decode(clean, [9]).copy(), decoder.decode(dirty, [9]))


def test_growing_cache_keeps_what_it_holds(llama, monkeypatch, operators):
    from tilewright.models import kv_cache

    decoder = Decoder.from_folder(llama, operators=operators)
    roomy = greedy(decoder, [PROMPT, PROMPT[4:]], 40)
    monkeypatch.setattr(kv_cache, "CHUNK", 8)
    assert greedy(Decoder.from_folder(llama, operators=operators), [PROMPT, PROMPT[4:]], 40) == roomy


def test_scoring_in_chunks(llama, monkeypatch, operators):
    decoder = Decoder.from_folder(llama, operators=operators)
    whole = decoder.logits([PROMPT])[0]
    monkeypatch.setattr(decoder_module, "_SCORE_CHUNK", 5)
    assert np.max(np.abs(decoder.logits([PROMPT])[0] - whole)) <= 1e-5 * np.max(np.abs(whole))


def test_scoring_many_is_scoring_each(llama, operators):
    decoder = Decoder.from_folder(llama, operators=operators)
    together = decoder.logits([PROMPT, PROMPT[::-1], PROMPT[5:]])
    for ids, found in zip([PROMPT, PROMPT[::-1], PROMPT[5:]], together, strict=True):
        assert np.array_equal(found, decoder.logits([ids])[0])
    assert decoder.logits([]) == []
    assert not decoder._plans  # they would keep the memory of the scratch cache


def test_plans_are_bounded(llama, monkeypatch, operators):
    monkeypatch.setattr(decoder_module, "_MAX_PLANS", 3)
    decoder = Decoder.from_folder(llama, operators=operators)
    cache = decoder.new_cache()
    for n in range(1, 6):
        decoder.prefill(cache, 0, PROMPT[:n])
    assert len(decoder._plans) == 3


def test_beyond_the_context(llama, operators):
    decoder = Decoder.from_folder(llama, operators=operators)
    with pytest.raises(ContextError, match=r"257 tokens do not fit the context of 256"):
        decoder.prefill(decoder.new_cache(), 0, [1] * 257)


def test_nothing_to_score(llama, operators):
    with pytest.raises(ContextError, match="empty"):
        Decoder.from_folder(llama, operators=operators).logits([PROMPT, []])
