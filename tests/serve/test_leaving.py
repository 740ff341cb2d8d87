"""A client that leaves frees its row, before its turn and in the middle, whole answers and streams alike."""

from __future__ import annotations

import json

import pytest

from .client import begin, metric, post, until

PATH = "/v1/completions"
LONG = {"prompt": "abc", "max_tokens": 200, "ignore_eos": True, "temperature": 0}
SHORT = {**LONG, "max_tokens": 3}


@pytest.mark.parametrize("streams", [True, False])
def test_a_row_is_free_again(gated, streams):
    server, gate, llm = gated(max_batch=1)
    client = begin(server, PATH, {**LONG, "stream": streams})
    gate.reached()
    assert llm.engine.scheduler.max_batch == 1 and server.runner.held == 1
    client.close()
    until(lambda: not server.runner._held or next(iter(server.runner._held)).cancelled)
    gate.open.set()
    until(lambda: server.runner.held == 0 and llm.engine.scheduler.idle)
    llm.engine.scheduler.check_integrity()
    assert post(server, PATH, SHORT)[1]["usage"]["completion_tokens"] == 3
    until(lambda: metric(server, "tilewright_completions_total", reason="cancelled") == 1)
    assert metric(server, "tilewright_completions_total", reason="length") == 1


def test_one_that_waits_leaves_the_queue(gated):
    server, gate, llm = gated(max_batch=1)
    first = begin(server, PATH, SHORT)
    gate.reached()
    second, third = begin(server, PATH, {**LONG, "n": 2}), begin(server, PATH, SHORT)
    until(lambda: server.runner.held == 4)
    second.close()
    until(lambda: sum(job.cancelled for job in list(server.runner._held)) == 2)
    gate.open.set()
    for client in (first, third):
        assert json.loads(client.getresponse().read())["usage"]["completion_tokens"] == 3
        client.close()
    assert llm.engine.scheduler.idle
    until(lambda: metric(server, "tilewright_completions_total", reason="cancelled") == 2)
    assert metric(server, "tilewright_prompt_tokens_total") == 6  # what was never begun was never read


def test_a_stream_that_is_dropped_in_the_middle(server):
    before = metric(server, "tilewright_completions_total", reason="cancelled")
    client = begin(server, PATH, {**LONG, "max_tokens": 250, "n": 4, "stream": True})
    response = client.getresponse()
    assert response.readline().startswith(b"data: {")
    response.close()
    client.close()
    until(lambda: server.runner.held == 0)
    ended = sum(metric(server, "tilewright_completions_total", reason=r) for r in ("cancelled", "length"))
    assert ended >= before + 4
    assert post(server, PATH, SHORT)[0] == 200
