"""/v1/completions: each answer is what `LLM.generate` gives, whoever else asks meanwhile."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from tilewright.engine.llm import LLM
from tilewright.engine.sampling import SamplingParams
from tilewright.serve.server import Server

from .client import get, post, stream

PATH = "/v1/completions"
FIELDS = {"max_tokens": 12, "temperature": 0.9, "seed": 3, "ignore_eos": True}


def params(**changed):
    """What the model's own settings make of the fields."""
    return SamplingParams(**{"top_k": 50, **FIELDS, **changed})


def test_an_answer(server, alone):
    status, found = post(server, PATH, {"model": "tiny", "prompt": "def f", **FIELDS})
    wanted = alone.generate("def f", params())[0]
    assert status == 200
    assert found["object"] == "text_completion" and found["id"].startswith("cmpl-") and found["model"] == "tiny"
    assert found["choices"] == [{"index": 0, "text": wanted.text, "logprobs": None, "finish_reason": "length"}]
    assert found["usage"] == {"prompt_tokens": 5, "completion_tokens": 12, "total_tokens": 17}


@pytest.mark.parametrize(
    "changed",
    [
        {"temperature": 0},
        {"top_p": 0.5},
        {"top_k": 3},
        {"min_p": 0.2},
        {"presence_penalty": 1.5},
        {"frequency_penalty": 1.5},
        {"repetition_penalty": 1.7},
        {"stop_token_ids": [7, 9]},
    ],
)
def test_every_parameter_reaches_the_engine(server, alone, changed):
    body = {"prompt": "aaaa", **FIELDS, **changed, "max_tokens": 24}
    wanted = alone.generate("aaaa", params(**changed, max_tokens=24))[0]
    choice = post(server, PATH, body)[1]["choices"][0]
    assert (choice["text"], choice["finish_reason"]) == (wanted.text, wanted.finish_reason)


def test_defaults_are_the_models_own(server, alone):
    wanted = alone.generate("abc", replace(alone.default_params, seed=5))[0]
    body = {"prompt": "abc", "seed": 5, "temperature": None, "user": "somebody", "logit_bias": {}, "best_of": 1}
    choice = post(server, PATH, body)[1]["choices"][0]
    assert (choice["text"], choice["finish_reason"]) == (wanted.text, wanted.finish_reason)


def test_several_prompts_and_choices(server, alone):
    prompts = ["abc", "hello there"]
    found = post(server, PATH, {"prompt": prompts, "n": 3, **FIELDS})[1]
    wanted = [alone.generate(p, params(seed=3 + i))[0].text for p in prompts for i in range(3)]
    assert [c["text"] for c in found["choices"]] == wanted
    assert [c["index"] for c in found["choices"]] == list(range(6))
    assert found["usage"] == {"prompt_tokens": 14, "completion_tokens": 72, "total_tokens": 86}
    assert len(set(wanted)) == 6


def test_prompts_of_tokens(server, alone):
    ids = alone.tokenizer.encode("abc")
    wanted = alone.generate("abc", params())[0].text
    assert post(server, PATH, {"prompt": ids, **FIELDS})[1]["choices"][0]["text"] == wanted
    assert [c["text"] for c in post(server, PATH, {"prompt": [ids, ids], **FIELDS})[1]["choices"]] == [wanted] * 2


def test_a_stop_string_is_cut(server, alone):
    text = alone.generate("x", params())[0].text
    choice = post(server, PATH, {"prompt": "x", **FIELDS, "stop": [text[4:6], "never"]})[1]["choices"][0]
    assert (choice["text"], choice["finish_reason"]) == (text[: text.index(text[4:6])], "stop")


@pytest.mark.parametrize("prompt", ["ab", [1, 2, 3]])
def test_echo(server, alone, prompt):
    wanted = (prompt if isinstance(prompt, str) else alone.tokenizer.decode(prompt)) + alone.generate(prompt, params())[
        0
    ].text
    body = {"prompt": prompt, "echo": True, **FIELDS}
    assert post(server, PATH, body)[1]["choices"][0]["text"] == wanted
    assert "".join(c["choices"][0]["text"] for c in stream(server, PATH, **body)) == wanted


