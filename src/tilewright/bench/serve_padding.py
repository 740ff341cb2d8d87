"""Ragged batches of a served trace beside the same batches padded to their longest request."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt

from tilewright import operators, ops
from tilewright.bench.result import Result, rounded
from tilewright.bench.serve_block import LLAMA, SMALL, Array, Layer, Sizes, heads_of
from tilewright.language.dtypes import dtype
from tilewright.observe.served import served_trace
from tilewright.ops.ragged import Ragged
from tilewright.runtime import measure, tolerance
from tilewright.sampler import LengthGroupedBatches

FAMILY, BATCH, TILE = "serve_padding", 16, 16
ARRIVAL, ATTENTION, GROUPED = "layer, as they arrive", "attention, as they arrive", "layer, similar lengths"

Pair = tuple[Callable[[], object], Callable[[], object]]


@dataclass(frozen=True)
class Setting:
    """Where batches are computed, by a layer of which sizes and type; its cases, and one batch in how many is taken.

    `near` bounds how far the rows of both sides may be apart: values are near 1.
    """

    device: str
    sizes: Sizes
    dtype: str
    near: float
    every: int
    names: tuple[str, ...]

    def drawn(self, shape: tuple[int, ...], seed: int) -> Array:
        """Random numbers of this type, where they are used."""
        if self.device == "cpu":
            return np.random.default_rng(seed).standard_normal(shape, np.float32)
        import torch

        random = torch.Generator(self.device).manual_seed(seed)
        return torch.randn(shape, generator=random, device=self.device).to(getattr(torch, self.dtype))


_OF = " of Llama 3.2 1B, bf16"
CPU = Setting("cpu", SMALL, "float32", 1e-4, 12, (ARRIVAL, ATTENTION, GROUPED))
GPU = Setting("cuda", LLAMA, "bfloat16", 0.1, 25, tuple(n.replace(",", f"{_OF},") for n in CPU.names))
SETTINGS = {s.device: s for s in (CPU, GPU)}


def padding_results(setting: Setting, threads: int, names: Sequence[str], quick: bool) -> Iterator[Result]:
    """A result for each of `names`: a pass over batches of 16 requests, ragged and padded in turns."""
    lengths = [r.prompt for r in served_trace().requests]
    order = [list(range(start, start + BATCH)) for start in range(0, len(lengths), BATCH)]
    grouped, step = list(LengthGroupedBatches(lengths, BATCH, multiple=1)), setting.every * (5 if quick else 1)
    for name in names:
        kind = CPU.names[setting.names.index(name)]
        batches = grouped if kind == GROUPED else order
        chosen = [Ragged([lengths[i] for i in batch]) for batch in batches[::step]]
        pair = _attention if kind == ATTENTION else _layer
        yield _measured(
            name, threads, chosen, [pair(setting, batch, seed) for seed, batch in enumerate(chosen)], setting
        )


def _measured(name: str, threads: int, batches: Sequence[Ragged], pairs: Sequence[Pair], setting: Setting) -> Result:
    found = _compared(setting, {"ragged": _all(p[0] for p in pairs), "padded": _all(p[1] for p in pairs)})
    ratio, tokens = found.ratio("padded", "ragged"), sum(b.tokens for b in batches)
    places = sum(len(b.lengths) * b.room for b in batches)
    tiles = [b.tiles(TILE) for b in batches]
    values = {
        "us": found.median_ns("ragged") / 1e3,
        "peer_us": found.median_ns("padded") / 1e3,
        "ratio": ratio.median,
        "ratio_low": ratio.low,
        "ratio_high": ratio.high,
        "noise": found.noise,
        "waste": 1 - tokens / places,
        "skipped_tiles": sum(t.skipped for t in tiles),
        "tiles": sum(t.skipped + t.visited for t in tiles),
    }
    raw = {**found.to_json(), "lengths": [b.lengths.tolist() for b in batches], "tile": TILE}
    return Result(FAMILY, name, threads, rounded(values), raw)


def _compared(setting: Setting, calls: dict[str, Callable[[], object]]) -> measure.Comparison:
    if setting.device == "cpu":
        return measure.compare(calls, prewarm=False)
    from tilewright.runtime.cuda import measure as on_gpu

    return on_gpu.compare(calls)


def _all(calls: Iterator[Callable[[], object]]) -> Callable[[], None]:
    every = tuple(calls)

    def run() -> None:
        for call in every:
            call()

    return run


def _layer(setting: Setting, batch: Ragged, seed: int) -> Pair:
    """A decoder layer: both sides give the same rows, or there is nothing to time."""
    layer = _layers(setting)
    x = setting.drawn((len(batch.lengths), batch.room, setting.sizes.hidden), seed)
    rows = batch.pack(x)
    found, whole = _numbers(layer.ragged(rows, batch)), _numbers(layer.padded(x))
    np.testing.assert_allclose(found, batch.pack(whole), rtol=0, atol=setting.near)
    return lambda: layer.ragged(rows, batch), lambda: layer.padded(x)


@cache
def _layers(setting: Setting) -> Layer:
    return Layer.drawn(setting.sizes, setting.drawn)


def _attention(setting: Setting, batch: Ragged, seed: int) -> Pair:
    """Causal attention, by one kernel that takes the true lengths, and by one that does not."""
    count, sizes = len(batch.lengths), setting.sizes
    q, k, v = heads_of(setting.drawn((count, batch.room, sizes.qkv), seed), sizes)
    lengths = batch.lengths
    if setting.device != "cpu":
        import torch

        lengths = torch.from_numpy(lengths).to(setting.device)
    # The last query sits at the last key: a sequence's own end where the room ends.
    last = setting.drawn((count, sizes.heads, batch.room, sizes.head), seed + 1)
    for b, n in enumerate(map(int, batch.lengths)):
        last[b, :, batch.room - n :] = q[b, :, :n]
    _checked(setting, (last, k, v), lengths, batch)
    return (
        lambda: ops.attention(last, k, v, causal=True, lengths=lengths),
        lambda: ops.attention(q, k, v, causal=True),
    )


def _checked(setting: Setting, qkv: tuple[Array, Array, Array], lengths: Array, batch: Ragged) -> None:
    """The shortest sequence of the batch, and the heads that share its first keys, against float64."""
    (q, k, v), sizes = qkv, setting.sizes
    b, share = int(np.argmin(batch.lengths)), sizes.heads // sizes.kv_heads
    one = slice(b, b + 1)
    out = ops.attention(q, k, v, causal=True, lengths=lengths)
    queries, keys, values, found = (_numbers(x[one, :n]) for x, n in ((q, share), (k, 1), (v, 1), (out, share)))
    group = (1, 1, share, batch.room, sizes.head)
    kind = dtype(setting.dtype)
    exact = operators.attention.reference(
        queries.reshape(group).astype(kind.numpy), keys, values, sizes.head**-0.5, batch.lengths[one], causal=True
    )
    tolerance.check("o", found.reshape(group).astype(kind.numpy), exact["o"])


def _numbers(x: Array) -> npt.NDArray[np.float32]:
    """As NumPy computes with it."""
    found: npt.NDArray[np.float32] = x if isinstance(x, np.ndarray) else x.float().cpu().numpy()
    return found


__all__ = ["CPU", "FAMILY", "GPU", "SETTINGS", "Setting", "padding_results"]
