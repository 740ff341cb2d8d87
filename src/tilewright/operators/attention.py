"""Attention with an online softmax: contiguous or paged keys and values, causal, windowed, ragged.

The G query heads that share a head of keys and values are one tile of rows, together with the S queries, so
that a key is read once for all of them. Query s of S sits at position length - S + s: the last query is at
the end of the keys. A query that sees no key gives zeros. After Dao et al., arXiv:2205.14135, and Milakov and
Gimelshein, arXiv:1805.02867.
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
    exp2,
    f8e4m3,
    f32,
    full,
    i32,
    i64,
    kernel,
    log,
    maximum,
    minimum,
    parallel,
    size,
    tiles,
    where,
    whole,
    zeros,
)
from tilewright.language.dtypes import DType, dtype
from tilewright.operators.operator import Array64, Exact, inside, operator, roundoff, smallest, wide
from tilewright.operators.softmax import LOWEST, softened

LOG2_E = math.log2(math.e)


def _visible(queries: int, keys: int, causal: bool, window: int | None) -> Array64:
    """0 where query s sees key t, -inf where it does not: [S, T]."""
    position = keys - queries + np.arange(queries)[:, None]
    key = np.arange(keys)[None, :]
    seen = np.ones((queries, keys), bool)
    if causal:
        seen = seen & (key <= position)
    if window is not None:
        seen = seen & (key > position - window)
    return np.where(seen, 0.0, -np.inf)


def reference_attention(
    q: Any, k: Any, v: Any, scale: float, lengths: Any = None, causal: bool = False, window: int | None = None,
    k_scale: Any = None, v_scale: Any = None,
) -> dict[str, Exact]:  # fmt: skip
    """o = softmax(scale q k^T, over the visible keys) v; lse is the logarithm of the sum of the scores' powers of e.

    Keys from lengths[b] on are never read, whatever they hold. Probabilities take the type of q before they
    meet v; its rounding is allowed for, as in every flash attention on tensor cores. Heads of keys and values
    of 8 bits stand for k_scale[h] and v_scale[h] times what they hold.
    """
    value, magnitude, narrowing = (np.zeros((*q.shape[:-1], v.shape[-1])) for _ in range(3))
    sums, sizes = np.zeros(q.shape[:-1]), np.zeros(q.shape[:-1])
    for b in range(q.shape[0]):
        length = k.shape[2] if lengths is None else int(lengths[b])
        keys, values = (_scaled(x[b, :, :length], by) for x, by in ((k, k_scale), (v, v_scale)))
        mask = _visible(q.shape[3], keys.shape[1], causal, window)
        scores, sizes[b] = _scored(q[b], keys, scale, mask)
        value[b], magnitude[b], narrowing[b] = _reference_sequence(scores, sizes[b], values, mask, dtype(q.dtype))
        sums[b] = _reference_sums(scores)
    return {
        "o": Exact(value, magnitude, q.shape[-1] + k.shape[2], narrowing),
        "lse": Exact(sums, sizes + 1.0, q.shape[-1] + k.shape[2]),
    }


def reference_rows(q: Any, k: Any, v: Any, scale: float, mask: Array64) -> dict[str, Exact]:
    """As reference_attention, of one sequence q[H, G, S, D], k[H, T, D], v[H, T, E]; mask[S, T] is 0 or -inf."""
    keys, values = wide(k), wide(v)
    scores, sizes = _scored(q, keys, scale, mask)
    value, magnitude, narrowing = _reference_sequence(scores, sizes, values, mask, dtype(q.dtype))
    sums = _reference_sums(scores)
    terms = q.shape[-1] + k.shape[1]
    return {"o": Exact(value, magnitude, terms, narrowing), "lse": Exact(sums, sizes + 1.0, terms)}


def _scored(q: Any, k: Array64, scale: float, mask: Array64) -> tuple[Array64, Array64]:
    """Scores [H, G, S, T] of q[H, G, S, D] and k[H, T, D], and the largest size of a score of each query [H, G, S]."""
    q, k = wide(q), k[:, None].swapaxes(-1, -2)
    sizes = np.max(np.abs(q) @ np.abs(k), axis=-1, initial=0.0) * abs(scale)
    return q @ k * scale + mask, sizes


def _reference_sums(scores: Array64) -> Array64:
    """Logarithm of the sum of the powers of each query's scores: [H, G, S]."""
    top = np.max(scores, axis=-1, keepdims=True, initial=-np.inf)
    with np.errstate(divide="ignore"):
        found: Array64 = np.log(np.sum(np.exp(scores - np.where(np.isfinite(top), top, 0.0)), axis=-1)) + top[..., 0]
    return found