def test_logprobs(server, alone):
    wanted = alone.generate("abc", params(logprobs=2))[0]
    told = post(server, PATH, {"prompt": "abc", "logprobs": 2, **FIELDS})[1]["choices"][0]["logprobs"]
    text = [alone.tokenizer.decode([i]) for i in wanted.token_ids]
    assert told["tokens"] == text
    assert told["token_logprobs"] == [x[i] for i, x in zip(wanted.token_ids, wanted.logprobs, strict=True)]
    assert told["text_offset"] == [sum(map(len, text[:n])) for n in range(len(text))]
    assert all(1 <= len(top) <= 2 for top in told["top_logprobs"])
    assert [max(top.values()) for top in told["top_logprobs"]] == [max(x.values()) for x in wanted.logprobs]
    pieces = [c["choices"][0]["logprobs"] for c in stream(server, PATH, prompt="abc", logprobs=2, **FIELDS)]
    for name, values in told.items():
        assert [x for piece in pieces if piece for x in piece[name]] == values


def test_an_end_token_is_counted_and_not_told(server, alone):
    ids = alone.generate("abc", params())[0].token_ids
    body = {"prompt": "abc", "logprobs": 0, **FIELDS, "stop_token_ids": [ids[5]]}
    found, at = post(server, PATH, body)[1], ids.index(ids[5])
    assert found["usage"]["completion_tokens"] == at + 1
    assert len(found["choices"][0]["logprobs"]["tokens"]) == at
    assert found["choices"][0]["finish_reason"] == "stop"


def test_clients_at_once_get_what_they_would_get_alone(server, alone):
    """More clients than rows, streams and whole answers, of different lengths."""
    prompts = [f"{'a' * (1 + 7 * i % 11)} {i}" for i in range(12)]
    wants = [params(seed=i, max_tokens=5 + 3 * i, temperature=0.0 if i % 3 == 0 else 0.9) for i in range(12)]
    wanted = [alone.generate(p, w)[0].text for p, w in zip(prompts, wants, strict=True)]

    def ask(i):
        w = wants[i]
        body = {"prompt": prompts[i], **FIELDS, "seed": i, "max_tokens": w.max_tokens, "temperature": w.temperature}
        if i % 2:
            return post(server, PATH, body)[1]["choices"][0]["text"]
        return "".join(c["choices"][0]["text"] for c in stream(server, PATH, **body))

    with ThreadPoolExecutor(12) as pool:
        assert list(pool.map(ask, range(12))) == wanted


def test_a_program_beside_the_server_shares_its_engine(folder, alone):
    llm, prompts = LLM(folder, max_batch=4), [f"{i} abc" for i in range(8)]
    wanted = [c.text for c in alone.generate(prompts, params(max_tokens=40))]
    with Server(llm, port=0) as server, ThreadPoolExecutor(8) as pool:
        body = {**FIELDS, "max_tokens": 40}
        asked = [pool.submit(post, server, PATH, {"prompt": p, **body}) for p in prompts]
        own = [pool.submit(llm.generate, p, params(max_tokens=40)) for p in prompts]
        assert [a.result()[1]["choices"][0]["text"] for a in asked] == wanted
        assert [o.result()[0].text for o in own] == wanted
    assert llm.engine.scheduler.idle


def test_the_models(server):
    status, found = get(server, "/v1/models")
    assert status == 200 and found["object"] == "list"
    assert [(m["id"], m["object"], m["max_model_len"]) for m in found["data"]] == [("tiny", "model", 256)]
    assert get(server, "/v1/models/tiny") == (200, found["data"][0])
    assert get(server, "/v1/models/other")[0] == 404


def test_text_to_tokens_and_back(server, alone):
    ids = alone.tokenizer.encode("def f")
    assert post(server, "/tokenize", {"prompt": "def f"})[1] == {"tokens": ids, "count": 5, "max_model_len": 256}
    assert post(server, "/detokenize", {"tokens": ids}) == (200, {"prompt": "def f"})
    conversation = [{"role": "user", "content": "hi"}]
    found = post(server, "/tokenize", {"messages": conversation})[1]["tokens"]
    assert found == alone.tokenizer.encode_chat(conversation)


def test_what_is_there(server):
    assert get(server, "/health") == (200, {"status": "ok"})
    assert "/v1/chat/completions" in get(server, "/")[1]["paths"]
    assert get(server, "/version")[0] == 200
