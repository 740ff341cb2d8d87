"""`tilewright bench llm`: a whole model on a GPU beside transformers, eager and compiled, in the same rounds.

Shapes of Llama with random weights in bf16, which all sides read from the same memory. Decode goes on after prompts of
512 tokens; a sample is some steps of every request. Before anything is timed, logits are held against those of
transformers in f32.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from tilewright.bench.checkpoint import Shape
from tilewright.bench.llm_cases import (
    COMPILED,
    EAGER,
    MODELS,
    PROMPT_TOKENS,
    ROUNDS,
    STEPS,
    decode_name,
    prefill_name,
    start_name,
)
from tilewright.bench.result import Result, rounded
from tilewright.engine.engine import Engine
from tilewright.engine.request import Request
from tilewright.engine.sampling import SamplingParams
from tilewright.errors import TilewrightError, VerificationError
from tilewright.models.config import ModelConfig
from tilewright.models.decoder import Decoder
from tilewright.runtime.cuda.gpu import Gpu
from tilewright.runtime.measure import Comparison, compare

OURS = "tilewright"
_CLOSE = 1.5
"""How much further from logits in f32 ours may be than transformers' own: both round to bf16 in every layer."""
COMPILE_LIMIT = 90.0
"""Seconds after which torch.compile is given up."""


def llm_results(model: str, batch: int, parts: Sequence[str], compiled: bool, seconds: float) -> Iterator[Result]:
    """The `parts` (families) asked for of one model and batch; `seconds` for each comparison, at least."""
    from tilewright.bench.llm_peers import Eager, drawn_model, shared_weights

    shape = MODELS[model]
    theirs, config = drawn_model(shape), ModelConfig.from_dict(shape.config())
    decoder = Decoder(config, shared_weights(theirs, config), memory=Gpu(0))
    sides: dict[str, Any] = {OURS: Ours(decoder, batch), EAGER: Eager(theirs)}
    off = check(decoder, theirs, shape, batch)
    if "llm_prefill" in parts:
        yield _prefill(model, shape, sides, off, seconds)
    if "llm_decode" in parts:
        more, missing = _compiled(theirs, _prompts(shape, batch, 0)) if compiled else ({}, None)
        result = _decode(model, shape, batch, sides | more, off, seconds)
        yield result if missing is None else replace(result, raw={**result.raw, "left_out": missing})


class Ours:
    """The engine behind `tw.LLM`: scheduling, kernels and sampling, as for a user."""

    def __init__(self, decoder: Decoder, batch: int) -> None:
        self._decoder = decoder
        self._engine = Engine(decoder, None, batch, 4096)
        self._requests: list[Request] = []

    def prefill(self, prompts: list[list[int]]) -> None:
        """Read new prompts and choose the first token of each."""
        for request in self._requests:
            self._engine.abort(request)
        params = SamplingParams(max_tokens=None, temperature=0.0, ignore_eos=True)
        self._requests = [self._engine.add(ids, params) for ids in prompts]
        while not all(r.output_ids for r in self._requests):
            self._engine.step()
        self._decoder.memory.wait()

    def steps(self, count: int) -> None:
        """Choose so many more tokens for each prompt; what was queued ahead is waited for, too."""
        for _ in range(count):
            self._engine.step()
        self._decoder.memory.wait()


def first_token_seconds(folder: Path, repeats: int = 3) -> list[float]:
    """Seconds from the start of a process until it has the first token of the model in `folder`, kernels cached."""
    code = (
        "import sys, tilewright as tw; llm = tw.LLM(sys.argv[1], device='cuda', max_batch=1);"
        "print(llm.generate([list(range(3, 67))], tw.SamplingParams(max_tokens=1, temperature=0))[0].token_ids)"
    )
    samples = []
    for _ in range(repeats + 1):  # the first one compiles
        begun = time.perf_counter()
        run = subprocess.run([sys.executable, "-c", code, str(folder)], capture_output=True, text=True, check=False)
        samples.append(time.perf_counter() - begun)
        if run.returncode:
            raise TilewrightError(f"the process that was to give a token ended with: {run.stderr.strip()[-500:]}")
    return samples[1:]


def first_token(folder: str, model: str) -> Iterator[Result]:
    """The wait for the first token of a checkpoint on disk, in a process of its own."""
    samples = first_token_seconds(Path(folder))
    yield Result("llm_start", start_name(model), 1, rounded({"s": float(np.median(samples))}), {"samples_s": samples})


# ------------------------------------------------------------------------------------------------- parts
def _prompts(shape: Shape, batch: int, seed: int) -> list[list[int]]:
    drawn = np.random.default_rng(seed).integers(3, shape.vocabulary, (batch, PROMPT_TOKENS))
    return [[int(i) for i in row] for row in drawn]


