"""A request: one prompt on its way through the engine, and the completion that comes out."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from itertools import count

import numpy as np
import numpy.typing as npt

from tilewright.engine.sampling import Sampler, SamplingParams
from tilewright.engine.text import TextStream

_numbers = count()


@dataclass(frozen=True)
class Timings:
    """Seconds from the call: until work began, until the first token, until the last; and the pace after the first."""

    waited: float
    first_token: float
    total: float
    tokens_per_second: float  # new tokens after the first, over the time they took; 0.0 if there are none


@dataclass(frozen=True)
class Completion:
    """What came of a prompt. `finish_reason`: "stop" (end token or stop string), "length", "abort", or None: running.

    `token_ids` are the new tokens, a final end token included; `text` has neither that token nor the stop string.
    `logprobs`, if asked for, holds for every new token a mapping of token id to natural log probability.
    """

    text: str
    token_ids: list[int]
    finish_reason: str | None
    prompt_token_ids: list[int]
    timings: Timings
    logprobs: list[dict[int, float]] | None = None


@dataclass(eq=False)
class Request:
    """State of one prompt.

    `end_ids` are the tokens that end it; `context` bounds prompt and output together; `row` is its place in the KV
    cache and `cached` how many of its tokens are there, once the step under way has run.
    """

    prompt_ids: list[int]
    params: SamplingParams
    sampler: Sampler
    stream: TextStream
    end_ids: frozenset[int]
    context: int
    number: int = field(default_factory=lambda: next(_numbers))
    row: int = -1
    cached: int = 0
    output_ids: list[int] = field(default_factory=list)
    logprobs: list[dict[int, float]] = field(default_factory=list)
    finish_reason: str | None = None
    created: float = field(default_factory=time.perf_counter)
    started: float = 0.0
    first_token: float = 0.0
    last_token: float = 0.0

    @property
    def finished(self) -> bool:
        """Whether no more tokens will come."""
        return self.finish_reason is not None

    @property
    def prompt_left(self) -> int:
        """Prompt tokens that are not in the cache yet."""
        return len(self.prompt_ids) - self.cached

    @property
    def ends_after_next(self) -> bool:
        """Whether the next token is the last that there is room for."""
        return self._full(1)

    def accept(self, logits: npt.NDArray[np.float32]) -> None:
        """Choose the next token from f32[vocab] `logits`; sets `finish_reason` if it is the last."""
        token = self.sampler.choose(logits)
        self._take(token, self.sampler.logprobs(logits, token))

    def accept_token(self, token: int, chances: dict[int, float] | None = None) -> None:
        """Take a token that was chosen elsewhere, with log probabilities if asked for, as `accept` does."""
        self.sampler.count(token)
        self._take(token, chances)

    def _take(self, token: int, chances: dict[int, float] | None) -> None:
        if chances is not None:
            self.logprobs.append(chances)
        self.output_ids.append(token)
        self.last_token = time.perf_counter()
        self.first_token = self.first_token or self.last_token
        if token not in self.end_ids:
            self.stream.push(token)
        if token in self.end_ids or self.stream.stopped:
            self.finish("stop")
        elif self._full():
            self.finish("length")

    def finish(self, reason: str) -> None:
        """No more tokens: settle the text."""
        self.stream.finish()
        self.finish_reason = reason

    def completion(self) -> Completion:
        """The outcome so far."""
        end = self.last_token or time.perf_counter()
        more, seconds = len(self.output_ids) - 1, self.last_token - self.first_token
        timings = Timings(
            waited=(self.started or end) - self.created,
            first_token=(self.first_token or end) - self.created,
            total=end - self.created,
            tokens_per_second=more / seconds if more > 0 and seconds > 0 else 0.0,
        )
        logprobs = list(self.logprobs) if self.params.logprobs is not None else None
        ids, prompt = list(self.output_ids), list(self.prompt_ids)
        return Completion(self.stream.text, ids, self.finish_reason, prompt, timings, logprobs)

    def _full(self, more: int = 0) -> bool:
        """Whether the asked-for number of tokens, or the context, is reached once there are `more`."""
        limit = self.params.max_tokens
        new = len(self.output_ids) + more
        return (limit is not None and new >= limit) or len(self.prompt_ids) + new >= self.context
