"""A job: one completion that a client waits for, and what each step of the engine adds to it."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from tilewright.engine.request import Request
from tilewright.engine.sampling import SamplingParams
from tilewright.errors import EngineFailure, TilewrightError

Logprobs = tuple[int, dict[int, float]]
"""A token, and natural log probabilities of it and of the likeliest ones."""


@dataclass(frozen=True)
class Delta:
    """What a completion has grown by: text, `tokens` new ones, log probabilities where asked for; or how it ended.

    A final end token is counted, and has no text and no log probabilities here.
    """

    text: str = ""
    tokens: int = 0
    logprobs: tuple[Logprobs, ...] = ()
    finish_reason: str | None = None
    error: TilewrightError | None = None

    @property
    def last(self) -> bool:
        """Whether nothing follows."""
        return self.finish_reason is not None or self.error is not None


@dataclass(eq=False)
class Job:
    """A prompt and how to continue it; `hear` is told what is new, in pieces if `streams`, else once at the end.

    `index` is the place of the completion among those of its HTTP request. Times are `time.perf_counter`'s.
    """

    prompt_ids: Sequence[int]
    params: SamplingParams
    hear: Callable[[Job, Delta], None]
    index: int = 0
    streams: bool = False
    created: float = field(default_factory=time.perf_counter)
    request: Request | None = None
    cancelled: bool = False
    _told: int = 0
    _text: int = 0

    def news(self, failure: TilewrightError | None = None) -> Delta | None:
        """What is new since the last call; None where that is nothing, or not to be told yet.

        `failure` says why the engine ended requests that nobody cancelled.
        """
        request = self.request
        assert request is not None
        if not request.finished and not (self.streams and len(request.output_ids) > self._told):
            return None
        if request.finish_reason == "abort":
            return Delta(error=failure or EngineFailure("the engine ended the request; send it again"))
        new, text = request.output_ids[self._told :], request.stream.text[self._text :]
        told = request.logprobs[self._told : self._told + len(new)]
        chances = tuple((i, x) for i, x in zip(new, told, strict=False) if i not in request.end_ids)
        self._told += len(new)
        self._text += len(text)
        return Delta(text, len(new), chances, request.finish_reason)


__all__ = ["Delta", "Job", "Logprobs"]
