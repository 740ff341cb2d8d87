"""A client of the server in the standard library alone: what goes over the wire is looked at as it is."""

from __future__ import annotations

import http.client
import json
import time
from contextlib import closing, contextmanager
from urllib.parse import urlsplit

JSON = {"Content-Type": "application/json"}
PATIENCE = 60  # seconds until a test that hangs fails


@contextmanager
def sent(server, method, path, body=None, headers=JSON):
    """A response whose body is still to be read; leaving closes the connection."""
    data = body if isinstance(body, (bytes, type(None))) else json.dumps(body).encode()
    with closing(http.client.HTTPConnection(urlsplit(server.url).netloc, timeout=PATIENCE)) as connection:
        connection.request(method, path, data, headers)
        yield connection.getresponse()


def begin(server, path, body):
    """A connection with a request under way."""
    connection = http.client.HTTPConnection(urlsplit(server.url).netloc, timeout=PATIENCE)
    connection.request("POST", path, json.dumps(body).encode(), JSON)
    return connection


def get(server, path, **headers):
    """Status and JSON."""
    with sent(server, "GET", path, headers=headers) as response:
        return response.status, json.loads(response.read())


def post(server, path, body, headers=JSON):
    """Status and JSON."""
    with sent(server, "POST", path, body, headers) as response:
        return response.status, json.loads(response.read())


def events(response):
    """The data of each event of a stream, the last one `[DONE]`; every line is data or ends an event."""
    lines = response.read().decode().split("\n")
    assert lines[1::2] == [""] * (len(lines) // 2) and lines[-1] == ""
    data = [line.removeprefix("data: ") for line in lines[:-1:2]]
    assert all(line.startswith("data: ") for line in lines[:-1:2])
    assert data[-1] == "[DONE]"
    return [json.loads(d) for d in data[:-1]]


def stream(server, path, **body):
    """The chunks of a stream."""
    with sent(server, "POST", path, {**body, "stream": True}) as response:
        assert (response.status, response.getheader("content-type")) == (200, "text/event-stream; charset=utf-8")
        return events(response)


def until(condition):
    """Wait for what another thread does soon."""
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, "it did not come about"
        time.sleep(0.005)


def metric(server, name, **labels):
    """The value of a metric; 0 where nothing was counted."""
    with sent(server, "GET", "/metrics") as response:
        text = response.read().decode()
    wanted = name + ("{" + ",".join(f'{k}="{v}"' for k, v in sorted(labels.items())) + "}" if labels else "")
    return next((float(line.rpartition(" ")[2]) for line in text.splitlines() if line.startswith(wanted + " ")), 0.0)
