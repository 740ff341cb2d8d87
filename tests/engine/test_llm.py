"""The public face: prompts of every kind, streams, chats, scores, and errors that name the fix."""

from __future__ import annotations

import json
import shutil

import numpy as np
import plain_operators
import pytest

from tilewright.engine import llm as llm_module
from tilewright.engine.llm import LLM
from tilewright.engine.sampling import SamplingParams
from tilewright.errors import ArgumentError, ContextError, ModelError, SamplingError, TilewrightError, WeightsError

GREEDY = SamplingParams(temperature=0, max_tokens=12, ignore_eos=True)


def test_strings_and_token_lists(llm):
    ids = llm.tokenizer.encode("def f")
    one = llm.generate("def f", GREEDY)
    assert len(one) == 1
    assert one[0].prompt_token_ids == ids
    for prompts in (["def f"], [ids], ids, np.array(ids), [np.array(ids)]):
        assert llm.generate(prompts, GREEDY)[0].token_ids == one[0].token_ids
    assert llm.generate([], GREEDY) == []


def test_agrees_with_transformers(llm, folder):
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    theirs = transformers.AutoModelForCausalLM.from_pretrained(folder)
    ids = torch.tensor([llm.tokenizer.encode("import os")])
    options = {"max_new_tokens": 12, "do_sample": False, "eos_token_id": None}
    wanted = theirs.generate(ids, attention_mask=torch.ones_like(ids), **options)[0, ids.shape[1] :].tolist()
    completion = llm.generate("import os", GREEDY)[0]
    assert completion.token_ids == wanted
    assert completion.text == llm.tokenizer.decode(wanted)
    assert completion.finish_reason == "length"


def test_parameters_for_each(llm):
    params = [SamplingParams(temperature=0, max_tokens=n, ignore_eos=True) for n in (2, 5)]
    assert [len(c.token_ids) for c in llm.generate(["a", "b"], params)] == [2, 5]
    with pytest.raises(SamplingError, match="1 sampling parameters for 2 prompts; give one, or one for each"):
        llm.generate(["a", "b"], params[:1])
    for wrong in ({"max_tokens": 3}, [{}, {}], 7, "x"):
        with pytest.raises(SamplingError, match=r"the sampling parameters are .*; give SamplingParams\("):
            llm.generate(["a", "b"], wrong)
        with pytest.raises(SamplingError, match=r"the sampling parameters are .*; give SamplingParams\("):
            llm.stream("a", wrong)


def test_stop_string_is_cut(llm):
    text = llm.generate("x", GREEDY)[0].text
    stop = text[4:6]
    stopped = llm.generate("x", SamplingParams(temperature=0, max_tokens=12, ignore_eos=True, stop=stop))[0]
    assert stopped.text == text[: text.index(stop)]
    assert stopped.finish_reason == "stop"


def test_stream_is_the_completion_in_pieces(llm):
    wanted = llm.generate("hello", GREEDY)[0]
    stream = llm.stream("hello", GREEDY)
    assert stream.completion.finish_reason is None
    pieces = list(stream)
    assert len(pieces) > 1
    assert "".join(pieces) == wanted.text
    assert stream.completion.token_ids == wanted.token_ids


def test_streams_side_by_side(llm):
    wanted = [llm.generate(p, GREEDY)[0].text for p in ("one", "two")]
    streams = [llm.stream(p, GREEDY) for p in ("one", "two")]
    found = ["", ""]
    for pair in zip(*streams, strict=False):
        found = [a + b for a, b in zip(found, pair, strict=True)]
    found = [f + "".join(s) for f, s in zip(found, streams, strict=True)]
    assert [f[: len(w)] for f, w in zip(found, wanted, strict=True)] == found
    assert all(len(w) - len(f) <= 4 for f, w in zip(found, wanted, strict=True))


