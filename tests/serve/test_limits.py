"""Bounds: the queue, the context, the body, and what a request may ask for."""

from __future__ import annotations

import http.client
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from urllib.parse import urlsplit

from tilewright.engine.llm import LLM
from tilewright.serve.server import Server

from .client import JSON, get, metric, post, sent, until

PATH = "/v1/completions"
SHORT = {"prompt": "abc", "max_tokens": 3, "ignore_eos": True}


def test_a_full_queue(gated):
    server, gate, _ = gated(max_batch=1, max_queue=1)
    with ThreadPoolExecutor(2) as pool:
        held = [pool.submit(post, server, PATH, SHORT) for _ in range(2)]
        until(lambda: server.runner.held == 2)
        with sent(server, "POST", PATH, SHORT) as response:
            assert (response.status, response.getheader("retry-after")) == (503, "1")
            assert b"2 completions run or wait already, of 2" in response.read()
        status, found = post(server, PATH, {**SHORT, "stream": True})
        assert (status, found["error"]["code"], found["error"]["type"]) == (503, "server_busy", "server_error")
        assert get(server, "/health")[0] == 200
        gate.reached()
        assert metric(server, "tilewright_queue_length") + metric(server, "tilewright_running_completions") == 2
        gate.open.set()
        assert [h.result()[0] for h in held] == [200, 200]
    assert post(server, PATH, SHORT)[0] == 200
    assert metric(server, "tilewright_http_requests_total", path=PATH, status="503") == 2
    assert metric(server, "tilewright_time_to_first_token_seconds_count") == 3
    assert metric(server, "tilewright_new_tokens_total") == 9


def test_more_at_once_than_ever_fit(folder):
    with Server(LLM(folder, max_batch=1), port=0, max_queue=2) as server:
        assert post(server, PATH, {**SHORT, "n": 3})[0] == 200
        status, found = post(server, PATH, {**SHORT, "n": 4})
        assert status == 400
        assert "asks for 4 completions and the server takes 3 at once; ask for fewer" in found["error"]["message"]


def test_the_context(server):
    status, found = post(server, PATH, {"prompt": "a" * 250, "max_tokens": 7})
    assert (status, found["error"]["code"]) == (400, "context_length_exceeded")
    assert "250 tokens and max_tokens is 7, together more than the context of 256" in found["error"]["message"]
    assert "ask for at most 6 new tokens" in found["error"]["message"]
    assert post(server, PATH, {"prompt": "a" * 250, "max_tokens": 6})[0] == 200
    assert post(server, PATH, {"prompt": "a" * 250})[0] == 200  # nobody asked for the default of 16
    status, found = post(server, PATH, {"prompt": "a" * 256})
    assert (status, found["error"]["code"]) == (400, "context_length_exceeded")
    assert "shorten the prompt" in found["error"]["message"]


def test_a_body_that_does_not_come(server, monkeypatch):
    monkeypatch.setattr("tilewright.serve.guard._BODY_SECONDS", 0.05)
    with closing(http.client.HTTPConnection(urlsplit(server.url).netloc, timeout=60)) as client:
        client.request("POST", PATH, b"{", {**JSON, "Content-Length": "10"})
        response = client.getresponse()
        assert response.status == 408 and b"did not arrive" in response.read()


def test_a_stream_without_news_says_that_it_is_there(gated, monkeypatch):
    monkeypatch.setattr("tilewright.serve.reply._STILL_HERE", 0.01)
    server, gate, _ = gated()
    with sent(server, "POST", PATH, {**SHORT, "stream": True}) as response:
        assert response.readline() == b": still here\n"
        gate.open.set()
        assert response.read().endswith(b"data: [DONE]\n\n")


def test_a_large_body(folder):
    with Server(LLM(folder, max_batch=1), port=0, max_body=1000) as server:
        status, found = post(server, PATH, {"prompt": "a" * 1000})
        assert status == 413 and "larger than 1000 bytes; send less" in found["error"]["message"]
        connection = http.client.HTTPConnection(urlsplit(server.url).netloc, timeout=60)
        connection.request("POST", PATH, iter([b"a" * 600] * 2), JSON, encode_chunked=True)  # says no length
        assert connection.getresponse().status == 413
        connection.close()
        assert post(server, PATH, SHORT)[0] == 200
