"""What stands before the routes: who may ask, and how large a body may be."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
from collections.abc import Collection
from typing import TYPE_CHECKING, Any

from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tilewright.serve.problem import Problem

if TYPE_CHECKING:
    from tilewright.serve.metrics import Metrics

OPEN = ("/health",)
"""Paths that need no key: they tell nothing but that the server lives."""
_BODY_SECONDS = 60.0  # for a whole body to arrive


class Guard:
    """Lets in who sends the key, if there is one, and counts every answer by path and status."""

    def __init__(self, app: ASGIApp, *, key: str | None, paths: Collection[str], metrics: Metrics) -> None:
        self._app, self._paths, self._metrics = app, frozenset(paths), metrics
        self._key = None if key is None else _digest(key.encode())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        path = scope["path"]

        async def counted(message: Message) -> None:
            if message["type"] == "http.response.start":
                known = path if path in self._paths else "other"  # labels that anybody can make up have no bound
                self._metrics.requests.labels(known, str(message["status"])).inc()
            await send(message)

        if path in OPEN or self._key is None or self._knows(Headers(scope=scope).get("authorization", "")):
            await self._app(scope, receive, counted)
            return
        problem = Problem(
            "the API key is missing or wrong; send the header 'Authorization: Bearer KEY'",
            status=401,
            code="invalid_api_key",
        )
        await answer(problem)(scope, receive, counted)

    def _knows(self, authorization: str) -> bool:
        """Whether the header holds the key; how long that takes tells nothing of the key, not even its length."""
        scheme, _, given = authorization.partition(" ")
        same = hmac.compare_digest(_digest(given.strip().encode("latin-1", "replace")), self._key or b"")
        return same and scheme.lower() == "bearer"


class _Ascii(JSONResponse):
    """JSON that can be sent whatever is in it: messages repeat what clients wrote, halves of characters included."""

    def render(self, content: Any) -> bytes:
        return json.dumps(content).encode()


def answer(problem: Problem) -> JSONResponse:
    """The answer that tells a problem."""
    headers = {"retry-after": str(problem.retry)} if problem.retry is not None else {}
    if problem.status == 401:
        headers["www-authenticate"] = "Bearer"
    return _Ascii(problem.body, problem.status, headers)


async def read_json(request: Request, most_bytes: int) -> dict[str, Any]:
    """The body of a request as an object. Problem for one that is too large, too slow, or no JSON object."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":  # nor can a page of somebody else's send anything else without being asked first
        raise Problem(
            f"the body's type is {kind[:60] or 'missing'}; send JSON with the header 'Content-Type: application/json'",
            status=415,
        )
    try:
        async with asyncio.timeout(_BODY_SECONDS):
            raw = await _read(request, most_bytes)
    except TimeoutError:
        raise Problem(f"the body did not arrive within {_BODY_SECONDS:.0f} s; send it at once", status=408) from None
    try:
        body = json.loads(raw, parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        raise Problem(f"the body is no JSON: {error}; send one object") from None
    if not isinstance(body, dict):
        raise Problem('the body is JSON, but no object; send one object, as in {"prompt": "..."}')
    return body


async def _read(request: Request, most_bytes: int) -> bytes:
    too_large = Problem(
        f"the body is larger than {most_bytes} bytes; send less, or start the server with a larger --max-body",
        status=413,
    )
    declared = request.headers.get("content-length", "0")
    if declared.isascii() and declared.isdigit() and int(declared) > most_bytes:
        raise too_large
    parts, size = [], 0
    async for part in request.stream():
        size += len(part)
        if size > most_bytes:
            raise too_large
        parts.append(part)
    return b"".join(parts)


def _no_number(name: str) -> float:
    raise ValueError(f"{name} is no number of JSON")


def _digest(key: bytes) -> bytes:
    return hashlib.sha256(key).digest()


__all__ = ["Guard", "answer", "read_json"]
