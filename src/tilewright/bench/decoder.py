"""A whole model, Llama 3.2 1B's shape, beside transformers: prefill, and decode under the roof of reading memory."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from tilewright.bench import engine_side
from tilewright.bench.cases import OURS, PEER
from tilewright.bench.checkpoint import Shape
from tilewright.bench.engine_side import Side, Tilewright, prompts
from tilewright.bench.result import Result, rounded
from tilewright.bench.roof import Roof, described, shares
from tilewright.runtime.measure import Comparison, compare

STEPS = 4
"""Tokens in one sample of decode; the sides take turns after each sample, every one with its own growing context."""

Sides = Mapping[str, Side]


def decoder_results(
    folder: Path, shape: Shape, threads: int, roof: Roof, seconds: float, *, prefill: bool = True
) -> Iterator[Result]:
    """Prefill (unless told otherwise) and decode of the checkpoint in `folder`, interleaved with transformers.

    About `seconds` each. `roof` holds the stream `read`, which takes its turns with decode.
    """
    from tilewright.bench.peers import Transformers

    sides: Sides = {OURS: Tilewright(folder), PEER: Transformers(folder)}
    if prefill:
        timed = time_prefill(sides, shape, seconds)
        rates = _rates(timed, engine_side.PROMPT_TOKENS)
        yield Result("decoder", prefill_name(shape), threads, rates, timed.to_json())
    timed = time_decode(sides, shape, roof, seconds)
    rates = {**_rates(timed, STEPS), **_traffic(timed, shape, roof)}
    yield Result("decoder", decode_name(shape), threads, rates, {**timed.to_json(), "streams": described(roof)})


def prefill_name(shape: Shape) -> str:
    """How the result of prefill is called."""
    return f"prefill, {engine_side.PROMPT_TOKENS} tokens{_suffix(shape)}"


def decode_name(shape: Shape) -> str:
    """How the result of decode is called."""
    return f"decode, after {engine_side.PROMPT_TOKENS} tokens{_suffix(shape)}"


def _suffix(shape: Shape) -> str:
    """What tells a smaller model from the whole one."""
    return "" if shape == Shape() else f", {shape.layers} layers"


def time_prefill(sides: Sides, shape: Shape, seconds: float) -> Comparison:
    """Prompts of PROMPT_TOKENS up to the first new token, the sides taking turns."""
    fresh = prompts(shape)
    calls = {name: functools.partial(_prefill, side, fresh) for name, side in sides.items()}
    return compare(calls, seconds=seconds, prewarm=False)


def time_decode(sides: Sides, shape: Shape, roof: Roof, seconds: float) -> Comparison:
    """Segments of STEPS tokens after one prompt, the sides and `roof` taking turns; each side's context grows."""
    prompt = next(prompts(shape, seed=1))
    for side in sides.values():
        side.prefill(prompt)
    calls: dict[str, Callable[[], object]] = {name: functools.partial(_steps, side) for name, side in sides.items()}
    return compare({**calls, **roof}, seconds=seconds, prewarm=False)


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


def _traffic(comparison: Comparison, shape: Shape, roof: Roof) -> dict[str, float]:
    """GB/s of both sides and the share of the roof; the weights count, once a token, the KV cache does not."""
    moved = STEPS * shape.weight_bytes
    rates = {"gbs": moved / comparison.median_ns(OURS), "peer_gbs": moved / comparison.median_ns(PEER)}
    return rounded({**rates, **shares(comparison, moved, roof)})
