"""The next token of each sequence: the likeliest one, or one drawn at a temperature, without leaving the machine.

To draw from softmax(x / t) is to take the maximum of x / t + g, where the g are independent draws from Gumbel's
distribution (Gumbel 1954; Maddison et al., arXiv:1411.0030). Each g comes from a hash of the request's seed, the
token's place in its sequence and its number in the vocabulary, so that a request draws the same tokens whatever runs
beside it, and a pass that is run again gives the same. Two passes: the best of each part of the vocabulary, then the
best of those; the lowest id among equals.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from tilewright.language import (
    Tensor,
    coord,
    each,
    f32,
    full,
    i32,
    i64,
    kernel,
    log,
    parallel,
    size,
    tiles,
    where,
    zeros,
)
from tilewright.operators.operator import Array64, Exact, operator, wide

_NOWHERE = 2**31 - 1
# Residues of this prime are mixed by x -> x^5, which permutes them: 5 has no factor in common with PRIME - 1.
PRIME = 2**31 - 1
_SEEDS, _PLACES, _IDS = 1103515245, 362437, 741103597
_DROPPED = 256  # the lowest bits of a residue: what is left has as many digits as an f32


def _modulo(x: Any) -> Any:
    """x modulo PRIME, by the division that every integer has."""
    return x % PRIME


def _folded(x: Any) -> Any:
    """The same for x from 0 to below 2^62, inside a kernel: 2^31 counts as 1, so that shifts are enough."""
    over = (x // (PRIME + 1)).to(i32) - PRIME + (x % (PRIME + 1)).to(i32)
    return where(over < 0, over + PRIME, over).to(i64)


def _fifth(x: Any, reduced: Callable[[Any], Any] = _modulo) -> Any:
    """x^5 modulo PRIME, of integers of 64 bits."""
    square = reduced(x * x)
    return reduced(reduced(square * square) * x)


def _uniform(seed: Any, place: Any, token: Any, reduced: Callable[[Any], Any] = _modulo) -> Any:
    """An integer in [0, 2^23) for each token: the same for the same three numbers."""
    key = _fifth((seed * _SEEDS + place * _PLACES + 1) % PRIME)
    mixed = _fifth(reduced(key + token * _IDS), reduced)
    return _fifth(reduced(mixed + key), reduced) // _DROPPED


def gumbel(seeds: Any, places: Any, tokens: Any) -> Array64:
    """What is added to the scores of `tokens`, in float64."""
    with np.errstate(over="ignore"):
        drawn = _uniform(*(np.asarray(x).astype(np.int64) for x in (seeds, places, tokens)))
    result: Array64 = -np.log(-np.log((drawn + 0.5) * 2.0**-23))
    return result


def _scores(logits: Any, temperatures: Any, seeds: Any, places: Any) -> tuple[Array64, Array64]:
    """What is compared, f64 [B, C, D], and how large the terms are that it is the sum of."""
    x = wide(logits)
    x = np.where(np.isnan(x), np.inf, x)
    tokens = np.arange(x.shape[1] * x.shape[2]).reshape(1, *x.shape[1:])
    heat = wide(temperatures)[:, None, None]
    noise = gumbel(np.asarray(seeds)[:, None, None], np.asarray(places)[:, None, None], tokens)
    hot = heat > 0
    scaled = x / np.where(hot, heat, 1.0)
    return scaled + np.where(hot, noise, 0.0), np.abs(scaled) + np.where(hot, np.abs(noise) + 1.0, 0.0)


def _warmed(v: Any, heat: Any, share: Any) -> Any:
    """v / heat with Gumbel's noise, from uniform `share`, inside a kernel; v itself at heat 0."""
    noise = where(heat > 0.0, 1.0, 0.0)
    cool = 1.0 / where(heat > 0.0, heat, 1.0)
    return v * cool + noise * (0.0 - log(0.0 - log(share)))


