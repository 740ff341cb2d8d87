"""Decoding shared by many chips, in closed form: tensor, pipeline and data parallel, and where time goes.

Memory and arithmetic are taken at their peaks, each layer by whichever is slower. Tensor parallel cuts every matrix
and the heads; what is beyond the number of key and value heads keeps a copy of the cache. Two all-reduces a layer.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from tilewright.errors import ArgumentError
from tilewright.simulate.chips.collectives import Link, best
from tilewright.simulate.decoder import Decoder

PLANS = ("tensor", "pipeline", "data")


@dataclass(frozen=True)
class Chip:
    """One chip: peak flop/s and bytes/s, bytes of memory, and seconds that a kernel call costs."""

    flops: float
    bandwidth: float
    memory: float
    sync: float


@dataclass(frozen=True)
class Split:
    """Seconds of one decoding step of one token of each sequence, and tokens/s of all chips together."""

    plan: str
    chips: int
    gemm: float
    attention: float
    all_reduce: float
    sync: float
    tokens_per_second: float
    fits: bool

    @property
    def seconds(self) -> float:
        """From one token of a sequence to the next."""
        return self.gemm + self.attention + self.all_reduce + self.sync


def decode(
    model: Decoder, chip: Chip, link: Link, plan: str, chips: int, *,
    batch: int = 1, context: int = 4096, kernels: int = 1,
) -> Split:  # fmt: skip
    """One step under a plan, with `kernels` calls a layer (0: one call for the whole step)."""
    if plan not in PLANS:
        raise ArgumentError(f"no plan is called {plan!r}; there are {', '.join(PLANS)}")
    if chips < 1 or batch < 1 or context < 1:
        raise ArgumentError(f"{chips} chips, batch {batch}, context {context}: each is 1 or more")
    return {"tensor": _tensor, "pipeline": _pipeline, "data": _data}[plan](
        model, chip, link, chips, batch, context, kernels
    )


def _gemm(model: Decoder, chip: Chip, weights: float, batch: float) -> float:
    """Seconds of products of `batch` rows with so many weights."""
    return max(weights * model.bytes / chip.bandwidth, 2 * weights * batch / chip.flops)


def _weights(model: Decoder) -> int:
    return model.layers * model.layer_weights + model.head_weights


def _calls(model: Decoder, chip: Chip, kernels: int) -> float:
    return chip.sync * max(1, model.layers * kernels)


def _tensor(m: Decoder, chip: Chip, link: Link, n: int, batch: int, context: int, kernels: int) -> Split:
    cuts = min(n, m.intermediate)  # no matrix is cut finer than its rows
    cache = m.layers * batch * m.cache_bytes(context) / min(n, m.kv_heads)
    gemm, attention = _gemm(m, chip, _weights(m) / cuts, batch), cache / chip.bandwidth
    reduce = 2 * m.layers * best(n, batch * m.hidden * m.bytes, link)[1]
    sync = _calls(m, chip, kernels)
    fits = _weights(m) * m.bytes / cuts + cache <= chip.memory
    return Split("tensor", n, gemm, attention, reduce, sync, batch / (gemm + attention + reduce + sync), fits)


def _pipeline(m: Decoder, chip: Chip, link: Link, n: int, batch: int, context: int, kernels: int) -> Split:
    """Layers dealt to chips; sequences in as many groups as there are chips at work, one group in each."""
    stages = min(n, m.layers)
    group = math.ceil(batch / stages)
    cache = m.layers * group * m.cache_bytes(context)
    gemm, attention = _gemm(m, chip, _weights(m), group), cache / chip.bandwidth
    send = stages * (link.alpha + group * m.hidden * m.bytes / link.bandwidth) if stages > 1 else 0.0
    sync = _calls(m, chip, kernels) if kernels else stages * chip.sync
    whole = gemm + attention + send + sync
    fits = (_weights(m) * m.bytes + m.layers * batch * m.cache_bytes(context)) / stages <= chip.memory
    return Split("pipeline", n, gemm, attention, send, sync, min(batch, group * stages) / whole, fits)


def _data(m: Decoder, chip: Chip, link: Link, n: int, batch: int, context: int, kernels: int) -> Split:
    """Sequences dealt to chips, each with all weights."""
    share = math.ceil(batch / n)
    cache = m.layers * share * m.cache_bytes(context)
    gemm, attention, sync = _gemm(m, chip, _weights(m), share), cache / chip.bandwidth, _calls(m, chip, kernels)
    whole = gemm + attention + sync
    fits = _weights(m) * m.bytes + cache <= chip.memory
    return Split("data", n, gemm, attention, 0.0, sync, batch / whole, fits)


def sweep(
    model: Decoder, chip: Chip, link: Link, plan: str, counts: Sequence[int], **how: int
) -> list[Split]:  # fmt: skip
    """`decode` for each number of chips."""
    return [decode(model, chip, link, plan, n, **how) for n in counts]


def stops_at(splits: Sequence[Split], gain: float = 1.1) -> int:
    """The number of chips after which the next count of a sweep gives less than `gain` times the tokens/s."""
    for now, after in pairwise(splits):
        if after.tokens_per_second < gain * now.tokens_per_second:
            return now.chips
    return splits[-1].chips
