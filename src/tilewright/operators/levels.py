"""Which tokens may be drawn: those whose logits reach a level that top-k, min-p and top-p set; found without sorting.

A pass tries several levels between `low` and `high` at once: it counts the tokens that reach each, and adds up their
weights exp((x - top) / temperature). The next pass looks between the highest level that keeps enough and the next one
above, until both are neighbours: tokens closer than that are kept or dropped together, as equal ones always are.
`shares`, f32 [J], say where levels lie: 0, 1/J, ... of the way from `low` to `high`.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from tilewright.language import Tensor, each, exp, f32, full, kernel, maximum, minimum, parallel, tiles, where, zeros
from tilewright.operators.operator import Array64, Exact, operator, wide

_ABOVE, _LEAST = 2.0**-20, 1e-30  # of what is largest, and at all: how far `high` begins above it


def _levels(low: Array64, high: Array64, shares: Any) -> Exact:
    """low[b] + shares[j] (high[b] - low[b]), and the size of its terms."""
    low, high = low[:, None], high[:, None]
    size = np.broadcast_to(2 * np.abs(low) + np.abs(high), (len(low), len(shares)))
    return Exact(low + wide(shares) * (high - low), size, 4)


def _above(top: Any) -> Any:
    """Where no token is any more, for the reference."""
    return top + np.abs(top) * _ABOVE + _LEAST


def _higher(top: Any) -> Any:
    """The same, inside a kernel."""
    return top + maximum(top, 0.0 - top) * _ABOVE + _LEAST


def _between(low: Any, high: Any, share: Any) -> Any:
    """The level that lies so far from `low` to `high`, inside a kernel."""
    return low + share * (high - low)


def reference_level_begin(score: Any, temperatures: Any, cuts: Any, shares: Any) -> dict[str, Exact]:
    """top[b] = the largest score; low[b] lies cuts[b] temperatures[b] from it, high[b] just above; levels between."""
    top = np.max(wide(score), axis=-1)
    reach = wide(cuts) * wide(temperatures)
    low, high = top + reach, _above(top)
    return {
        "top": Exact.copied(top), "low": Exact(low, np.abs(top) + np.abs(reach), 2),
        "high": Exact(high, 2 * np.abs(top) + _LEAST, 3), "levels": _levels(low, high, shares),
    }  # fmt: skip


@operator(reference_level_begin, writes=("top", "low", "high", "levels"))
@kernel
def level_begin(
    score: Tensor["B", "C"].of("f32"),
    temperatures: Tensor["B"].of("f32"),
    cuts: Tensor["B"].of("f32"),
    shares: Tensor["J"].of("f32"),
    top: Tensor["B"].of("f32"),
    low: Tensor["B"].of("f32"),
    high: Tensor["B"].of("f32"),
    levels: Tensor["B", "J"].of("f32"),
):
    for b in parallel(each("B")):
        best = full(value=-math.inf, dtype=f32)
        for c in tiles("C"):
            best.update(maximum(best, score[b, c].max(c)))
        begin, end = best + cuts[b] * temperatures[b], _higher(best)
        for j in tiles("J"):
            levels[b, j] = _between(begin, end, shares[j])
        top[b], low[b], high[b] = best, begin, end


def reference_level_again(top: Any, low: Any, kept: Any, portions: Any, shares: Any) -> dict[str, Exact]:
    """least[b] = portions[b] of kept[b], or more than there is where that is 1; levels from low[b] to above top[b]."""
    top, low, portions = wide(top), wide(low), wide(portions)
    least, high = np.where(portions < 1, portions * wide(kept), np.inf), _above(top)
    return {
        "least": Exact(least, np.abs(least), 1), "high": Exact(high, 2 * np.abs(top) + _LEAST, 3),
        "levels": _levels(low, high, shares),
    }  # fmt: skip


@operator(reference_level_again, writes=("least", "high", "levels"))
@kernel
def level_again(
    top: Tensor["B"].of("f32"),
    low: Tensor["B"].of("f32"),
    kept: Tensor["B"].of("f32"),
    portions: Tensor["B"].of("f32"),
    shares: Tensor["J"].of("f32"),
    least: Tensor["B"].of("f32"),
    high: Tensor["B"].of("f32"),
    levels: Tensor["B", "J"].of("f32"),
):
    for b in parallel(each("B")):
        begin, end = low[b], _higher(top[b])
        for j in tiles("J"):
            levels[b, j] = _between(begin, end, shares[j])
        least[b] = where(portions[b] < 1.0, portions[b] * kept[b], math.inf)
        high[b] = end


def reference_level_parts(logits: Any, levels: Any, top: Any, temperatures: Any) -> dict[str, Exact]:
    """count[b, j, c] = how many logits of part c reach levels[b, j], mass[b, j, c] = their weights, each at most 1."""
    x, heat = wide(logits)[:, None], wide(temperatures)[:, None, None, None]
    with np.errstate(invalid="ignore"):
        distance = np.minimum((x - wide(top)[:, None, None, None]) / np.where(heat > 0, heat, 1.0), 0.0)
    reached = x >= wide(levels)[:, :, None, None]
    weight = np.where(reached, np.exp(distance), 0.0)
    size = np.where(reached, weight * (1 + np.abs(np.where(weight > 0, distance, 0.0))), 0.0)
    return {
        "count": Exact.copied(reached.sum(-1).astype(np.float64)),
        "mass": Exact(weight.sum(-1), size.sum(-1), x.shape[-1] + 4),
    }


@operator(reference_level_parts, writes=("count", "mass"))
@kernel
def level_parts(
    logits: Tensor["B", "C", "D"],
    levels: Tensor["B", "J"].of("f32"),
    top: Tensor["B"].of("f32"),
    temperatures: Tensor["B"].of("f32"),
    count: Tensor["B", "J", "C"].of("f32"),
    mass: Tensor["B", "J", "C"].of("f32"),
):
    for b, c, j in parallel(each("B"), each("C"), "J"):
        cool = 1.0 / where(temperatures[b] > 0.0, temperatures[b], 1.0)
        many, much = zeros(j, dtype=f32), zeros(j, dtype=f32)
        for d in tiles("D"):
            v = logits[b, c, d].to(f32)
            reached = v >= levels[b, j]
            many += where(reached, 1.0, 0.0).sum(d)
            much += where(reached, exp(minimum((v - top[b]) * cool, 0.0)), 0.0).sum(d)
        count[b, j, c] = many
        mass[b, j, c] = much


def reference_level_join(
    count: Any, mass: Any, levels: Any, fewest: Any, least: Any, shares: Any, low: Any, high: Any
) -> dict[str, Exact]:
    """low[b] becomes the highest level that `fewest` tokens of mass `least` reach, high[b] the lowest that too few do.

    kept[b] = the mass of what reaches the new low[b]; finer[b, j] = levels between both. levels[b, 0] is the old low.
    """
    levels, many, much = wide(levels), wide(count).sum(-1), wide(mass).sum(-1)
    enough = (many >= wide(fewest)[:, None]) & (much >= wide(least)[:, None])
    under = np.maximum(wide(low), np.where(enough, levels, -np.inf).max(-1))
    over = np.minimum(wide(high), np.where(enough, np.inf, levels).min(-1))
    kept = np.minimum(much.max(-1), np.where(enough, much, np.inf).min(-1))
    return {
        "low": Exact.copied(under), "high": Exact.copied(over), "kept": Exact(kept, kept, mass.shape[-1]),
        "finer": _levels(under, over, shares),
    }  # fmt: skip


@operator(reference_level_join, writes=("low", "high", "kept", "finer"), updates=("low", "high"))
@kernel
def level_join(
    count: Tensor["B", "J", "C"].of("f32"),
    mass: Tensor["B", "J", "C"].of("f32"),
    levels: Tensor["B", "J"].of("f32"),
    fewest: Tensor["B"].of("f32"),
    least: Tensor["B"].of("f32"),
    shares: Tensor["J"].of("f32"),
    low: Tensor["B"].of("f32"),
    high: Tensor["B"].of("f32"),
    kept: Tensor["B"].of("f32"),
    finer: Tensor["B", "J"].of("f32"),
):
    for b in parallel(each("B")):
        under, over = full(value=low[b], dtype=f32), full(value=high[b], dtype=f32)
        most, held = zeros(dtype=f32), full(value=math.inf, dtype=f32)
        for j in tiles("J"):
            many, much = zeros(j, dtype=f32), zeros(j, dtype=f32)
            for c in tiles("C"):
                many += count[b, j, c].sum(c)
                much += mass[b, j, c].sum(c)
            enough = (many >= fewest[b]) & (much >= least[b])
            under.update(maximum(under, where(enough, levels[b, j], -math.inf).max(j)))
            over.update(minimum(over, where(enough, math.inf, levels[b, j]).min(j)))
            most.update(maximum(most, much.max(j)))
            held.update(minimum(held, where(enough, much, math.inf).min(j)))
        for j in tiles("J"):
            finer[b, j] = _between(under, over, shares[j])
        low[b], high[b], kept[b] = under, over, minimum(most, held)
