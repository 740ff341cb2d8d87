"""`tilewright serve` and `load`: options reach the server, and what is wrong is one line."""

from __future__ import annotations

import json
import os

import pytest

pytest.importorskip("starlette")
pytest.importorskip("uvicorn")
pytest.importorskip("prometheus_client")

from tilewright.cli_serve import batches
from tilewright.engine.llm import LLM
from tilewright.serve.server import Server


@pytest.fixture
def ran(monkeypatch):
    """Servers that were started: they end at once."""
    found = []

    def run(server, ready, ending):
        ready()
        found.append(server)
        server._socket.close()

    monkeypatch.setattr(Server, "run", run)
    monkeypatch.setattr("gc.freeze", lambda: None)
    return found


def test_options_reach_the_server(command, ran, monkeypatch):
    monkeypatch.setenv("TILEWRIGHT_API_KEY", "of the environment")
    monkeypatch.setenv("TILEWRIGHT_MODE", "learn")
    words = ["--port", "0", "--name", "mine", "--max-batch", "3", "--max-queue", "5", "--max-body", "1000"]
    words += [
        "--max-context",
        "100",
        "--allow-origin",
        "http://a",
        "--allow-origin",
        "http://b",
        "--grace",
        "7",
        "--mode",
        "generic",
    ]
    code, out, err = command("serve", *words)
    assert (code, out) == (0, "")
    assert "mine (" in err and "context 100, 3 completions at once" in err and "serving at http://127.0.0.1:" in err
    settings = ran[0].settings
    assert (settings.name, settings.api_key, settings.max_body, settings.grace) == (
        "mine",
        "of the environment",
        1000,
        7,
    )
    assert settings.allow_origins == ["http://a", "http://b"]
    assert ran[0].runner.most == 8 and os.environ["TILEWRIGHT_MODE"] == "generic"
    assert "of the environment" not in err


def test_a_port_for_everybody_without_a_key_is_warned_of(command, ran):
    assert "warning: whoever reaches this port" in command("serve", "--port", "0", "--host", "0.0.0.0")[2]
    assert "warning" not in command("serve", "--port", "0", "--host", "0.0.0.0", "--api-key", "k")[2]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["/no/such/folder"], "/no/such/folder: no such folder"),
        (["--port", "70000"], "port is 70000; it must be from 0 to 65535"),
        (["--host", "no.such.host.invalid"], "give an address of this machine with --host"),
        (["--max-queue", "-1"], "max_queue is -1"),
        (["--max-batch", "0"], "max_batch is 0"),
        (["--api-key", ""], "the API key is empty"),
    ],
)
def test_errors_are_one_line(command, ran, words, says):
    code, out, err = command("serve", "--port", "0", *words)
    assert (code, out) == (2, "") and err.startswith("error: ") and err.count("\n") == 1
    assert says in err


def test_batches_that_meet_every_kernel():
    assert [batches(n, True) for n in (1, 2, 6, 16)] == [[1], [1, 2], [1, 2, 4, 6], [1, 2, 4, 8, 16]]
    assert [batches(n, False) for n in (1, 2, 16)] == [[1], [1, 2], [1, 2]]


def test_load(command):
    with Server(LLM(max_batch=4), port=0) as server:
        words = ["--clients", "3", "--requests", "6", "--max-tokens", "5"]
        code, out, _ = command("load", server.url, *words, "--json")
        found = json.loads(out)
        assert code == 0 and [(x["clients"], x["requests"], x["tokens"]) for x in found] == [(1, 6, 30), (3, 6, 30)]
        code, out, _ = command("load", server.url, *words)
        assert code == 0 and "1 at once: " in out and "3 at once: " in out
        code, _, err = command("load", server.url + "/nothing")
        assert code == 2 and "404" in err
    code, _, err = command("load", server.url)
    assert code == 2 and "nobody answers" in err
    assert command("load", "https://x")[0] == 2 and command("load", server.url, "--requests", "2")[0] == 2
