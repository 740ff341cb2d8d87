"""All-reduce over many chips, step by step: ring, tree and one-shot, with values and alpha-beta times.

Every step costs `alpha` seconds and the bytes that the busiest chip sends in it, at its bandwidth (Hockney's model).
The closed forms follow from the steps: ring a0 + 2(N-1) alpha + 2(N-1)/N S/B (Patarasuk and Yuan, 2009), tree
a0 + 2 ceil(log2 N) (alpha + S/B), one-shot a0 + alpha + (N-1) S/B.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from tilewright.errors import ArgumentError

Array = npt.NDArray[Any]
ALGORITHMS = ("ring", "tree", "oneshot")


@dataclass(frozen=True)
class Link:
    """How chips reach each other: `base` seconds a collective, `alpha` seconds a step, bytes/s out of one chip."""

    bandwidth: float
    alpha: float
    base: float = 0.0

    def __post_init__(self) -> None:
        if not self.bandwidth > 0 or self.alpha < 0 or self.base < 0:
            raise ArgumentError(f"{self}: a link has a positive bandwidth, and times of 0 or more")


# Latencies of NCCL's own cost model (src/graph/tuning.cc) for rings on NVLink: a base and one hop, by protocol.
NCCL_RING = {"LL": (6.6e-6, 0.6e-6), "Simple": (8.4e-6, 3.4e-6)}


@dataclass(frozen=True)
class Send:
    """Part `part` of `parts` of the data goes from `source` to `target`, which adds it or keeps it."""

    source: int
    target: int
    part: int
    parts: int
    add: bool


def steps(algorithm: str, chips: int) -> list[list[Send]]:
    """What is sent in each step; sends of one step happen at once. ArgumentError for an unknown algorithm."""
    if chips < 1:
        raise ArgumentError(f"{chips} chips: a collective runs on one or more")
    if algorithm not in ALGORITHMS:
        raise ArgumentError(f"no all-reduce is called {algorithm!r}; there are {', '.join(ALGORITHMS)}")
    return {"ring": _ring, "tree": _tree, "oneshot": _oneshot}[algorithm](chips)


def _ring(n: int) -> list[list[Send]]:
    """Parts travel round once to be summed, and once more to be known to all."""
    return [
        [Send(c, (c + 1) % n, (c - step + (0 if add else 1)) % n, n, add) for c in range(n)]
        for add in (True, False)
        for step in range(n - 1)
    ]


def _tree(n: int) -> list[list[Send]]:
    """Sums climb a binomial tree to chip 0, and the result comes down the same way."""
    strides = [1 << level for level in range(math.ceil(math.log2(n)))] if n > 1 else []
    up = [[Send(c + s, c, 0, 1, True) for c in range(0, n - s, 2 * s)] for s in strides]
    return up + [[Send(e.target, e.source, 0, 1, False) for e in step] for step in reversed(up)]


def _oneshot(n: int) -> list[list[Send]]:
    """Every chip sends all it has to every other."""
    return [[Send(c, (c + hop) % n, 0, 1, True) for c in range(n) for hop in range(1, n)]] if n > 1 else []


def all_reduce(algorithm: str, values: Sequence[Array], link: Link) -> tuple[list[Array], float]:
    """What each chip holds in the end, and the seconds that it took: the steps, executed on `values`.

    All chips give flat arrays of one length and dtype. What is sent in a step is what was held before it.
    """
    held = [np.array(v) for v in values]
    seconds = link.base if len(held) > 1 else 0.0
    for step in steps(algorithm, len(held)):
        before = [np.array(h) for h in held]
        sent = [0] * len(held)
        for send in step:
            part = slice(*(len(held[0]) * p // send.parts for p in (send.part, send.part + 1)))
            moved = before[send.source][part]
            held[send.target][part] = held[send.target][part] + moved if send.add else moved
            sent[send.source] += moved.nbytes
        seconds += link.alpha + max(sent) / link.bandwidth
    return held, seconds


def seconds(algorithm: str, chips: int, size: float, link: Link) -> float:
    """The closed form of `all_reduce` for `size` bytes on each chip; nothing on one chip."""
    if chips == 1:
        return 0.0
    hops = math.ceil(math.log2(chips))
    count, moved = {
        "ring": (2 * (chips - 1), 2 * (chips - 1) / chips),
        "tree": (2 * hops, 2 * hops),
        "oneshot": (1, chips - 1),
    }[algorithm]
    return link.base + count * link.alpha + moved * size / link.bandwidth


def all_gather_seconds(chips: int, size: float, link: Link) -> float:
    """Seconds of a ring in which every chip gets the parts of all others, `size` bytes together."""
    if chips == 1:
        return 0.0
    return link.base + (chips - 1) * link.alpha + (chips - 1) / chips * size / link.bandwidth


def best(chips: int, size: float, link: Link) -> tuple[str, float]:
    """The algorithm that takes least, and its seconds."""
    return min(((a, seconds(a, chips, size, link)) for a in ALGORITHMS), key=lambda found: found[1])


def nccl_latency(chips: int, protocol: str = "Simple") -> float:
    """Seconds that NCCL's own model gives a ring all-reduce of nothing on NVLink."""
    base, hop = NCCL_RING[protocol]
    return seconds("ring", chips, 0, Link(math.inf, hop, base))


@dataclass(frozen=True)
class Fit:
    """T = `latency` + 2(N-1)/N S / `bandwidth`, and its mean error on what it was fitted to."""

    latency: float
    bandwidth: float
    error: float


def fit(chips: int, sizes: Sequence[float], times: Sequence[float]) -> Fit:
    """The two parameters that make the mean relative error of measured ring all-reduces smallest.

    The error is piecewise linear in (latency, 1/bandwidth), so its minimum lies where two measurements are met
    exactly: all pairs are tried.
    """
    wire = 2 * (chips - 1) / chips * np.asarray(sizes, float)
    measured = np.asarray(times, float)
    i, j = np.triu_indices(len(wire), 1)
    with np.errstate(divide="ignore", invalid="ignore"):
        slope = (measured[j] - measured[i]) / (wire[j] - wire[i])
    good = np.isfinite(slope) & (slope > 0)
    slope, latency = slope[good], (measured[i] - slope * wire[i])[good]
    errors = np.mean(np.abs(latency[:, None] + slope[:, None] * wire - measured) / measured, axis=1)
    least = int(np.argmin(errors))
    return Fit(float(latency[least]), float(1 / slope[least]), float(errors[least]))
