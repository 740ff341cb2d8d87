"""Attention of sequences packed one after the other: each query sees a range of the keys.

`key_ranges` finds the range of every query from where sequences begin (cumulative lengths); `packed_attention` takes
any ranges at all. Tiles of queries know nothing of sequences: one that holds the end of one and the beginning of the
next reads the keys of both and masks them, so that there is no work on padding, and none for empty sequences.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from tilewright.language import (
    Scalar,
    Tensor,
    coord,
    dot,
    each,
    f32,
    full,
    i32,
    i64,
    kernel,
    maximum,
    minimum,
    parallel,
    tiles,
    where,
    whole,
    zeros,
)
from tilewright.operators.attention import FAR, LOG2_E, absorb, logarithm, mean_of, reference_rows
from tilewright.operators.operator import Exact, operator
from tilewright.operators.softmax import LOWEST


def reference_packed_attention(
    q: Any, k: Any, v: Any, first: Any, past: Any, scale: float, single: bool = False
) -> dict[str, Exact]:
    """o = softmax(scale q k^T) v over the keys first[n] to past[n] - 1 of query n; others are not looked at.

    Ranges are cut at the ends of the keys. A query that sees no key gives zeros, and an lse of -inf.
    """
    keys = np.arange(k.shape[1])
    seen = (keys >= np.asarray(first)[:, None]) & (keys < np.asarray(past)[:, None])
    used = seen.any(axis=0)  # what no query sees may be anything
    return reference_rows(q, k[:, used], v[:, used], scale, np.where(seen[:, used], 0.0, -np.inf))


@operator(reference_packed_attention, writes=("o", "lse"))
@kernel
def packed_attention(
    q: Tensor["H", "G", "N", "D"],
    k: Tensor["H", "T", "D"],
    v: Tensor["H", "T", "E"],
    first: Tensor["N"].of("i32"),
    past: Tensor["N"].of("i32"),
    o: Tensor["H", "G", "N", "E"],
    scale: Scalar["f32"],
    lse: Tensor["H", "G", "N"] = None,
    *,
    single=False,
):
    """`single`: queries one by one, each with just its own keys, as is best where there are few to a sequence."""
    for h, n, g in _queries(single):
        d, e = whole("D"), whole("E")
        low, high = first[n], past[n]
        start, stop = (low, high) if single else (low.min(n), high.max(n))
        query = q[h, g, n, d]
        rows = (g,) if single else (g, n)
        top = full(*rows, value=LOWEST, dtype=f32)
        total = zeros(*rows, dtype=f32)
        acc = zeros(*rows, e, dtype=f32)
        for t in tiles("T", start=start.to(i64), stop=stop.to(i64)):
            scores = dot(query, k[h, t, d].T) * (scale * LOG2_E)
            if not single:  # those of a single query end where its range does
                key = coord(t).to(i32)
                scores = where(key >= low, scores, -math.inf)
                scores = where(key < high, scores, -math.inf)
            absorb(top, total, acc, scores, v[h, t, e], t)
        o[h, g, n, e] = mean_of(acc, total)
        if lse is not None:
            lse[h, g, n] = logarithm(top, total)


def _queries(single: bool) -> Any:
    """The tiles of queries, as (head of keys, queries, heads of queries)."""
    if single:
        yield from parallel(each("H"), each("N"), "G")
    else:
        yield from ((h, n, g) for h, g, n in parallel(each("H"), "G", "N"))


def reference_key_ranges(
    q_from: Any, q_to: Any, k_from: Any, k_to: Any, causal: bool = True, window: int | None = None
) -> dict[str, Exact]:
    """The range of keys of each packed query: those of its own sequence, whose last query sees the last of them.

    As many as sequences have; the program gives those that are of none the range from 0 to 0.
    """
    first, past = np.zeros((2, int(np.max(q_to, initial=0))), np.int64)
    for begin, end, low, high in zip(*map(np.asarray, (q_from, q_to, k_from, k_to)), strict=True):
        at = np.arange(begin, end) + (int(high) - int(end))
        past[begin:end] = np.clip(at + 1, low, high) if causal else high
        first[begin:end] = low if window is None else np.clip(at - (window - 1), low, high)
    return {"first": Exact.copied(first), "past": Exact.copied(past)}


@operator(reference_key_ranges, writes=("first", "past"))
@kernel
def key_ranges(
    q_from: Tensor["B"],
    q_to: Tensor["B"],
    k_from: Tensor["B"],
    k_to: Tensor["B"],
    first: Tensor["N"].of("i32"),
    past: Tensor["N"].of("i32"),
    *,
    causal=True,
    window=None,
):
    for n in parallel("N"):
        low, high = (full(n, value=0, dtype=i32) for _ in range(2))
        query = coord(n).to(i32)
        for b in tiles("B"):
            begin, end = k_from[b].to(i32), k_to[b].to(i32)
            at = query + (end - q_to[b].to(i32))
            last = minimum(maximum(at + 1, begin), end) if causal else end
            start = begin if window is None or window >= FAR else minimum(maximum(at - (window - 1), begin), end)
            own = (query >= q_from[b].to(i32)) & (query < q_to[b].to(i32))
            # A query is of one sequence, and no bound is below 0: the largest is that of its own.
            low.update(maximum(low, where(own, start, 0).max(b)))
            high.update(maximum(high, where(own, last, 0).max(b)))
        first[n] = low
        past[n] = high


__all__ = ["key_ranges", "packed_attention"]
