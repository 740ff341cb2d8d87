"""Which requests take part in the next step. Policy only: it knows rows and counts, no tensors.

Rows of the KV cache are packed: requests that decode hold rows 0 .. n-1, so that a decode step is one launch over a
prefix of the cache; the one request that is being prefilled holds row n.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from tilewright.engine.request import Request


@dataclass(frozen=True)
class Chunk:
    """Part of a prompt to be prefilled: tokens `start` to `stop` of `request`."""

    request: Request
    start: int
    stop: int

    @property
    def completes(self) -> bool:
        """Whether the prompt ends with this chunk, so that its logits give the first new token."""
        return self.stop == len(self.request.prompt_ids)


@dataclass(frozen=True)
class Step:
    """One step's work: chunks to prefill in order, then one token for each request in `decode` (rows 0, 1, ...)."""

    prefill: tuple[Chunk, ...]
    decode: tuple[Request, ...]


@dataclass(frozen=True)
class Move:
    """The engine must copy row `source` of the cache to `target`."""

    source: int
    target: int


class Scheduler:
    """Continuous batching: first come, first served, at most `chunk` prompt tokens a step beside the decodes."""

    def __init__(self, max_batch: int, chunk: int) -> None:
        self.max_batch = max_batch
        self.chunk = chunk
        self.waiting: deque[Request] = deque()
        self.prefilling: Request | None = None
        self.decoding: list[Request] = []

    @property
    def idle(self) -> bool:
        """Whether there is nothing to do."""
        return not (self.waiting or self.prefilling or self.decoding)

    def add(self, request: Request) -> None:
        """Queue a request."""
        self.waiting.append(request)

    def schedule(self) -> Step:
        """The next step. Requests whose prompt ends in it decode from the step after."""
        decode, chunks, budget = tuple(self.decoding), [], self.chunk
        while budget > 0 and (request := self._next_to_prefill()) is not None:
            take = min(budget, request.prompt_left)
            chunks.append(Chunk(request, request.cached, request.cached + take))
            request.cached += take
            budget -= take
            if not request.prompt_left:
                self.decoding.append(request)
                self.prefilling = None
        for request in decode:
            request.cached += 1
        return Step(tuple(chunks), decode)

    def remove(self, request: Request) -> list[Move]:
        """Take out a request, wherever it is; returns the moves, in order, that keep the rows packed."""
        if request is self.prefilling:
            self.prefilling = None
            return []
        if request not in self.decoding:
            if request in self.waiting:
                self.waiting.remove(request)
            return []
        moves, hole = [], request.row
        last = self.decoding.pop()
        if last is not request:
            moves.append(_relocate(last, hole))
            self.decoding[hole] = last
        if self.prefilling is not None:
            moves.append(_relocate(self.prefilling, len(self.decoding)))
        return moves

    def check_integrity(self) -> None:
        """Assert the packing of rows; for tests and for idle moments."""
        held = [*self.decoding, *([self.prefilling] if self.prefilling else [])]
        assert [r.row for r in held] == list(range(len(held))) and len(held) <= self.max_batch
        assert not any(r.finished for r in held)

    def _next_to_prefill(self) -> Request | None:
        """The request to prefill now: the one begun, else the first that waits if a row is free."""
        if self.prefilling is None and self.waiting and len(self.decoding) < self.max_batch:
            self.prefilling = self.waiting.popleft()
            self.prefilling.row = len(self.decoding)
        return self.prefilling


def _relocate(request: Request, row: int) -> Move:
    move = Move(request.row, row)
    request.row = row
    return move