def test_a_closed_stream_frees_its_row(llm):
    with llm.stream("hello", GREEDY) as stream:
        next(stream)
    assert stream.completion.finish_reason == "abort"
    assert llm.engine.scheduler.idle
    dropped = llm.stream("hello", GREEDY)
    next(dropped)
    del dropped
    assert llm.engine.scheduler.idle


def test_chat(llm):
    messages = [{"role": "user", "content": "hi"}]
    reply = llm.chat(messages, GREEDY)
    assert llm.tokenizer.decode(reply.prompt_token_ids) == "<user>hi<bot>"
    assert "".join(llm.stream_chat(messages, GREEDY)) == reply.text


def test_logits(llm):
    sequences = [[1, 2, 3], list(range(200)), [7]]
    found = llm.logits(sequences)
    assert [x.shape for x in found] == [(3, 258), (200, 258), (1, 258)]
    assert {x.dtype for x in found} == {np.dtype(np.float32)}
    token = llm.generate([sequences[0]], GREEDY)[0].token_ids[0]
    assert int(np.argmax(found[0][-1])) == token


def test_scoring_between_steps_disturbs_nothing(llm):
    wanted = llm.generate("hello", GREEDY)[0].text
    stream = llm.stream("hello", GREEDY)
    text = next(stream)
    llm.logits([[5, 6, 7]])
    assert text + "".join(stream) == wanted


def test_logprobs(llm):
    params = SamplingParams(temperature=0, max_tokens=4, ignore_eos=True, logprobs=3)
    completion = llm.generate("a", params)[0]
    assert len(completion.logprobs) == 4
    for token, chances in zip(completion.token_ids, completion.logprobs, strict=True):
        assert len(chances) == 3
        assert max(chances, key=chances.get) == token


def test_timings(llm):
    timings = llm.generate("a", GREEDY)[0].timings
    assert 0 <= timings.waited <= timings.first_token <= timings.total
    assert timings.tokens_per_second == pytest.approx(11 / (timings.total - timings.first_token), rel=1e-6)
    assert llm.generate("a", SamplingParams(max_tokens=1))[0].timings.tokens_per_second == 0.0


def test_bf16_on_request(folder):
    llm = LLM(folder, dtype="bf16", operators=plain_operators)
    assert llm.decoder.weights.dtype.name == "bf16"
    assert len(llm.generate("a", GREEDY)[0].token_ids) == 12


def copy(folder, tmp_path, **config):
    """A copy of the model with changes to its config.json."""
    target = tmp_path / "copy"
    shutil.copytree(folder, target)
    path = target / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **config}))
    return target


def test_defaults_from_generation_config(folder, tmp_path):
    target = copy(folder, tmp_path)
    (target / "generation_config.json").write_text('{"temperature": 0.25, "top_k": 7, "max_new_tokens": 3}')
    llm = LLM(target, operators=plain_operators)
    assert llm.default_params == SamplingParams(temperature=0.25, top_k=7, max_tokens=3)
    assert len(llm.generate([[1, 2]])[0].token_ids) <= 3
    (target / "generation_config.json").write_text('{"temperature": -1}')
    with pytest.raises(ModelError, match=r"generation_config.json: temperature is -1"):
        LLM(target, operators=plain_operators)


def test_max_context(folder):
    llm = LLM(folder, max_context=8, operators=plain_operators)
    assert len(llm.generate([[1] * 5], SamplingParams(max_tokens=None, ignore_eos=True))[0].token_ids) == 3
    with pytest.raises(
        ContextError, match=r"8 tokens and the context is 8, .*; shorten the prompt or raise max_context$"
    ):
        llm.generate([[1] * 8])
    with pytest.raises(ContextError, match=r"256 tokens and the context is 256, .*; shorten the prompt$"):
        LLM(folder, operators=plain_operators).generate([[1] * 256])
    with pytest.raises(ContextError, match="a sequence of 9 tokens is longer than the context of 8"):
        llm.logits([[1] * 9])


