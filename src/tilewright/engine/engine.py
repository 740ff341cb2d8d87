"""The engine: steps of `schedule(); run(); postprocess()` over whatever requests there are."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from tilewright.engine.remote import RemoteSteps
from tilewright.engine.request import Request
from tilewright.engine.sampling import Sampler, SamplingParams
from tilewright.engine.scheduler import Chunk, Scheduler, Step
from tilewright.engine.text import TextStream
from tilewright.errors import ArgumentError, ContextError
from tilewright.models.decoder import PREFILL_CHUNK, Decoder, Want
from tilewright.models.tokenizer import Tokenizer

if TYPE_CHECKING:
    from tilewright.runtime.learner import Learner

_STEPS = 256  # of which the slowest hundredth is told to what learns


class Engine:
    """Runs up to `max_batch` requests at once on one decoder. Steps exclude each other: threads may share an engine."""

    def __init__(self, decoder: Decoder, tokenizer: Tokenizer | None, max_batch: int, context: int) -> None:
        self.decoder = decoder
        self.tokenizer = tokenizer
        self.context = context
        self.eos_ids = decoder.config.eos_ids
        if tokenizer is not None and tokenizer.eos_id is not None:
            self.eos_ids = (*self.eos_ids, tokenizer.eos_id)
        self.scheduler = Scheduler(max_batch, PREFILL_CHUNK)
        self._cache = decoder.new_cache(max_batch, context)
        self._remote = RemoteSteps(decoder, self._cache) if decoder.memory.remote else None
        self._lock = threading.RLock()
        self._stepping = False
        self._leaving: list[Request] = []  # aborted in the middle of a step
        self._steps: deque[float] = deque(maxlen=_STEPS)  # seconds of the latest
        self.learner: Learner | None = None
        """Told how busy the engine is, so that it makes way; None where nothing is to be learned."""
        self.first_token: float | None = None
        """Seconds from the first request to its first token."""

    def check(self, prompt_ids: Sequence[int]) -> None:
        """Whether `add` would take the prompt: its errors, without waiting for a step that is under way."""
        if len(prompt_ids) >= self.context:
            more = " or raise max_context" if self.context < self.decoder.config.context else ""
            raise ContextError(
                f"the prompt has {len(prompt_ids)} tokens and the context is {self.context}, new tokens included; "
                f"shorten the prompt{more}"
            )
        check_prompt(prompt_ids, self.decoder.config.vocab)

    def add(self, prompt_ids: Sequence[int], params: SamplingParams) -> Request:
        """Queue a prompt. ContextError if it is empty or leaves no room, ArgumentError for ids out of range."""
        self.check(prompt_ids)
        request = self._request(prompt_ids, params)
        with self._lock:
            self.scheduler.add(request)
        return request

    def step(self) -> None:
        """Advance every request that the scheduler picks by one chunk of its prompt, or by one token."""
        with self._lock:
            self._stepping, begun = True, time.perf_counter()
            try:
                step = self.scheduler.schedule()
                self._run(step)
                self._postprocess(step)
            except BaseException:
                self._drop_all()
                raise
            finally:
                self._stepping = False
            self._steps.append(time.perf_counter() - begun)
            if self.learner is not None:
                self._ask_for_room(self.learner)

    def abort(self, request: Request) -> None:
        """Stop a request that is still under way; its completion keeps what it has."""
        with self._lock:
            if self._stepping:  # a stream collected as garbage: rows must not move under the step's feet
                self._leaving.append(request)
            elif not request.finished:
                request.finish("abort")
                self._remove(request)

    def _ask_for_room(self, learner: Learner) -> None:
        """Tell what learns in this process how many requests wait, and how long the slowest steps take."""
        p99 = None if learner.budget.p99 is None else sorted(self._steps)[int(0.99 * (len(self._steps) - 1))]
        learner.pressure(len(self.scheduler.waiting), p99)

    def _request(self, prompt_ids: Sequence[int], params: SamplingParams) -> Request:
        ends = frozenset(params.stop_token_ids or ()) | (frozenset() if params.ignore_eos else frozenset(self.eos_ids))
        return Request(
            prompt_ids=list(prompt_ids),
            params=params,
            sampler=Sampler(params, prompt_ids, self.decoder.config.vocab),
            stream=TextStream(self.tokenizer, prompt_ids, params.stops),
            end_ids=ends,
            context=self.context,
        )

    def _run(self, step: Step) -> None:
        """The passes of the step; each request takes its next token from its logits at once.

        The logits of a pass are overwritten by the next, so they are used before it.
        """
        if step.decode:
            self._decode(step.decode)
        for chunk in step.prefill:
            self._prefill(chunk)

    def _decode(self, requests: Sequence[Request]) -> None:
        if self._remote is not None:
            self._remote.decode(requests)
            return
        logits = self.decoder.decode(self._cache, [r.output_ids[-1] for r in requests])
        for request, row in zip(requests, logits, strict=True):
            request.accept(row)

    def _prefill(self, chunk: Chunk) -> None:
        request, ids = chunk.request, chunk.request.prompt_ids[chunk.start : chunk.stop]
        if chunk.start == 0:
            request.started = time.perf_counter()
            self.decoder.reserve(self._cache, request.row + 1, len(request.prompt_ids) + 1)
            self._cache.clear(request.row)
        if self._remote is not None:
            self._remote.prefill(request, ids, chunk.completes)
            return
        want = Want.LAST if chunk.completes else Want.CACHE
        logits = self.decoder.prefill(self._cache, request.row, ids, want)
        if logits is not None:
            request.accept(logits)

    def _postprocess(self, step: Step) -> None:
        """Take out what has finished, the highest row first so that a row moves at most once more."""
        leaving, self._leaving = self._leaving, []
        for request in leaving:
            if not request.finished:
                request.finish("abort")
        ran = {*step.decode, *(chunk.request for chunk in step.prefill), *leaving}
        if self.first_token is None:
            self.first_token = next((r.first_token - r.created for r in ran if r.first_token), None)
        for request in sorted((r for r in ran if r.finished), key=lambda r: -r.row):
            self._remove(request)

    def _remove(self, request: Request) -> None:
        if 0 <= request.row < self._cache.rows:
            self._cache.clear(request.row)  # what nobody holds has no length
        for move in self.scheduler.remove(request):
            self._cache.move(move.source, move.target)

    def _drop_all(self) -> None:
        """After a failed or interrupted step the cache is in doubt: end what was in it, so that others can go on."""
        scheduler, leaving, self._leaving = self.scheduler, self._leaving, []
        held = [*scheduler.decoding, *([scheduler.prefilling] if scheduler.prefilling else []), *leaving]
        scheduler.decoding.clear()
        scheduler.prefilling = None
        for request in held:
            scheduler.remove(request)  # one that was only waiting
            if not request.finished:
                request.finish("abort")


def check_prompt(prompt_ids: Sequence[int], vocab: int) -> None:
    """ContextError for a prompt without tokens, ArgumentError for one with something that is no token of the model."""
    if not len(prompt_ids):
        raise ContextError("the prompt is empty; give at least one token")
    for i in prompt_ids:
        if isinstance(i, (bool, np.bool_)) or not isinstance(i, (int, np.integer)) or not 0 <= i < vocab:
            raise ArgumentError(f"{i!r} in the prompt is not a token id; ids are integers from 0 to {vocab - 1}")
