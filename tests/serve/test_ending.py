"""A server that is told to end lets running requests end, for as long as it was told; a second signal cuts them."""

from __future__ import annotations

import http.client
import re
import signal
import subprocess
import sys
import threading
from contextlib import closing
from types import SimpleNamespace

import pytest

from tilewright.engine.llm import LLM
from tilewright.errors import ArgumentError, MissingPackage
from tilewright.serve.server import Server, listen

from .client import begin, events, get, post, sent, until

PATH = "/v1/completions"
SHORT = {"prompt": "abc", "max_tokens": 3, "ignore_eos": True}


def told_to_end(server):
    """The end of a server, under way in a thread."""
    thread = threading.Thread(target=server.__exit__)
    thread.start()
    until(lambda: server.runner._closing)
    return thread


def test_running_requests_end(gated):
    server, gate, _ = gated()
    with sent(server, "POST", PATH, {**SHORT, "stream": True}) as response:
        gate.reached()
        ending = told_to_end(server)
        assert not server.runner.healthy
        with pytest.raises(OSError):
            get(server, "/health")  # nobody is let in any more
        gate.open.set()
        assert events(response)[-1]["choices"][0]["finish_reason"] == "length"
    ending.join(60)
    assert not ending.is_alive()


@pytest.mark.parametrize("streams", [True, False])
def test_not_for_ever(gated, streams):
    server, gate, _ = gated(grace=0.0)
    with closing(begin(server, PATH, {**SHORT, "stream": streams})) as client:
        gate.reached()
        ending = told_to_end(server)
        until(lambda: server.runner._ending)
        gate.open.set()
        response = client.getresponse()
        text = response.read().decode()
    assert response.status == (200 if streams else 503)
    assert "the server is shutting down; send the request again" in text
    ending.join(60)
    assert not ending.is_alive()


def test_a_second_signal_cuts_them(gated):
    server, gate, llm = gated()
    with sent(server, "POST", PATH, {**SHORT, "stream": True}) as response:
        gate.reached()
        server._server.handle_exit(signal.SIGINT, None)
        until(lambda: server.runner._closing)
        server._server.handle_exit(signal.SIGINT, None)
        gate.open.set()
        text = response.read().decode()
    assert "the server is shutting down" in text and text.endswith("data: [DONE]\n\n")
    server.__exit__()
    assert llm.engine.scheduler.idle and server.runner.held == 0


def test_a_third_signal_waits_for_nothing(gated):
    server, gate, llm = gated()
    with sent(server, "POST", PATH, {**SHORT, "stream": True}) as response:
        gate.reached()
        for _ in range(3):
            server._server.handle_exit(signal.SIGINT, None)
        with pytest.raises((http.client.IncompleteRead, ConnectionError)):
            response.read()
    server.__exit__()  # although the step under way has not ended
    gate.open.set()
    server.runner.join()
    assert llm.engine.scheduler.idle and server.runner.held == 0


def test_the_port_is_free_again(folder):
    llm = LLM(folder, max_batch=1)
    with Server(llm, port=0) as server:
        port = int(re.search(r":(\d+)/v1$", server.url)[1])
        with pytest.raises(
            ArgumentError, match=rf"port {port} of 127.0.0.1 cannot be taken .*; give another with --port"
        ):
            Server(llm, port=port)
    with Server(llm, port=port) as again:
        assert post(again, PATH, SHORT)[0] == 200


def test_an_address_of_somebody_else():
    with pytest.raises(ArgumentError, match=r"host 'no.such.host.invalid'"):
        listen("no.such.host.invalid", 0)


@pytest.mark.parametrize(
    "wrong",
    [{"port": -1}, {"port": 65536}, {"max_queue": -1}, {"max_body": 0}, {"grace": -1}, {"name": ""}, {"api_key": ""}],
)
def test_settings_out_of_range(folder, wrong):
    with pytest.raises(ArgumentError, match=r"must be from|empty"):
        Server(LLM(folder, max_batch=1), **{"port": 0, **wrong})


def test_without_the_packages(folder, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    says = r"the server needs starlette, uvicorn, prometheus_client: pip install 'tilewright\[serve\]'"
    with pytest.raises(MissingPackage, match=says):
        Server(LLM(folder, max_batch=1), port=0)


@pytest.fixture
def process(folder):
    """`tilewright serve` as a process: its url, and how it ended."""
    command = [sys.executable, "-m", "tilewright", "serve", str(folder), "--port", "0", "--max-context", "200"]
    running = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    said = []
    for line in running.stderr:
        said.append(line)
        if found := re.search(r"serving at (\S+)", line):
            break
    else:
        pytest.fail("".join(said))
    yield SimpleNamespace(url=found[1], process=running, said=said)
    running.kill()
    running.communicate()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals(process, number):
    assert post(process, PATH, {**SHORT, "model": "tiny"})[0] == 200
    assert any("context 200, 16 completions at once" in line for line in process.said)
    with sent(process, "POST", PATH, {**SHORT, "max_tokens": 190, "stream": True}) as response:
        process.process.send_signal(number)
        assert events(response)[-1]["choices"][0]["finish_reason"] == "length"
    _, error = process.process.communicate(timeout=60)
    assert process.process.returncode == 0
    assert "Traceback" not in error
