"""The API key, and web pages of other origins."""

from __future__ import annotations

import pytest

from tilewright.engine.llm import LLM
from tilewright.serve.server import Server

from .client import get, sent


@pytest.fixture(scope="module")
def locked(folder):
    settings = {"api_key": "sesame", "allow_origins": ["https://page.example"]}
    with Server(LLM(folder, max_batch=1), port=0, **settings) as server:
        yield server


@pytest.mark.parametrize(
    "given", [None, "Bearer", "Bearer sesam", "Bearer sesame2", "Basic sesame", "sesame", "Bearer é"]
)
def test_without_the_key(locked, given):
    headers = {} if given is None else {"Authorization": given.encode("latin-1")}
    for path in ("/v1/models", "/metrics", "/v1/nothing"):
        status, found = get(locked, path, **headers)
        assert (status, found["error"]["code"]) == (401, "invalid_api_key")
        assert "'Authorization: Bearer KEY'" in found["error"]["message"]


def test_with_the_key(locked):
    assert get(locked, "/v1/models", Authorization="Bearer sesame")[0] == 200
    assert get(locked, "/v1/models", Authorization="bearer  sesame ")[0] == 200


def test_health_needs_none(locked):
    assert get(locked, "/health")[0] == 200


def test_the_key_is_not_shown(locked):
    assert "sesame" not in repr(locked.settings)


def test_origins(locked, server):
    asks = {"Origin": "https://page.example", "Access-Control-Request-Method": "POST"}
    with sent(locked, "OPTIONS", "/v1/completions", headers=asks) as response:
        assert response.status == 200
        assert response.getheader("access-control-allow-origin") == "https://page.example"
    with sent(locked, "OPTIONS", "/v1/completions", headers={**asks, "Origin": "https://other.example"}) as response:
        assert response.getheader("access-control-allow-origin") is None
    with sent(server, "GET", "/v1/models", headers={"Origin": "https://page.example"}) as response:
        assert response.getheader("access-control-allow-origin") is None
