"""/v1/chat/completions: conversations through the model's template, whole and streamed."""

from __future__ import annotations

import json
import shutil

import pytest

from tilewright.engine.llm import LLM
from tilewright.engine.sampling import SamplingParams
from tilewright.serve.server import Server

from .client import post, stream

PATH = "/v1/chat/completions"
FIELDS = {"max_tokens": 12, "temperature": 0.9, "seed": 3, "ignore_eos": True}
SAID = [{"role": "system", "content": "short"}, {"role": "user", "content": "hi"}]
PARAMS = SamplingParams(top_k=50, **FIELDS)


def test_an_answer(server, alone):
    status, found = post(server, PATH, {"model": "tiny", "messages": SAID, **FIELDS})
    wanted = alone.chat(SAID, PARAMS)
    assert status == 200
    assert found["object"] == "chat.completion" and found["id"].startswith("chatcmpl-")
    message = {"role": "assistant", "content": wanted.text}
    assert found["choices"] == [{"index": 0, "message": message, "logprobs": None, "finish_reason": "length"}]
    read = len(wanted.prompt_token_ids)
    assert found["usage"] == {"prompt_tokens": read, "completion_tokens": 12, "total_tokens": read + 12}


def test_a_stream(server, alone):
    wanted = alone.chat(SAID, PARAMS)
    chunks = stream(server, PATH, messages=SAID, stream_options={"include_usage": True}, **FIELDS)
    *told, usage = chunks
    assert {c["object"] for c in chunks} == {"chat.completion.chunk"} and len({c["id"] for c in chunks}) == 1
    deltas = [c["choices"][0]["delta"] for c in told]
    assert deltas[0] == {"role": "assistant", "content": ""}
    assert "".join(d["content"] for d in deltas[1:-1]) == wanted.text
    assert deltas[-1] == {}
    assert [c["choices"][0]["finish_reason"] for c in told] == [None] * (len(told) - 1) + ["length"]
    assert all(c["usage"] is None for c in told)
    assert usage["choices"] == [] and usage["usage"]["completion_tokens"] == 12


def test_a_stream_without_usage(server):
    chunks = stream(server, PATH, messages=SAID, **FIELDS)
    assert all("usage" not in c for c in chunks)
    assert chunks[-1]["choices"][0]["finish_reason"] == "length"


def test_streams_of_several_choices(server, alone):
    whole = post(server, PATH, {"messages": SAID, "n": 3, **FIELDS})[1]["choices"]
    found = ["", "", ""]
    for chunk in stream(server, PATH, messages=SAID, n=3, **FIELDS):
        choice = chunk["choices"][0]
        found[choice["index"]] += choice["delta"].get("content", "")
    assert found == [c["message"]["content"] for c in whole]
    assert found[0] == alone.chat(SAID, PARAMS).text and len(set(found)) == 3


@pytest.mark.parametrize(
    "messages",
    [
        [{"role": "developer", "content": "short"}, {"role": "user", "content": "hi"}],
        [
            {"role": "system", "content": [{"type": "text", "text": "sho"}, {"type": "text", "text": "rt"}]},
            {"role": "user", "content": [{"type": "text", "text": "hi"}]},
        ],
    ],
)
def test_other_ways_to_say_the_same(server, alone, messages):
    found = post(server, PATH, {"messages": messages, **FIELDS})[1]
    assert found["choices"][0]["message"]["content"] == alone.chat(SAID, PARAMS).text


def test_variables_of_the_template(server, alone):
    body = {"messages": SAID, "chat_template_kwargs": {"loud": True}, **FIELDS}
    found = post(server, PATH, body)[1]["choices"][0]["message"]["content"]
    assert found == alone.chat(SAID, PARAMS, loud=True).text != alone.chat(SAID, PARAMS).text


def test_as_many_tokens_as_the_context_holds(server, alone):
    found = post(server, PATH, {"messages": SAID, **FIELDS, "max_tokens": None})[1]
    read = len(alone.tokenizer.encode_chat(SAID))
    assert found["usage"]["total_tokens"] == 256 and found["usage"]["prompt_tokens"] == read
    assert found["choices"][0]["finish_reason"] == "length"


def test_max_completion_tokens_counts_most(server):
    body = {"messages": SAID, **FIELDS, "max_completion_tokens": 3}
    assert post(server, PATH, body)[1]["usage"]["completion_tokens"] == 3


def test_logprobs(server, alone):
    wanted = alone.chat(SAID, SamplingParams(top_k=50, logprobs=2, **FIELDS))
    body = {"messages": SAID, "logprobs": True, "top_logprobs": 2, **FIELDS}
    content = post(server, PATH, body)[1]["choices"][0]["logprobs"]["content"]
    text = alone.tokenizer.decode
    assert [e["token"] for e in content] == [text([i]) for i in wanted.token_ids]
    for entry, token, chances in zip(content, wanted.token_ids, wanted.logprobs, strict=True):
        assert entry["logprob"] == chances[token] and entry["bytes"] == list(entry["token"].encode())
        assert [t["logprob"] for t in entry["top_logprobs"]] == sorted(chances.values(), reverse=True)[:2]
    told = [c["choices"][0]["logprobs"] for c in stream(server, PATH, **body)]
    assert [e for piece in told if piece for e in piece["content"]] == content


def test_a_template_that_refuses(server):
    status, found = post(server, PATH, {"messages": [{"role": "tool", "content": "x"}], **FIELDS})
    assert status == 400 and found["error"]["param"] == "messages"
    assert found["error"]["message"] == "the chat template refused the messages: no tools here; change them"


def test_a_model_without_a_template(folder, tmp_path):
    bare = tmp_path / "bare"
    shutil.copytree(folder, bare)
    (bare / "tokenizer_config.json").write_text(json.dumps({}))
    with Server(LLM(bare, max_batch=1), port=0) as server:
        status, found = post(server, PATH, {"messages": SAID, **FIELDS})
        assert status == 400 and "no chat template; use /v1/completions" in found["error"]["message"]
        assert post(server, "/v1/completions", {"prompt": "x", "model": "bare", **FIELDS})[0] == 200
