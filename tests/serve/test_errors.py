"""What cannot be obeyed is refused by OpenAI's error object, whose message names the field and the fix."""

from __future__ import annotations

import re

import pytest

from .client import JSON, get, post, sent

COMPLETIONS, CHAT = "/v1/completions", "/v1/chat/completions"
SAID = [{"role": "user", "content": "hi"}]


@pytest.mark.parametrize(
    ("changed", "param", "says"),
    [
        ({"temperature": -1}, "temperature", "temperature is -1; it must be a number of at least 0"),
        ({"temperature": "hot"}, "temperature", "temperature is 'hot'"),
        ({"top_p": 0}, "top_p", r"top_p is 0; it must be a number in \(0, 1\]"),
        ({"top_k": 1.5}, "top_k", "top_k is 1.5; it must be an integer"),
        ({"min_p": 2}, "min_p", "min_p is 2"),
        ({"presence_penalty": 3}, "presence_penalty", r"in \[-2, 2\]"),
        ({"repetition_penalty": 0}, "repetition_penalty", "above 0"),
        ({"seed": -1}, "seed", "seed is -1; it must be an integer of at least 0"),
        ({"max_tokens": 0}, "max_tokens", "max_tokens is 0; it must be an integer of at least 1"),
        ({"stop": ["a", ""]}, "stop", "none empty"),
        ({"stop": ["a"] * 17}, "stop", "at most 16 strings of 256 characters"),
        ({"stop_token_ids": ["a"]}, "stop_token_ids", "a list of token ids"),
        ({"ignore_eos": 1}, "ignore_eos", "must be True or False"),
        ({"logprobs": 21}, "logprobs", r"in \[0, 20\]"),
        ({"n": 0}, "n", r"n is 0; it must be an integer in \[1, 128\]"),
        ({"n": 1.0}, "n", "n is 1.0"),
        ({"best_of": 2}, "best_of", "leave it out"),
        ({"stream": "yes"}, "stream", "stream is 'yes'; it must be true or false"),
        ({"stream_options": {"include_usage": True}}, "stream_options", "set stream to true"),
        ({"stream_options": 1, "stream": True}, "stream_options", "must be an object"),
        ({"stream_options": {"include_usages": 1}, "stream": True}, "include_usages", "did you mean 'include_usage'?"),
        ({"temprature": 1}, "temprature", "'temprature' is no field of this request; did you mean 'temperature'?"),
        ({"zzz": 1}, "zzz", "the fields are best_of, echo"),
        ({"z" * 10**6: 1}, "z" * 60, "no field of this request"),
        ({"\ud800": 1}, "\ud800", "no field of this request"),
        ({"stop_token_ids": [1] * 1025}, "stop_token_ids", "at most 1024 ids"),
        ({"prompt": ["a"] * 10**5}, None, "asks for 100000 completions and the server takes 260 at once"),
        ({"logit_bias": {"5": 1}}, "logit_bias", "logit_bias is not supported by this server; leave it out"),
        ({"suffix": "x"}, "suffix", "leave it out"),
        ({"echo": True, "logprobs": 1}, "echo", "leave one out"),
        ({"prompt": ""}, "prompt", "the prompt is empty; give at least one character"),
        ({"prompt": None}, "prompt", "give a string, a list of token ids"),
        ({"prompt": []}, "prompt", "give a string"),
        ({"prompt": ["a", 1]}, "prompt", "give a string"),
        ({"prompt": [[]]}, "prompt", "the prompt is empty"),
        ({"prompt": [1, 999]}, "prompt", "999 in the prompt is not a token id; ids are integers from 0 to 255"),
        ({"prompt": [True]}, "prompt", "True in the prompt is not a token id"),
        ({"prompt": "\ud800"}, "prompt", "not UTF-8"),
    ],
)  # fmt: skip
def test_fields_of_a_completion(server, changed, param, says):
    refused(post(server, COMPLETIONS, {"prompt": "a", **changed}), param, says)


