"""What a server does under load: the same requests by one client after the other, and by many at once."""

from __future__ import annotations

import http.client
import json
import statistics
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import asdict, dataclass
from urllib.parse import urlsplit

from tilewright.errors import ArgumentError

PROMPTS = ("def fibonacci(n):", "import os\n", "class Queue:\n", "for line in open(path):\n    ", "def read(path):\n")
_PATIENCE = 600.0


@dataclass(frozen=True)
class Reading:
    """One answer: seconds until its first piece and until its end, and its new tokens."""

    first: float
    whole: float
    tokens: int


@dataclass(frozen=True)
class Load:
    """What `clients` at once got: all times in seconds, of `requests` requests in all."""

    clients: int
    requests: int
    tokens: int
    seconds: float
    tokens_per_second: float
    first_median: float
    first_p99: float
    whole_median: float

    def to_dict(self) -> dict[str, float]:
        """Plain data for JSON."""
        return asdict(self)


def measure(url: str, clients: int, requests: int, max_tokens: int, key: str | None = None) -> Load:
    """Send `requests` streams of `max_tokens` new tokens each, by `clients` at once, to the server at base URL `url`.

    Prompts and seeds are the same each time. ArgumentError where nobody answers, or an answer is an error.
    """
    if clients < 1 or requests < clients:
        raise ArgumentError(f"{requests} requests of {clients} clients: give at least one request for each client")
    begun = time.perf_counter()
    with ThreadPoolExecutor(clients) as pool:
        found = list(pool.map(lambda i: _ask(url, key, i, max_tokens), range(requests)))
    return _summed(clients, found, time.perf_counter() - begun)


def _summed(clients: int, found: Sequence[Reading], seconds: float) -> Load:
    firsts, tokens = sorted(r.first for r in found), sum(r.tokens for r in found)
    return Load(
        clients,
        len(found),
        tokens,
        seconds,
        tokens / seconds,
        statistics.median(firsts),
        firsts[int(0.99 * (len(firsts) - 1))],
        statistics.median(r.whole for r in found),
    )


def _ask(url: str, key: str | None, number: int, max_tokens: int) -> Reading:
    body = {
        "prompt": PROMPTS[number % len(PROMPTS)],
        "max_tokens": max_tokens,
        "seed": number,
        "ignore_eos": True,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    headers = {"Content-Type": "application/json", **({"Authorization": f"Bearer {key}"} if key else {})}
    begun, first, tokens = time.perf_counter(), 0.0, 0
    for chunk in _chunks(url, json.dumps(body).encode(), headers):
        first = first or time.perf_counter() - begun
        tokens = (chunk.get("usage") or {}).get("completion_tokens", tokens)
    return Reading(first, time.perf_counter() - begun, tokens)


def _chunks(url: str, body: bytes, headers: dict[str, str]) -> Iterator[dict[str, dict[str, int]]]:
    parts = urlsplit(url)
    if parts.scheme != "http" or not parts.netloc:
        raise ArgumentError(f"{url!r} is no base URL; give one such as http://127.0.0.1:8000/v1")
    try:
        with closing(http.client.HTTPConnection(parts.netloc, timeout=_PATIENCE)) as connection:
            connection.request("POST", f"{parts.path.rstrip('/')}/completions", body, headers)
            response = connection.getresponse()
            if response.status != 200:
                raise ArgumentError(f"{url}: {response.status}, {response.read(500).decode(errors='replace')}")
            for line in response:
                if line.startswith(b"data: {"):
                    yield json.loads(line[6:])
    except OSError as error:
        raise ArgumentError(f"{url}: nobody answers ({error}); start one with: tilewright serve") from None


__all__ = ["Load", "measure"]
