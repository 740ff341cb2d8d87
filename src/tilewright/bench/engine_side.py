"""Tilewright as the whole-model bench drives it: a prompt in, tokens out one at a time. torch stays out of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import numpy as np

from tilewright.bench.checkpoint import Shape
from tilewright.engine.llm import LLM
from tilewright.engine.request import Request
from tilewright.engine.sampling import SamplingParams
from tilewright.errors import TilewrightError

PROMPT_TOKENS = 512
CONTEXT = 4096


class Side(Protocol):
    """One engine under test: a prompt goes in, then tokens come out one at a time, chosen greedily."""

    def prefill(self, ids: list[int]) -> None:
        """Read a new prompt and choose the first token."""

    def step(self) -> None:
        """Choose one more token."""


class Tilewright:
    """The engine behind `tw.LLM`, a step at a time: scheduling, kernels and sampling, as for a user."""

    def __init__(self, folder: Path) -> None:
        self._engine = LLM(folder, max_batch=1, max_context=CONTEXT).engine
        self._request: Request | None = None

    def prefill(self, ids: list[int]) -> None:
        """Read a new prompt and choose the first token."""
        if self._request is not None:
            self._engine.abort(self._request)
        self._request = self._engine.add(ids, SamplingParams(max_tokens=None, temperature=0.0, ignore_eos=True))
        while not self._request.output_ids:
            self._engine.step()

    def step(self) -> None:
        """Choose one more token; TilewrightError once the context is full."""
        assert self._request is not None
        if self._request.finished:
            raise TilewrightError(f"the context of {CONTEXT} tokens is full; measure for a shorter time")
        self._engine.step()


def prompts(shape: Shape, seed: int = 0) -> Iterator[list[int]]:
    """Random prompts of PROMPT_TOKENS, each one new, so that nothing can be remembered from the one before."""
    rng = np.random.default_rng(seed)
    while True:
        yield [int(i) for i in rng.integers(3, shape.vocabulary, PROMPT_TOKENS)]