def test_without_a_tokenizer(folder, tmp_path):
    target = copy(folder, tmp_path)
    (target / "tokenizer.json").unlink()
    llm = LLM(target, operators=plain_operators)
    completion = llm.generate([[1, 2, 3]], GREEDY)[0]
    assert (completion.text, len(completion.token_ids)) == ("", 12)
    with pytest.raises(
        ModelError, match=r"tokenizer.json: no such file; add it, or give prompts as lists of token ids"
    ):
        llm.generate("hello")


# ------------------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize("prompts", ["", [""], [[]], ["good", ""]])
def test_empty_prompts(llm, prompts):
    with pytest.raises(ContextError, match="the prompt is empty"):
        llm.generate(prompts, GREEDY)
    assert llm.engine.scheduler.idle


@pytest.mark.parametrize("prompts", [None, 3, b"abc", {"a": 1}, [None], ["good", b"abc"]])
def test_what_is_no_prompt(llm, prompts):
    with pytest.raises(ArgumentError, match="; give a string or a list of token ids"):
        llm.generate(prompts, GREEDY)
    assert llm.engine.scheduler.idle


def test_one_bad_prompt_runs_none(llm):
    with pytest.raises(ArgumentError, match="999 in the prompt is not a token id"):
        llm.generate([[1, 2], [999]], GREEDY)
    assert llm.engine.scheduler.idle


@pytest.mark.parametrize("max_batch", [0, -1, 2.0, True])
def test_bad_max_batch(folder, max_batch):
    with pytest.raises(ArgumentError, match=f"max_batch is {max_batch}; it must be an integer of at least 1"):
        LLM(folder, max_batch=max_batch)


@pytest.mark.parametrize("max_context", [0, 257, "long"])
def test_bad_max_context(folder, max_context):
    with pytest.raises(
        ContextError, match=f"max_context is {max_context!r}; this model takes an integer from 1 to 256"
    ):
        LLM(folder, max_context=max_context, operators=plain_operators)


def test_no_such_folder(tmp_path):
    with pytest.raises(ModelError, match=r"nowhere: no such folder; give the folder of a Hugging Face model"):
        LLM(tmp_path / "nowhere")
    with pytest.raises(ModelError, match=r"someone/some-model: no such folder.*hf download"):
        LLM("someone/some-model")


def test_a_file_is_no_folder(folder):
    with pytest.raises(ModelError, match=r"config.json: is a file; give the folder"):
        LLM(folder / "config.json")


def test_shipped_model_is_missing(monkeypatch, tmp_path):
    monkeypatch.setattr(llm_module, "SHIPPED", tmp_path / "shipped")
    with pytest.raises(ModelError, match=r"shipped: the shipped model is missing from this installation; reinstall"):
        LLM()


def test_shipped_model_is_found(monkeypatch, folder):
    monkeypatch.setattr(llm_module, "SHIPPED", folder)
    assert LLM(operators=plain_operators).folder == folder
    monkeypatch.setattr(llm_module, "SHIPPED", folder.parent)
    assert LLM(folder.name, operators=plain_operators).folder == folder


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_missing_files(folder, tmp_path, name):
    target = copy(folder, tmp_path)
    (target / name).unlink()
    with pytest.raises(ModelError, match=str(target)):
        LLM(target, operators=plain_operators)


def test_truncated_weights(folder, tmp_path):
    target = copy(folder, tmp_path)
    path = target / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(WeightsError, match=r"model.safetensors: damaged safetensors file: it is truncated"):
        LLM(target, operators=plain_operators)


def test_contradicting_config(folder, tmp_path):
    target = copy(folder, tmp_path, intermediate_size=100)
    with pytest.raises(
        WeightsError, match=r"mlp.gate_proj.weight has shape \[176, 128\], config.json wants \[100, 128\]"
    ):
        LLM(target, operators=plain_operators)


def test_every_error_is_one_of_ours():
    for error in (ModelError, WeightsError, ContextError, SamplingError, ArgumentError):
        assert issubclass(error, TilewrightError)