def _scaled(x: Any, by: Any) -> Array64:
    """Heads x[H, T, D] in float64, each times its scale."""
    return wide(x) if by is None else wide(x) * wide(by)[:, None, None]


def _reference_sequence(
    scores: Array64, sizes: Array64, v: Array64, mask: Array64, stored: DType
) -> tuple[Array64, Array64, Array64]:
    """Output, magnitude and narrowing for one sequence by what `_scored` gave and v[H, T, E].

    The error of a score becomes a relative error of its probability, hence the factor on the magnitude.
    """
    v = v[:, None]
    seen = np.isfinite(mask).any(axis=-1, keepdims=True)
    probability = np.where(seen, softened(scores), 0.0)
    gain = 2.0 + 2.0 * sizes[..., None]
    value, terms = probability @ v, probability @ np.abs(v)
    # A probability below the smallest f32 normal may be flushed to zero, whatever it meets then.
    lost = float(np.finfo(np.float32).tiny)
    narrowing = np.zeros_like(terms)
    if stored.is_storage_only:
        narrowing, lost = roundoff(stored) * terms, max(lost, smallest(stored) / 2)
    narrowing = narrowing + lost * np.sum(np.abs(v), axis=-2, keepdims=True)
    return value, terms * gain, narrowing


def absorb(top: Any, total: Any, acc: Any, scores: Any, values: Any, t: Any) -> None:
    """Take the keys `t` into the running maximum, sum and output of each query; scores are in powers of 2."""
    new = maximum(top, scores.max(t))
    decay = exp2(top - new)
    p = exp2(scores - new)
    total *= decay
    total += p.sum(t)
    acc *= decay
    acc += dot(p.to(values.dtype), values)
    top.update(new)


def mean_of(acc: Any, total: Any) -> Any:
    """The output of each query; 0 for one that saw no key."""
    return acc / where(total > 0.0, total, 1.0)


def logarithm(top: Any, total: Any) -> Any:
    """The logarithm of the sum of the powers of e of each query's scores; -inf for one that saw no key."""
    return where(total > 0.0, top * math.log(2.0) + log(total), -math.inf)


def _as_wide(x: Any, query: Any) -> Any:
    """What is stored in 8 bits as wide as the queries, which it is multiplied with; anything else as it is."""
    return x.to(query.dtype) if x.dtype == f8e4m3 else x


def _factor(scale: Any, of_keys: Any) -> Any:
    """Of the scores, in powers of 2."""
    return scale * LOG2_E if of_keys is None else scale * LOG2_E * of_keys


FAR = 2**30
"""No key lies so far before a query: a window of so many hides none, and i32 holds positions less it."""


def _range(s: Any, offset: Any, length: Any, causal: bool, window: int | None) -> tuple[Any, Any]:
    """First key, and the key after the last one, that any query of the tile `s` sees."""
    stop = minimum(length, maximum(coord(s).max(s) + offset + 1, 0)) if causal else length
    start = 0 if window is None else maximum(coord(s).min(s) + offset - (window - 1), 0)
    return start, stop


def _masked(scores: Any, key: Any, query: Any, causal: bool, window: int | None) -> Any:
    """Scores, with -inf where the query at position `query` does not see the key at position `key`."""
    key, query = key.to(i32), query.to(i32)  # as wide as the scores, so that a mask fills the same vector
    if causal:
        scores = where(key <= query, scores, -math.inf)
    if window is not None and window < FAR:
        scores = where(key > query - window, scores, -math.inf)
    return scores