def check(decoder: Decoder, theirs: Any, shape: Shape, batch: int) -> dict[str, float]:
    """How far logits are from transformers' in f32, as shares of their size: ours of a prompt, ours of a step, theirs.

    The step is of `batch` sequences that are alike. VerificationError where ours are much further off than theirs.
    """
    from tilewright.bench.llm_peers import Eager, in_f32

    ids = [3, *_prompts(shape, 1, 99)[0]]
    rough = Eager(theirs).logits(ids, 2)
    with in_f32(theirs) as exact_model:
        exact = Eager(exact_model).logits(ids, 2)
    prompt, step = _ours(decoder, ids, batch)
    found = {"prompt": [prompt - exact[0]], "step": step - exact[1], "theirs": rough - exact}
    off = {f"off_{name}": max(map(_rms, rows)) / _rms(exact) for name, rows in found.items()}
    if not max(off.values()) <= _CLOSE * off["off_theirs"]:
        told = ", ".join(f"{name} {share:.4f}" for name, share in off.items())
        raise VerificationError(f"logits are off by {told} of their size; {_CLOSE} of theirs is the most")
    return off


def _ours(decoder: Decoder, ids: list[int], batch: int) -> tuple[Any, Any]:
    """f32[vocab] logits of the last token but one, in a prompt; f32[batch, vocab] of the last one, as a step."""
    cache = decoder.new_cache(batch, len(ids))
    decoder.reserve(cache, batch, len(ids))
    for row in range(batch):
        prompt = decoder.prefill(cache, row, ids[:-1])
    assert prompt is not None
    return prompt.copy(), decoder.decode(cache, ids[-1:] * batch)  # which overwrites what came before


def _rms(x: Any) -> float:
    return float(np.sqrt(np.mean(np.square(x, dtype=np.float64))))


def _prefill(model: str, shape: Shape, sides: dict[str, Any], off: dict[str, float], seconds: float) -> Result:
    seeds = iter(range(1, 1 << 30))
    calls: dict[str, Callable[[], object]] = {name: partial(_read, side, shape, seeds) for name, side in sides.items()}
    timed = compare(calls, seconds=seconds, prewarm=False)
    metrics = {"ms": timed.median_ns(OURS) / 1e6, **_peers(timed, 1), "noise": timed.noise, **off}
    return Result("llm_prefill", prefill_name(model), 1, rounded(metrics), timed.to_json())


def _read(side: Any, shape: Shape, seeds: Iterator[int]) -> None:
    side.prefill(_prompts(shape, 1, next(seeds)))


def _compiled(theirs: Any, prompts: list[list[int]]) -> tuple[dict[str, Any], str | None]:
    """The compiled peer, compiled; none, and why, where it fails or takes longer than anyone would wait."""
    from tilewright.bench.llm_peers import Compiled

    side = Compiled(theirs)
    try:
        with time_limit(COMPILE_LIMIT):
            for _ in range(2):  # the second prompts meet the cache that the first left
                side.prefill(prompts)
                side.steps(2)  # compiles at the first one, and captures at the second
    except Exception as error:  # whatever it is, ours is to be timed; the compiler wraps what interrupts it
        return {}, f"torch.compile, within {COMPILE_LIMIT:.0f} s: {type(error).__name__}: {error}"[:500]
    return {COMPILED: side}, None


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """TimeoutError inside the `with` block once it has taken so long; on the main thread only."""

    def stop(*_: object) -> None:
        raise TimeoutError(f"more than {seconds} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _decode(
    model: str, shape: Shape, batch: int, sides: dict[str, Any], off: dict[str, float], seconds: float
) -> Result:
    for side in sides.values():
        side.prefill(_prompts(shape, batch, 0))
        side.steps(STEPS)  # compiles what is compiled at the first step
    calls: dict[str, Callable[[], object]] = {n: partial(side.steps, STEPS) for n, side in sides.items()}
    timed = compare(calls, seconds=seconds, prewarm=False, min_rounds=ROUNDS)
    step = timed.median_ns(OURS) / STEPS
    metrics = {
        "us": step / 1e3, "tokens_per_s": batch * 1e9 / step, "gbs": shape.weight_bytes / step, **_peers(timed, STEPS),
        "noise": timed.noise, **off,
    }  # fmt: skip
    return Result("llm_decode", decode_name(model, batch), 1, rounded(metrics), timed.to_json())


def _peers(timed: Comparison, steps: int) -> dict[str, float]:
    """For each peer: its milliseconds for a step, and our time over its time with the interval of that."""
    metrics: dict[str, float] = {}
    for name in (EAGER, COMPILED):
        if name in timed.samples:
            ratio = timed.ratio(OURS, to=name)
            metrics |= {f"{name}_ms": timed.median_ns(name) / steps / 1e6, f"of_{name}": ratio.median}
            metrics |= {f"of_{name}_low": ratio.low, f"of_{name}_high": ratio.high}
    return metrics


__all__ = ["Ours", "check", "first_token", "first_token_seconds", "llm_results", "time_limit"]
