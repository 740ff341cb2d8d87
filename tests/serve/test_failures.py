"""A step that fails ends what it ran, tells its clients, and leaves the server usable."""

from __future__ import annotations

import pytest

from tilewright.engine.llm import LLM
from tilewright.serve.server import Server

from .client import get, metric, post, sent

PATH = "/v1/completions"
SHORT = {"prompt": "abc", "max_tokens": 3, "ignore_eos": True}


@pytest.fixture
def failing(folder, monkeypatch):
    """A server whose engine fails for as long as `broken` holds something."""
    llm, broken = LLM(folder, max_batch=2), [True]
    decode = llm.decoder.decode

    def fails(*args):
        if broken:
            raise RuntimeError("the disk is on fire")
        return decode(*args)

    monkeypatch.setattr(llm.decoder, "decode", fails)
    with Server(llm, port=0) as server:
        yield server, broken


def test_clients_are_told(failing):
    server, broken = failing
    status, found = post(server, PATH, SHORT)
    assert (status, found["error"]["code"], found["error"]["type"]) == (500, "engine_failure", "server_error")
    assert "the engine failed: the disk is on fire" in found["error"]["message"]
    with sent(server, "POST", PATH, {**SHORT, "stream": True}) as response:
        text = response.read().decode()
    assert '"code":"engine_failure"' in text and text.endswith("data: [DONE]\n\n")
    broken.clear()
    assert post(server, PATH, SHORT)[1]["usage"]["completion_tokens"] == 3
    assert metric(server, "tilewright_engine_failures") == 2
    assert metric(server, "tilewright_completions_total", reason="failed") == 2
    assert server.runner.held == 0


def test_one_that_fails_all_the_time_is_not_healthy(failing):
    server, broken = failing
    for healthy in (True, True, False):
        post(server, PATH, SHORT)
        assert (get(server, "/health")[0] == 200) == healthy
    broken.clear()
    assert post(server, PATH, SHORT)[0] == 200
    assert get(server, "/health")[0] == 200


def test_a_defect_of_the_server_is_an_error_object(server, monkeypatch):
    monkeypatch.setattr("tilewright.serve.app.tokens_of", lambda *_: 1 / 0)
    status, found = post(server, PATH, SHORT)
    assert (status, found["error"]["code"]) == (500, "internal_error")
    assert "ZeroDivision" not in found["error"]["message"]
