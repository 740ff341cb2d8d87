"""Where a step of decode goes on a GPU: the time of each kernel, and what the step costs less without it.

Two figures of each kernel. `us`: one launch in a chain of all launches of it, one layer's weights after another's, so
that none comes from cache. `saved_us`: how much shorter a step is without them, over their number: what they cost
where they stand, the gaps around them included and what the next one does ahead of them taken off.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch

from tilewright.bench.checkpoint import SPREAD, Shape
from tilewright.bench.llm_cases import MODELS, PROMPT_TOKENS
from tilewright.design.gpu.product import product
from tilewright.language.dtypes import DType, bf16
from tilewright.models.config import ModelConfig
from tilewright.models.decoder import Decoder, Want
from tilewright.models.memory import Launch
from tilewright.models.plan import Plan
from tilewright.models.weights import Weights, layer_weights
from tilewright.runtime.buffer import Buffer
from tilewright.runtime.cuda.arrays import DeviceArray
from tilewright.runtime.cuda.gpu import Gpu
from tilewright.runtime.cuda.recording import Later

_SAMPLES, _CHAIN = 9, 64  # samples of each figure; launches of a chain, at least


@dataclass(frozen=True)
class Part:
    """One kernel of a step: how often it is launched, and what it takes. Times in microseconds, of one launch."""

    kernel: str
    sizes: dict[str, int]
    launches: int
    us: float
    saved_us: float
    gbs: float | None  # of products: bytes of all operands by `us`
    blocks: int
    registers: int
    spilled_bytes: int
    design: dict[str, Any]


@dataclass(frozen=True)
class Profile:
    """A step of decode: its time as one graph, and its kernels, in the order in which a step first launches them."""

    model: str
    batch: int
    launches: int
    step_us: float
    parts: tuple[Part, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)


def profiled(model: str, batch: int, device: int = 0) -> Profile:
    """The step of `batch` sequences that follows prompts of PROMPT_TOKENS tokens, by random weights in bf16."""
    shape = MODELS[model]
    gpu = Gpu(device)
    config = ModelConfig.from_dict(shape.config())
    decoder = Decoder(config, drawn_weights(shape, config), memory=gpu)
    cache = decoder.new_cache(batch, 4096)
    decoder.reserve(cache, batch, PROMPT_TOKENS + 1)
    plan = decoder.plan(cache, 0, batch, 1, Want.BEST)
    return Clock(gpu, plan).profile(model, batch)


class Clock:
    """Times launches of one pass as graphs, from the same places in the same sequences each time."""

    def __init__(self, gpu: Gpu, plan: Plan) -> None:
        self._gpu, self._plan = gpu, plan
        self._stream = torch.cuda.ExternalStream(int(gpu.stream))

    def profile(self, model: str, batch: int) -> Profile:
        """The whole step, and each of its kernels."""
        launches = list(self._plan.launches)
        whole = self.seconds(launches)
        parts = tuple(self._part(kind, launches, whole) for kind in kinds(launches))
        return Profile(model, batch, len(launches), whole * 1e6, parts)

    def _part(self, kind: Sequence[Any], launches: Sequence[Any], whole: float) -> Part:
        often = list(kind) * math.ceil(_CHAIN / len(kind))
        alone, rest = self.seconds(often) / len(often), self.seconds([x for x in launches if x not in kind])
        one: Later = kind[0]
        kernel, moved = one.launch.kernel, sum(b.size * b.dtype.bytes for b in one.buffers.values())
        report = kernel.binary.report
        gbs = None if isinstance(product(one.program.kernel), str) else moved / alone / 1e9
        return Part(
            one.program.kernel.name, one.sizes, len(kind), alone * 1e6, (whole - rest) / len(kind) * 1e6,
            gbs, one.launch.inner.blocks, report.registers, report.spills,
            dict(kernel.request.design.decisions),
        )  # fmt: skip

    def seconds(self, launches: Sequence[Launch]) -> float:
        """The median time of launches as one graph."""
        graph, samples = self._gpu.replayed(launches), []
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        for _ in range(_SAMPLES + 2):
            self._place()
            begin.record(self._stream)
            graph()
            end.record(self._stream)
            end.synchronize()
            samples.append(begin.elapsed_time(end) * 1e-3)
        return float(statistics.median(samples[2:]))

    def _place(self) -> None:
        """Every sequence at the end of its prompt again: the last kernel of a step moves it on."""
        plan, put = self._plan, self._gpu.put
        put(plan.positions, np.full(plan.positions.shape, PROMPT_TOKENS))
        put(plan.lengths, np.full(plan.lengths.shape, PROMPT_TOKENS + 1))
        self._gpu.wait()


def kinds(launches: Sequence[Any]) -> Iterator[list[Any]]:
    """The launches of each kernel at the same sizes, in the order in which they first come."""
    found: dict[Any, list[Any]] = {}
    for launch in launches:
        found.setdefault((launch.program, tuple(sorted(launch.sizes.items()))), []).append(launch)
    yield from found.values()


class _Drawn:
    """A reader of weights (see `models.weights.Reader`) that are drawn where they are wanted."""

    def __init__(self, dtype: DType) -> None:
        self._type = getattr(torch, {"bf16": "bfloat16", "f16": "float16", "f32": "float32"}[dtype.name])

    def take(self, name: str, shape: tuple[int, ...]) -> DeviceArray:
        """A tensor of that shape: matrices around 0, vectors around 1."""
        tensor = torch.empty(shape, device="cuda", dtype=self._type)
        tensor.normal_(1.0 if len(shape) == 1 else 0.0, SPREAD)
        buffer = Buffer.of(tensor)
        return DeviceArray(Buffer(buffer.pointer, shape, buffer.strides, buffer.dtype, buffer.device, tensor, False))

    def stack(self, parts: list[tuple[str, tuple[int, ...]]]) -> DeviceArray:
        """Tensors below one another, as one."""
        return self.take("", (sum(shape[0] for _, shape in parts), *parts[0][1][1:]))


def drawn_weights(shape: Shape, config: ModelConfig, dtype: DType = bf16) -> Weights:
    """Random weights of a shape on the GPU."""
    reader = _Drawn(dtype)
    embedding = reader.take("", (shape.vocabulary, shape.hidden))
    layers = tuple(layer_weights(reader, config, i) for i in range(config.layers))
    torch.cuda.synchronize()
    return Weights(dtype, embedding, layers, reader.take("", (config.hidden,)), embedding)


def table(profile: Profile) -> str:
    """A profile as text: the step, and a line for each kernel."""
    lines = [f"{profile.model}, batch {profile.batch}: {profile.step_us:.1f} us a step of {profile.launches} launches"]
    for p in profile.parts:
        sizes = " ".join(f"{d}={n}" for d, n in p.sizes.items())
        rate = "" if p.gbs is None else f", {p.gbs:.0f} GB/s"
        lines.append(f"{p.launches:3}x {p.us:7.2f} us, {p.saved_us:7.2f} less without: {p.kernel} {sizes}{rate}")
    return "\n".join(lines)


__all__ = ["Clock", "Part", "Profile", "drawn_weights", "kinds", "profiled", "table"]
