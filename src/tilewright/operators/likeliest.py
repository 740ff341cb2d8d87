"""The likeliest tokens of each sequence, and what probabilities are made from, without leaving the machine.

Two passes: the best K of each part of the vocabulary and the log-sum-exp of the part, then the best K of those, the
log-sum-exp of all, and the logit of the token that was chosen. The logarithm of a token's probability is its logit less
the log-sum-exp. Of equal logits the lowest token comes first; NaN counts as +inf.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from tilewright.language import (
    Tensor,
    coord,
    each,
    exp,
    f32,
    full,
    i32,
    kernel,
    log,
    maximum,
    minimum,
    parallel,
    size,
    tiles,
    where,
    zeros,
)
from tilewright.operators.operator import Array64, Exact, inside, operator, wide

NOWHERE = 2**31 - 1
"""The token in places that a vocabulary has no more tokens for; its logit is -inf."""


def _ranked(x: Array64, tokens: Any, k: int) -> tuple[Exact, Exact]:
    """The k largest of the last dimension and their tokens, which rise along it; of as many as there are."""
    order = np.argsort(-x, axis=-1, kind="stable")[..., :k]
    ends = [(0, 0)] * (x.ndim - 1) + [(0, k - order.shape[-1])]
    values, found = (np.take_along_axis(a, order, -1) for a in (x, np.broadcast_to(tokens, x.shape)))
    return Exact.copied(np.pad(values, ends, constant_values=-np.inf)), Exact.copied(
        np.pad(found, ends, constant_values=NOWHERE)
    )


def _summed(x: Array64) -> Exact:
    """log(sum(exp(x))) of the last dimension."""
    top = x.max(-1)
    with np.errstate(invalid="ignore", divide="ignore"):
        rest = np.log(np.where(x > -np.inf, np.exp(x - top[..., None]), 0.0).sum(-1))
    return Exact(top + rest, np.abs(top) + np.abs(rest) + 1, x.shape[-1])


def reference_likeliest_parts(logits: Any, k: int = 1) -> dict[str, Exact]:
    """Of each part the k largest logits, their tokens, and log(sum(exp(x)))."""
    x = wide(logits)
    x = np.where(np.isnan(x), np.inf, x)
    tokens = np.arange(x.shape[1] * x.shape[2]).reshape(x.shape[1:])
    value, token = _ranked(x, tokens, k)
    return {"value": value, "token": token, "part": _summed(x)}


@operator(reference_likeliest_parts, writes=("value", "token", "part"))
@kernel
def likeliest_parts(
    logits: Tensor["B", "C", "D"],
    value: Tensor["B", "C", "K"].of("f32"),
    token: Tensor["B", "C", "K"].of("i32"),
    part: Tensor["B", "C"].of("f32"),
    *,
    k=1,
):
    # `k` tells the reference how wide the outputs are; the program is the same for any.
    for b, c in parallel(each("B"), each("C")):
        first = (coord(c) * size("D")).to(i32)
        most, sum_ = full(value=-math.inf, dtype=f32), zeros(dtype=f32)
        for d in tiles("D"):
            most.update(maximum(most, _seen(logits[b, c, d]).max(d)))
        for d in tiles("D"):
            v = _seen(logits[b, c, d])
            sum_ += where(v > -math.inf, exp(v - most), 0.0).sum(d)
        part[b, c] = most + log(sum_)
        last, at = full(value=math.inf, dtype=f32), full(value=-1, dtype=i32)
        for n in tiles(each("K")):
            top = full(value=-math.inf, dtype=f32)
            for d in tiles("D"):
                v, t = _seen(logits[b, c, d]), coord(d).to(i32) + first
                top.update(maximum(top, where(_behind(v, t, last, at), v, -math.inf).max(d)))
            found, taken = full(value=NOWHERE, dtype=i32), where(top < last, -1, at)
            for d in tiles("D"):
                v, t = _seen(logits[b, c, d]), coord(d).to(i32) + first
                found.update(minimum(found, where((v == top) & (t > taken), t, NOWHERE).min(d)))
            value[b, c, n], token[b, c, n] = top, found
            last.update(top)
            at.update(found)


def _seen(x: Any) -> Any:
    """A NaN counts as +inf, so that it is seen and not skipped; inside a kernel, in f32."""
    v = x.to(f32)
    return where(v >= -math.inf, v, math.inf)


def _behind(v: Any, token: Any, last: Any, at: Any) -> Any:
    """Whether elements come after token `at`, whose logit is `last`: smaller, or equal and of a higher number."""
    return (v < last) | ((v == last) & (token > at))


def reference_likeliest_join(
    value: Any, token: Any, part: Any, logits: Any, chosen: Any, k: int = 1
) -> dict[str, Exact]:
    """The k largest of all parts and their tokens; lse[b] = log(sum(exp(part))); logit[b] = logits[b, chosen[b]]."""
    best, tokens = _ranked(wide(value), np.asarray(token).astype(np.int64), k)
    logit = wide(logits)[np.arange(len(chosen)), np.asarray(chosen)]
    return {"values": best, "tokens": tokens, "lse": _summed(wide(part)), "logit": Exact.copied(logit)}


@operator(reference_likeliest_join, writes=("values", "tokens", "lse", "logit"))
@kernel
def likeliest_join(
    value: Tensor["B", "N"].of("f32"),
    token: Tensor["B", "N"].of("i32"),
    part: Tensor["B", "C"].of("f32"),
    logits: Tensor["B", "V"],
    chosen: Tensor["B"].of("i32"),
    values: Tensor["B", "K"].of("f32"),
    tokens: Tensor["B", "K"].of("i32"),
    lse: Tensor["B"].of("f32"),
    logit: Tensor["B"].of("f32"),
    *,
    k=1,
):
    for b in parallel(each("B")):
        most, sum_ = full(value=-math.inf, dtype=f32), zeros(dtype=f32)
        for c in tiles("C"):
            most.update(maximum(most, part[b, c].max(c)))
        for c in tiles("C"):
            x = part[b, c]
            sum_ += where(x > -math.inf, exp(x - most), 0.0).sum(c)
        lse[b], logit[b] = most + log(sum_), logits[b, inside(chosen[b], "V")].to(f32)
        last, at = full(value=math.inf, dtype=f32), full(value=-1, dtype=i32)
        for n in tiles(each("K")):
            top = full(value=-math.inf, dtype=f32)
            for m in tiles("N"):
                v = value[b, m]
                top.update(maximum(top, where(_behind(v, token[b, m], last, at), v, -math.inf).max(m)))
            found, taken = full(value=NOWHERE, dtype=i32), where(top < last, -1, at)
            for m in tiles("N"):
                t = token[b, m]
                found.update(minimum(found, where((value[b, m] == top) & (t > taken), t, NOWHERE).min(m)))
            values[b, n], tokens[b, n] = top, found
            last.update(top)
            at.update(found)