@pytest.mark.parametrize(
    ("changed", "param", "says"),
    [
        ({"messages": None}, "messages", "messages is missing or empty; give a list"),
        ({"messages": []}, "messages", "give a list"),
        ({"messages": ["hi"]}, r"messages[0]", "an object with role and content"),
        ({"messages": [{"role": "robot", "content": ""}]}, "messages[0].role", "it must be one of system, developer"),
        ({"messages": [{"role": "user"}]}, "messages[0].content", "must be a string"),
        (
            {"messages": [*SAID, {"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]},
            "messages[1].content[0]",
            "models here read text alone",
        ),
        ({"top_logprobs": 2}, "top_logprobs", "set logprobs to true"),
        ({"logprobs": 2}, "logprobs", "must be true or false"),
        ({"logprobs": True, "top_logprobs": 21}, "top_logprobs", r"in \[0, 20\]"),
        ({"tools": [{"type": "function"}]}, "tools", "not supported"),
        ({"response_format": {"type": "json_object"}}, "response_format", "not supported"),
        ({"prompt": "a"}, "prompt", "no field of this request"),
        ({"chat_template_kwargs": 1}, "chat_template_kwargs", "must be an object"),
        ({"chat_template_kwargs": {"messages": []}}, None, "sets what the server sets; leave it out"),
        ({"max_completion_tokens": -1}, "max_tokens", "max_tokens is -1"),
    ],
)
def test_fields_of_a_conversation(server, changed, param, says):
    refused(post(server, CHAT, {"messages": SAID, **changed}), param, says)


def refused(answer, param, says, status=400):
    """Whether an answer is the error that it should be."""
    found = answer[1]["error"]
    assert answer[0] == status and set(found) == {"message", "type", "param", "code"}
    assert (found["type"], found["param"]) == ("invalid_request_error", param)
    assert re.search(says, found["message"])


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"", "the body is no JSON"),
        (b"{", "the body is no JSON"),
        (b"[1]", "send one object"),
        (b'{"prompt": "a", "temperature": NaN}', "NaN is no number of JSON"),
        (b'{"prompt": "a", "temperature": -Infinity}', "no number of JSON"),
        (b'{"prompt": "\xff"}', "the body is no JSON"),
        (b"[" * 100_000, "the body is no JSON"),
        (b'{"seed": ' + b"9" * 5000 + b"}", "the body is no JSON"),
    ],
)
def test_bodies_that_are_none(server, body, says):
    refused(post(server, COMPLETIONS, body), None, says)


def test_the_type_of_the_body(server):
    """What a web page may send to this machine without being asked is not taken."""
    for kind in ({}, {"Content-Type": "text/plain"}):
        refused(post(server, COMPLETIONS, b'{"prompt": "a"}', kind), None, "Content-Type: application/json", 415)
    assert post(server, COMPLETIONS, {"prompt": "a"}, {"Content-Type": "application/json; charset=utf-8"})[0] == 200


def test_another_model(server):
    for path, body in ((COMPLETIONS, {"prompt": "a"}), (CHAT, {"messages": SAID}), ("/tokenize", {"prompt": "a"})):
        status, found = post(server, path, {**body, "model": "gpt-5"})
        assert (status, found["error"]["code"], found["error"]["param"]) == (404, "model_not_found", "model")
        assert found["error"]["message"] == "the model 'gpt-5' is not here; this server has 'tiny'"


def test_paths_and_methods(server):
    status, found = get(server, "/v1/nothing")
    assert (status, found["error"]["type"]) == (404, "not_found_error") and "GET / lists" in found["error"]["message"]
    assert get(server, "/../../etc/passwd")[0] == 404
    with sent(server, "GET", COMPLETIONS) as response:
        assert (response.status, response.getheader("allow")) == (405, "POST")


def test_text_and_tokens(server):
    refused(post(server, "/tokenize", {}), "prompt", "give prompt, a string, or messages")
    refused(post(server, "/tokenize", {"prompt": "\ud800"}), "prompt", "not UTF-8")
    refused(post(server, "/detokenize", {"tokens": "abc"}), "tokens", "a list of token ids")
    refused(post(server, "/detokenize", {"tokens": [999]}), "tokens", "not a token id")


def test_nothing_is_left_behind(server):
    with sent(server, "POST", COMPLETIONS, {"prompt": "a", "n": 0}, JSON) as response:
        response.read()
    assert server.runner.held == 0