@operator(reference_attention, writes=("o", "lse"))
@kernel
def attention(
    q: Tensor["B", "H", "G", "S", "D"],
    k: Tensor["B", "H", "T", "D"],
    v: Tensor["B", "H", "T", "E"],
    o: Tensor["B", "H", "G", "S", "E"],
    scale: Scalar["f32"],
    lengths: Tensor["B"] = None,
    lse: Tensor["B", "H", "G", "S"] = None,
    k_scale: Tensor["H"] = None,
    v_scale: Tensor["H"] = None,
    *,
    causal=False,
    window=None,
):
    for b, h, g, s in parallel(each("B"), each("H"), "G", "S"):
        d, e = whole("D"), whole("E")
        length = size("T") if lengths is None else lengths[b].to(i64)
        offset = length - size("S")
        start, stop = _range(s, offset, length, causal, window)
        query = q[b, h, g, s, d]
        of_keys = None if k_scale is None else k_scale[h]
        top = full(g, s, value=LOWEST, dtype=f32)
        total = zeros(g, s, dtype=f32)
        acc = zeros(g, s, e, dtype=f32)
        for t in tiles("T", start=start, stop=stop):
            scores = dot(query, _as_wide(k[b, h, t, d], query).T) * _factor(scale, of_keys)
            scores = _masked(scores, coord(t), coord(s) + offset, causal, window)
            absorb(top, total, acc, scores, _as_wide(v[b, h, t, e], query), t)
        mean = mean_of(acc, total)
        o[b, h, g, s, e] = mean if v_scale is None else mean * v_scale[h]
        if lse is not None:
            lse[b, h, g, s] = logarithm(top, total)


def reference_paged_attention(
    q: Any, k_pages: Any, v_pages: Any, page_table: Any, lengths: Any, scale: float, k_scale: Any = None,
    v_scale: Any = None, causal: bool = True, window: int | None = None,
) -> dict[str, Exact]:  # fmt: skip
    """As attention, with the keys and values of sequence b in the pages page_table[b], in order."""
    room = page_table.shape[1] * k_pages.shape[2]
    k = np.zeros((q.shape[0], k_pages.shape[1], room, k_pages.shape[3]), k_pages.dtype)
    v = np.zeros((q.shape[0], v_pages.shape[1], room, v_pages.shape[3]), v_pages.dtype)
    page_size = k_pages.shape[2]
    for b, length in enumerate(lengths):
        for t in range(int(length)):
            page, place = page_table[b, t // page_size], t % page_size
            k[b, :, t], v[b, :, t] = k_pages[page, :, place], v_pages[page, :, place]
    return reference_attention(q, k, v, scale, lengths, causal, window, k_scale, v_scale)


@operator(reference_paged_attention, writes=("o", "lse"))
@kernel
def paged_attention(
    q: Tensor["B", "H", "G", "S", "D"],
    k_pages: Tensor["N", "H", "P", "D"],
    v_pages: Tensor["N", "H", "P", "E"],
    page_table: Tensor["B", "L"],
    lengths: Tensor["B"],
    o: Tensor["B", "H", "G", "S", "E"],
    scale: Scalar["f32"],
    lse: Tensor["B", "H", "G", "S"] = None,
    k_scale: Tensor["H"] = None,
    v_scale: Tensor["H"] = None,
    *,
    causal=True,
    window=None,
):
    for b, h, g, s in parallel(each("B"), each("H"), "G", "S"):
        d, e = whole("D"), whole("E")
        length, page_size = lengths[b].to(i64), size("P")
        offset = length - size("S")
        start, stop = _range(s, offset, length, causal, window)
        query = q[b, h, g, s, d]
        of_keys = None if k_scale is None else k_scale[h]
        top = full(g, s, value=LOWEST, dtype=f32)
        total = zeros(g, s, dtype=f32)
        acc = zeros(g, s, e, dtype=f32)
        for n in tiles(each("L"), start=start // page_size, stop=(stop + page_size - 1) // page_size):
            page, base = inside(page_table[b, n], "N"), coord(n) * page_size
            # Places from `stop` on are not visited: nobody has written them, so they may hold NaN.
            for p in tiles("P", start=maximum(start - base, 0), stop=minimum(stop - base, page_size)):
                scores = dot(query, _as_wide(k_pages[page, h, p, d], query).T) * _factor(scale, of_keys)
                scores = _masked(scores, base + coord(p), coord(s) + offset, causal, window)
                absorb(top, total, acc, scores, _as_wide(v_pages[page, h, p, e], query), p)
        mean = mean_of(acc, total)
        o[b, h, g, s, e] = mean if v_scale is None else mean * v_scale[h]
        if lse is not None:
            lse[b, h, g, s] = logarithm(top, total)
