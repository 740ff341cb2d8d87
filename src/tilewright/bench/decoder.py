"""A whole model, Llama 3.2 1B's shape, beside transformers: decode, prefill, and peak memory."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np

from tilewright.bench.checkpoint import Shape
from tilewright.bench.operators import OURS, PEER, Bandwidth
from tilewright.bench.result import Result, rounded
from tilewright.errors import MachineError, TilewrightError
from tilewright.runtime.measure import Comparison, compare

if TYPE_CHECKING:
    from tilewright.engine.request import Request

PROMPT_TOKENS = 512
CONTEXT = 4096
STEPS = 4
"""Tokens in one sample of decode; the sides take turns after each sample, every one with its own growing context."""

MEMORY_STEPS = 32


class Side(Protocol):
    """One engine under test: a prompt goes in, then tokens come out one at a time, chosen greedily."""

    def prefill(self, ids: list[int]) -> None:
        """Read a new prompt and choose the first token."""

    def step(self) -> None:
        """Choose one more token."""


class Tilewright:
    """The engine behind `tw.LLM`, a step at a time: scheduling, kernels and sampling, as for a user."""

    def __init__(self, folder: Path) -> None:
        from tilewright.engine.llm import LLM

        self._engine = LLM(folder, max_batch=1, max_context=CONTEXT).engine
        self._request: Request | None = None

    def prefill(self, ids: list[int]) -> None:
        """Read a new prompt and choose the first token."""
        from tilewright.engine.sampling import SamplingParams

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


Sides = Mapping[str, Side]


def decoder_results(folder: Path, shape: Shape, threads: int, bandwidth: Bandwidth, seconds: float) -> Iterator[Result]:
    """Prefill and decode of the checkpoint in `folder`, interleaved with transformers; about `seconds` each."""
    from tilewright.bench.peers import Transformers

    ours, peer = Tilewright(folder), Transformers(folder)
    sides: Sides = {OURS: ours, PEER: peer}
    prefill = time_prefill(sides, shape, seconds)
    name = f"prefill, {PROMPT_TOKENS} tokens"
    yield Result("decoder", name, threads, _rates(prefill, PROMPT_TOKENS), prefill.to_json())
    decode = time_decode(sides, shape, seconds)
    rates = _rates(decode, STEPS)
    per_second = shape.weight_bytes / 1e9
    rates |= rounded(
        {
            "gbs": rates["tokens_per_s"] * per_second,
            "peer_gbs": rates["peer_tokens_per_s"] * per_second,
            "bandwidth": rates["tokens_per_s"] * per_second / bandwidth["read"],
        }
    )
    yield Result("decoder", f"decode, after {PROMPT_TOKENS} tokens", threads, rates, decode.to_json())


def prompts(shape: Shape, seed: int = 0) -> Iterator[list[int]]:
    """Random prompts, each one new, so that nothing can be remembered from the one before."""
    rng = np.random.default_rng(seed)
    while True:
        yield [int(i) for i in rng.integers(3, shape.vocabulary, PROMPT_TOKENS)]


def time_prefill(sides: Sides, shape: Shape, seconds: float) -> Comparison:
    """Prompts of PROMPT_TOKENS up to the first new token, the sides taking turns."""
    fresh = prompts(shape)
    calls = {name: functools.partial(_prefill, side, fresh) for name, side in sides.items()}
    return compare(calls, seconds=seconds, prewarm=False)


def time_decode(sides: Sides, shape: Shape, seconds: float) -> Comparison:
    """Segments of STEPS tokens after one prompt, the sides taking turns; each keeps its own growing context."""
    prompt = next(prompts(shape, seed=1))
    for side in sides.values():
        side.prefill(prompt)
    calls = {name: functools.partial(_steps, side) for name, side in sides.items()}
    return compare(calls, seconds=seconds, prewarm=False)


def _prefill(side: Side, fresh: Iterator[list[int]]) -> None:
    side.prefill(next(fresh))


def _steps(side: Side) -> None:
    for _ in range(STEPS):
        side.step()


def _rates(comparison: Comparison, tokens: int) -> dict[str, float]:
    """Tokens a second of both sides and their ratio, from samples of `tokens` tokens each."""
    ratio = comparison.ratio(PEER, to=OURS)
    return rounded(
        {
            "tokens_per_s": tokens / comparison.median_ns(OURS) * 1e9,
            "peer_tokens_per_s": tokens / comparison.median_ns(PEER) * 1e9,
            "ratio": ratio.median,
            "ratio_low": ratio.low,
            "ratio_high": ratio.high,
            "noise": comparison.noise,
        }
    )


def memory_result(folder: Path, shape: Shape, threads: int) -> Result:
    """Peak resident memory of this process after a prompt and some tokens, against weights plus KV cache.

    For a process of its own that runs Tilewright alone.
    """
    side = Tilewright(folder)
    side.prefill(next(prompts(shape)))
    for _ in range(MEMORY_STEPS):
        side.step()
    peak, need = peak_resident_bytes(), shape.weight_bytes + shape.kv_bytes(PROMPT_TOKENS + MEMORY_STEPS)
    values = {"peak_mb": peak / 1e6, "need_mb": need / 1e6, "peak_over_need": peak / need}
    return Result("memory", "peak resident memory", threads, rounded(values))


def peak_resident_bytes() -> int:
    """The most memory this process ever had resident.

    From /proc: getrusage would count what the parent held when it started this process. Raises MachineError
    where there is no /proc.
    """
    try:
        found = re.search(r"^VmHWM:\s*(\d+) kB", Path("/proc/self/status").read_text(), re.MULTILINE)
    except OSError:
        found = None
    if not found:
        raise MachineError("peak memory is read from /proc/self/status, which this system lacks; run it on Linux")
    return int(found[1]) * 1024