def reference_sample_parts(
    logits: Any, temperatures: Any = None, seeds: Any = None, places: Any = None, floors: Any = None
) -> dict[str, Exact]:
    """score[b, c] = the largest of x / t + g in part c; token[b, c] = where it is, the first of equals.

    Without temperatures all are 0: the likeliest token is taken. Logits below floors[b] do not count.
    """
    cold = np.zeros(len(logits), np.int32)
    given = (temperatures, seeds, places) if temperatures is not None else (cold, cold, cold)
    scores, sizes = _scores(logits, *given)
    if floors is not None:
        scores = np.where(wide(logits) < wide(floors)[:, None, None], -np.inf, scores)
    best = np.argmax(scores, axis=-1)
    pick = best[..., None]
    value, magnitude = (np.take_along_axis(a, pick, -1)[..., 0] for a in (scores, sizes))
    first = np.arange(scores.shape[1]) * scores.shape[2]
    return {"score": Exact(value, magnitude, 4), "token": Exact.copied(best + first)}


@operator(reference_sample_parts, writes=("score", "token"))
@kernel
def sample_parts(
    logits: Tensor["B", "C", "D"],
    score: Tensor["B", "C"].of("f32"),
    token: Tensor["B", "C"].of("i32"),
    temperatures: Tensor["B"].of("f32") = None,
    seeds: Tensor["B"].of("i32") = None,
    places: Tensor["B"].of("i32") = None,
    floors: Tensor["B"].of("f32") = None,
):
    for b, c in parallel(each("B"), each("C")):
        first = coord(c) * size("D")
        top = full(value=-math.inf, dtype=f32)
        found = full(value=first.to(i32), dtype=i32)
        for d in tiles("D"):
            v = logits[b, c, d].to(f32)
            v = where(v >= -math.inf, v, math.inf)
            kept = v >= floors[b] if floors is not None else None
            if temperatures is not None:
                drawn = _uniform(seeds[b].to(i64), places[b].to(i64), coord(d) + first, _folded)
                v = _warmed(v, temperatures[b], (drawn.to(f32) + 0.5) * 2.0**-23)
            if kept is not None:
                v = where(kept, v, -math.inf)
            largest = v.max(d)
            here = where(v == largest, (coord(d) + first).to(i32), _NOWHERE).min(d)
            found.update(where(largest > top, here, found))
            top.update(where(largest > top, largest, top))
        score[b, c] = top
        token[b, c] = found


def reference_sample_join(score: Any, token: Any, place: Any, length: Any) -> dict[str, Exact]:
    """chosen[b] = the token of the best part, the first of equals; peak[b] its score; place and length one further."""
    scores = wide(score)
    best = np.argmax(scores, axis=-1)[:, None]
    return {
        "chosen": Exact.copied(np.take_along_axis(np.asarray(token), best, -1)[:, 0].astype(np.int64)),
        "peak": Exact.copied(np.take_along_axis(scores, best, -1)[:, 0]),
        "place": Exact.copied(np.asarray(place).astype(np.int64) + 1),
        "length": Exact.copied(np.asarray(length).astype(np.int64) + 1),
    }


@operator(reference_sample_join, writes=("chosen", "peak", "place", "length"), updates=("place", "length"))
@kernel
def sample_join(
    score: Tensor["B", "C"].of("f32"),
    token: Tensor["B", "C"].of("i32"),
    chosen: Tensor["B"].of("i32"),
    peak: Tensor["B"].of("f32"),
    place: Tensor["B"].of("i32"),
    length: Tensor["B"].of("i32"),
):
    for b in parallel(each("B")):
        next_place, next_length = place[b] + 1, length[b] + 1
        top = full(value=-math.inf, dtype=f32)
        found = zeros(dtype=i32)
        for c in tiles("C"):
            v = score[b, c]
            largest = v.max(c)
            here = where(v == largest, token[b, c], _NOWHERE).min(c)
            found.update(where(largest > top, here, found))
            top.update(where(largest > top, largest, top))
        chosen[b] = found
        peak[b] = top
        place[b] = next_place
        length[b] = next_length
