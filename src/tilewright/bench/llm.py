"""`tilewright bench llm`: a whole model on a GPU beside transformers, eager and compiled, in the same rounds.

Shapes of Llama with random weights in bf16, which all sides read from the same memory. Decode goes on after prompts of
512 tokens; a sample is some steps of every request. Before anything is timed, the logits of the prompt are compared.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
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
_CLOSE = 0.05
"""Most that logits may differ from transformers', as a share of their size: both round to bf16 in every layer."""


def llm_results(model: str, batches: Sequence[int], compiled: bool, seconds: float) -> Iterator[Result]:
    """Prefill, then decode by batch, of one model; `seconds` for each comparison, at least."""
    from tilewright.bench.llm_peers import Compiled, Eager, drawn_model, shared_weights

    shape = MODELS[model]
    theirs, config = drawn_model(shape), ModelConfig.from_dict(shape.config())
    decoder = Decoder(config, shared_weights(theirs, config), memory=Gpu(0))
    eager = Eager(theirs)
    _check(decoder, eager, shape)
    for batch in batches:
        sides: dict[str, Any] = {OURS: Ours(decoder, batch), EAGER: eager}
        if batch == 1:
            yield _prefill(model, shape, sides, seconds)
        if compiled:
            sides[COMPILED] = Compiled(theirs)
        yield _decode(model, shape, batch, sides, seconds)


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


def _check(decoder: Decoder, eager: Any, shape: Shape) -> None:
    """VerificationError unless both sides see the same model."""
    ids = _prompts(shape, 1, 99)[0]
    found, wanted = decoder.logits([ids])[0][-1], eager.logits(ids)
    off = float(np.sqrt(np.mean((found - wanted) ** 2)) / np.sqrt(np.mean(wanted**2)))
    if not off < _CLOSE:
        raise VerificationError(f"logits differ from transformers' by {off:.3f} of their size; {_CLOSE} is the most")


def _prefill(model: str, shape: Shape, sides: dict[str, Any], seconds: float) -> Result:
    seeds = iter(range(1, 1 << 30))
    calls: dict[str, Callable[[], object]] = {name: partial(_read, side, shape, seeds) for name, side in sides.items()}
    timed = compare(calls, seconds=seconds, prewarm=False)
    metrics = {"ms": timed.median_ns(OURS) / 1e6, **_peers(timed, 1), "noise": timed.noise}
    return Result("llm_prefill", prefill_name(model), 1, rounded(metrics), timed.to_json())


def _read(side: Any, shape: Shape, seeds: Iterator[int]) -> None:
    side.prefill(_prompts(shape, 1, next(seeds)))


def _decode(model: str, shape: Shape, batch: int, sides: dict[str, Any], seconds: float) -> Result:
    for side in sides.values():
        side.prefill(_prompts(shape, batch, 0))
        side.steps(STEPS)  # compiles what is compiled at the first step
    calls: dict[str, Callable[[], object]] = {n: partial(side.steps, STEPS) for n, side in sides.items()}
    timed = compare(calls, seconds=seconds, prewarm=False, min_rounds=ROUNDS)
    step = timed.median_ns(OURS) / STEPS
    metrics = {
        "us": step / 1e3, "tokens_per_s": batch * 1e9 / step, "gbs": shape.weight_bytes / step, **_peers(timed, STEPS),
        "noise": timed.noise,
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


__all__ = ["Ours", "first_token", "first_token_seconds", "llm_results"]
