"""Ragged batches of a served trace beside the same batches padded to their longest request."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from tilewright import operators, ops
from tilewright.bench.result import Result, rounded
from tilewright.bench.serve_block import HEAD, HEADS, HIDDEN, KV_HEADS, Layer, heads_of
from tilewright.observe.served import served_trace
from tilewright.ops.ragged import Ragged
from tilewright.runtime.measure import compare
from tilewright.runtime.tolerance import check
from tilewright.sampler import LengthGroupedBatches

FAMILY, BATCH, TILE = "serve_padding", 16, 16
ARRIVAL, ATTENTION, GROUPED = "layer, as they arrive", "attention, as they arrive", "layer, similar lengths"
NAMES = (ARRIVAL, ATTENTION, GROUPED)

Pair = tuple[Callable[[], object], Callable[[], object]]


def padding_results(threads: int, names: Sequence[str], quick: bool) -> Iterator[Result]:
    """A result for each of `names`: a pass over batches of 16 requests, ragged and padded in turns."""
    lengths = [r.prompt for r in served_trace().requests]
    order = [list(range(start, start + BATCH)) for start in range(0, len(lengths), BATCH)]
    grouped, step = list(LengthGroupedBatches(lengths, BATCH, multiple=1)), 60 if quick else 12
    for name in names:
        batches = grouped if name == GROUPED else order
        chosen = [Ragged([lengths[i] for i in batch]) for batch in batches[::step]]
        yield _measured(name, threads, chosen, _attention if name == ATTENTION else _layer)


def _measured(name: str, threads: int, batches: Sequence[Ragged], pair: Callable[[Ragged, int], Pair]) -> Result:
    pairs = [pair(batch, seed) for seed, batch in enumerate(batches)]
    found = compare({"ragged": _all(p[0] for p in pairs), "padded": _all(p[1] for p in pairs)}, prewarm=False)
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


def _all(calls: Iterator[Callable[[], object]]) -> Callable[[], None]:
    every = tuple(calls)

    def run() -> None:
        for call in every:
            call()

    return run


def _layer(batch: Ragged, seed: int) -> Pair:
    """A decoder layer: both sides give the same rows, or there is nothing to time."""
    layer, random = Layer.drawn(), np.random.default_rng(seed)
    x = random.standard_normal((len(batch.lengths), batch.room, HIDDEN), np.float32)
    rows = batch.pack(x)
    np.testing.assert_allclose(layer.ragged(rows, batch), batch.pack(layer.padded(x)), rtol=0, atol=1e-4)
    return lambda: layer.ragged(rows, batch), lambda: layer.padded(x)


def _attention(batch: Ragged, seed: int) -> Pair:
    """Causal attention, by one kernel that takes the true lengths, and by one that does not."""
    random = np.random.default_rng(seed)
    packed = random.standard_normal((batch.tokens, (HEADS + 2 * KV_HEADS) * HEAD), np.float32)
    whole = np.zeros((len(batch.lengths), batch.room, packed.shape[1]), np.float32)
    q, k, v = heads_of(batch.unpack(packed, whole))
    last = np.zeros(q.shape, np.float32)  # the last query sits at the last key: queries end where the room ends
    for b, n in enumerate(batch.lengths):
        last[b, :, batch.room - n :] = q[b, :, :n]
    _checked(last, k, v, batch)
    return (
        lambda: ops.attention(last, k, v, causal=True, lengths=batch.lengths),
        lambda: ops.attention(q, k, v, causal=True),
    )


def _checked(q: Any, k: Any, v: Any, batch: Ragged) -> None:
    """The shortest sequence of the batch against float64."""
    b = int(np.argmin(batch.lengths))
    one, group = slice(b, b + 1), (1, KV_HEADS, HEADS // KV_HEADS, batch.room, HEAD)
    out = np.full(q[one].shape, np.nan, np.float32)
    ops.attention(q[one], k[one], v[one], causal=True, lengths=batch.lengths[one], out=out)
    exact = operators.attention.reference(
        q[one].reshape(group), k[one], v[one], HEAD**-0.5, batch.lengths[one], causal=True
    )
    check("o", out.reshape(group), exact["o"])


__all__ = ["FAMILY", "NAMES", "padding_results"]
