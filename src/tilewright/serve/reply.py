"""Replies that come from the engine: whole, or as server-sent events; a client that leaves frees its rows."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Coroutine, Iterable, Sequence
from typing import TYPE_CHECKING, Any

from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from tilewright.serve.answer import Answer
from tilewright.serve.job import Delta, Job
from tilewright.serve.problem import Problem

if TYPE_CHECKING:
    from tilewright.serve.metrics import Metrics
    from tilewright.serve.runner import Runner

_STILL_HERE = 15.0  # seconds after which a stream without news says so, lest something on the way gives it up
_ENCODE = json.JSONEncoder(separators=(",", ":")).encode
_HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),
]


class Inbox:
    """News of the jobs of one HTTP request, in the event loop."""

    def __init__(self, jobs: int) -> None:
        self._news: asyncio.Queue[tuple[int, Delta]] = asyncio.Queue()
        self.running = jobs

    def hear(self, job: Job, delta: Delta) -> None:
        """Take in what a step added."""
        self._news.put_nowait((job.index, delta))

    async def read(self) -> list[tuple[int, Delta]]:
        """All that is new, at least one delta; Problem if the engine gave a job up."""
        found = [await self._news.get()]
        while not self._news.empty():
            found.append(self._news.get_nowait())
        for _, delta in found:
            if delta.error is not None:
                raise Problem.of(delta.error)
            self.running -= delta.last
        return found


class Reply(Response):
    """The answer to `jobs`, which are queued when it is sent, and cancelled if nobody is there to read it."""

    def __init__(self, runner: Runner, jobs: Sequence[Job], inbox: Inbox, answer: Answer, metrics: Metrics) -> None:
        super().__init__()
        self.metrics = metrics
        self.runner, self.jobs, self.inbox, self.answer = runner, jobs, inbox, answer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it. ServerBusy and ArgumentError before anything is sent, if the jobs cannot be queued."""
        self.runner.submit(self.jobs)
        try:
            await _while_there(receive, self._send(scope, receive, send))
        finally:
            self.runner.cancel(self.jobs)
            self.metrics.ended(self.jobs)

    async def _send(self, scope: Scope, receive: Receive, send: Send) -> None:
        while self.inbox.running:
            for index, delta in await self.inbox.read():
                self.answer.choices[index].add(delta)
        response = JSONResponse(self.answer.whole(), headers={"x-request-id": self.answer.id})
        await response(scope, receive, send)


class Events(Reply):
    """The same as a stream of server-sent events."""

    def __init__(self, *of: Any, include_usage: bool) -> None:
        super().__init__(*of)
        self._include_usage = include_usage

    async def _send(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = [*_HEADERS, (b"x-request-id", self.answer.id.encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await _write(send, self._framed(self.answer.begin()))
        try:
            while self.inbox.running:
                await _write(send, await self._next())
        except Problem as problem:
            await _write(send, _event(problem.body))
        else:
            if self._include_usage:
                await _write(send, _event(self.answer.chunk([], self.answer.usage)))
        await send({"type": "http.response.body", "body": b"data: [DONE]\n\n"})

    async def _next(self) -> bytes:
        """The events of what is new; a comment, which clients skip, where nothing is for long."""
        try:
            async with asyncio.timeout(_STILL_HERE):
                news = await self.inbox.read()
        except TimeoutError:
            return b": still here\n\n"
        return b"".join(self._framed(self.answer.chunks(index, delta)) for index, delta in news)

    def _framed(self, chunks: Iterable[dict[str, Any]]) -> bytes:
        """Events of chunks; where the last one will hold the usage, the others say that theirs is none."""
        none = {"usage": None} if self._include_usage else {}
        return b"".join(_event({**chunk, **none}) for chunk in chunks)


def _event(data: dict[str, Any]) -> bytes:
    return f"data: {_ENCODE(data)}\n\n".encode()


async def _write(send: Send, body: bytes) -> None:
    if body:
        await send({"type": "http.response.body", "body": body, "more_body": True})


async def _while_there(receive: Receive, work: Coroutine[Any, Any, None]) -> None:
    """Do `work` unless the client leaves first."""
    doing, leaving = asyncio.ensure_future(work), asyncio.ensure_future(_left(receive))
    try:
        await asyncio.wait((doing, leaving), return_when=asyncio.FIRST_COMPLETED)
        if doing.done():
            doing.result()
    finally:
        for task in (doing, leaving):
            task.cancel()
        await asyncio.gather(doing, leaving, return_exceptions=True)


async def _left(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


__all__ = ["Events", "Inbox", "Reply"]
