"""Rotary position embedding, alone and fused with the write to the KV cache.

Pairs of elements turn by an angle that grows with the position (Su et al., arXiv:2104.09864). A head is seen
as [2, R]: element r of each half is a pair. That is a view of the NeoX layout with strides (R, 1) and of the
interleaved layout with strides (1, 2), so that both are one program; cos and sin are seen in the same way.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tilewright.language import (
    Scalar,
    Tensor,
    coord,
    each,
    f32,
    i64,
    kernel,
    maximum,
    minimum,
    parallel,
    rsqrt,
    size,
    tiles,
    whole,
)
from tilewright.operators.operator import Array64, Exact, inside, operator, wide


def _turned(x: Array64, cos: Array64, sin: Array64) -> Array64:
    """x[..., 2, R] turned by the angles of cos and sin[..., 2, R]."""
    crossed = np.stack([-x[..., 1, :], x[..., 0, :]], axis=-2)
    result: Array64 = x * cos + crossed * sin
    return result


def _turned_size(x: Array64, cos: Array64, sin: Array64) -> Array64:
    """The sum of absolute values of the two terms of each element that `_turned` gives."""
    result: Array64 = np.abs(x * cos) + np.abs(x[..., ::-1, :] * sin)
    return result


def _turn(x0: Any, x1: Any, cos: tuple[Any, Any], sin: tuple[Any, Any]) -> tuple[Any, Any]:
    """The pair (x0, x1) of tiles turned, inside a kernel."""
    return x0 * cos[0] - x1 * sin[0], x1 * cos[1] + x0 * sin[1]


def _turn_back(x0: Any, x1: Any, cos: tuple[Any, Any], sin: tuple[Any, Any]) -> tuple[Any, Any]:
    """The transpose of `_turn`: the sine of the other half, negated. Halves are alike in all tables of models."""
    return x0 * cos[0] + x1 * sin[1], x1 * cos[1] - x0 * sin[0]


def reference_rope(
    x: Any, cos: Any, sin: Any, positions: Any = None, rest: Any = None, inverse: bool = False
) -> dict[str, Exact]:
    """y = x turned by row `positions[b, s]` of cos and sin (row s without positions), or turned back; rest_y = rest."""
    rows = np.arange(x.shape[1])[None] if positions is None else positions
    x, cos, sin = wide(x), wide(cos)[rows][:, :, None], wide(sin)[rows][:, :, None]
    sin = -sin[..., ::-1, :] if inverse else sin
    exact = {"y": Exact(_turned(x, cos, sin), _turned_size(x, cos, sin), 2)}
    return exact if rest is None else {**exact, "rest_y": Exact.copied(wide(rest))}


@operator(reference_rope, writes=("y", "rest_y"))
@kernel
def rope(
    x: Tensor["B", "S", "H", 2, "R"],
    cos: Tensor["P", 2, "R"],
    sin: Tensor["P", 2, "R"],
    y: Tensor["B", "S", "H", 2, "R"],
    positions: Tensor["B", "S"] = None,
    rest: Tensor["B", "S", "H", "E"] = None,
    rest_y: Tensor["B", "S", "H", "E"] = None,
    *,
    inverse=False,
):
    turn = _turn_back if inverse else _turn
    for b, s, h in parallel(each("B"), each("S"), "H"):
        p = coord(s) if positions is None else inside(positions[b, s], "P")
        r = whole("R")
        turned = turn(x[b, s, h, 0, r].to(f32), x[b, s, h, 1, r].to(f32), *_row(cos, sin, p, r))
        y[b, s, h, 0, r] = turned[0]
        y[b, s, h, 1, r] = turned[1]
        if rest is not None:
            e = whole("E")
            rest_y[b, s, h, e] = rest[b, s, h, e]


def _row(cos: Any, sin: Any, p: Any, r: Any) -> tuple[tuple[Any, Any], tuple[Any, Any]]:
    """Row `p` of cos and of sin, each as its two halves."""
    return (cos[p, 0, r], cos[p, 1, r]), (sin[p, 0, r], sin[p, 1, r])


# ------------------------------------------------------------------------------------------- with the cache


def _normed(x: Array64, weight: Any, eps: float) -> Array64:
    """Heads x[..., 2, R] after RMSNorm over both halves; as they are without a weight."""
    if weight is None:
        return x
    result: Array64 = x / np.sqrt(np.mean(x * x, axis=(-2, -1), keepdims=True) + eps) * wide(weight)
    return result


def _norm(x0: Any, x1: Any, weight: Any, eps: Any, r: Any) -> tuple[Any, Any]:
    """The halves (x0, x1) of heads after RMSNorm over both, inside a kernel; as they are without a weight."""
    if weight is None:
        return x0, x1
    squares = (x0 * x0).sum(r) + (x1 * x1).sum(r)
    scale = rsqrt(squares / (2.0 * size("R").to(f32)) + eps)
    return x0 * scale * weight[0, r], x1 * scale * weight[1, r]


MOST = 448.0
"""The largest number of 8 bits (e4m3, no infinity): what is scaled to be stored in a cache ends there."""


def _stored(x: Any, scale: Any) -> Any:
    """`x` as a cache holds it: divided by its scale, and no larger than what 8 bits can hold; as it is without one."""
    return x if scale is None else maximum(minimum(x.to(f32) / scale, MOST), -MOST)


def reference_rope_cache(
    q: Any, k: Any, v: Any, cos: Any, sin: Any, positions: Any, k_cache: Any, v_cache: Any,
    eps: float, q_norm: Any = None, k_norm: Any = None, k_scale: Any = None, v_scale: Any = None,
) -> dict[str, Exact]:  # fmt: skip
    """q_out = rope(norm(q)); k_cache[b, :, positions[b, s]] = rope(norm(k)) / k_scale; v_cache[...] = v / v_scale."""
    batch = np.arange(q.shape[0])[:, None]
    place = (batch, slice(None), positions)
    scales = k_scale, v_scale
    return _reference_cached(q, k, v, cos, sin, positions, k_cache, v_cache, eps, q_norm, k_norm, scales, place)


def _reference_cached(
    q: Any, k: Any, v: Any, cos: Any, sin: Any, positions: Any, k_cache: Any, v_cache: Any,
    eps: float, q_norm: Any, k_norm: Any, scales: tuple[Any, Any], place: Any,
) -> dict[str, Exact]:  # fmt: skip
    cos, sin = wide(cos)[positions][..., None, :, :], wide(sin)[positions][..., None, :, :]
    q, k = _normed(wide(q), q_norm, eps), _normed(wide(k), k_norm, eps)
    keys, values = wide(k_cache), wide(v_cache)
    sizes = np.abs(keys)
    of_keys, of_values = (np.ones(keys.shape[1]) if s is None else wide(s) for s in scales)
    of_keys, of_values = of_keys[:, None, None], of_values[:, None]
    keys[place], sizes[place] = _held(_turned(k, cos, sin) / of_keys, scales[0]), _turned_size(k, cos, sin) / of_keys
    values[place] = _held(wide(v) / of_values, scales[1])
    terms = 2 + 2 * q.shape[-1]
    return {
        "q_out": Exact(_turned(q, cos, sin), _turned_size(q, cos, sin), terms),
        "k_cache": Exact(keys, sizes, terms),
        "v_cache": Exact.copied(values) if scales[1] is None else Exact(values, np.abs(values)),
    }


def _held(x: Array64, scale: Any) -> Array64:
    """What a cache can hold of `x`, if it has a scale."""
    return x if scale is None else np.clip(x, -MOST, MOST)


@operator(reference_rope_cache, writes=("q_out", "k_cache", "v_cache"), updates=("k_cache", "v_cache"))
@kernel
def rope_cache(
    q: Tensor["B", "S", "Q", 2, "R"],
    k: Tensor["B", "S", "H", 2, "R"],
    v: Tensor["B", "S", "H", "D"],
    cos: Tensor["P", 2, "R"],
    sin: Tensor["P", 2, "R"],
    positions: Tensor["B", "S"],
    q_out: Tensor["B", "S", "Q", 2, "R"],
    k_cache: Tensor["B", "H", "T", 2, "R"],
    v_cache: Tensor["B", "H", "T", "D"],
    eps: Scalar["f32"],
    q_norm: Tensor[2, "R"] = None,
    k_norm: Tensor[2, "R"] = None,
    k_scale: Tensor["H"] = None,
    v_scale: Tensor["H"] = None,
):
    for b, s in parallel(each("B"), each("S")):
        p = inside(positions[b, s], "P", "T")
        r, e = whole("R"), whole("D")
        row = _row(cos, sin, p, r)
        for h in tiles("Q"):
            halves = _norm(q[b, s, h, 0, r].to(f32), q[b, s, h, 1, r].to(f32), q_norm, eps, r)
            q_out[b, s, h, 0, r], q_out[b, s, h, 1, r] = _turn(*halves, *row)
        for h in tiles("H"):
            halves = _norm(k[b, s, h, 0, r].to(f32), k[b, s, h, 1, r].to(f32), k_norm, eps, r)
            of_keys, of_values = _scales(k_scale, v_scale, h)
            k_cache[b, h, p, 0, r], k_cache[b, h, p, 1, r] = (_stored(x, of_keys) for x in _turn(*halves, *row))
            v_cache[b, h, p, e] = _stored(v[b, s, h, e], of_values)


def _scales(k_scale: Any, v_scale: Any, h: Any) -> tuple[Any, Any]:
    """Scales of the heads `h` of keys and of values, inside a kernel; None where there are none."""
    return (None, None) if k_scale is None else (k_scale[h], v_scale[h])


def reference_paged_rope_cache(
    q: Any, k: Any, v: Any, cos: Any, sin: Any, positions: Any, slots: Any, k_pages: Any, v_pages: Any,
    eps: float, q_norm: Any = None, k_norm: Any = None, k_scale: Any = None, v_scale: Any = None,
) -> dict[str, Exact]:  # fmt: skip
    """As rope_cache, for a list of tokens; token n goes to page slots[n] // L at slots[n] % L."""
    length = k_pages.shape[2]
    place = (slots // length, slice(None), slots % length)
    scales = k_scale, v_scale
    exact = _reference_cached(q, k, v, cos, sin, positions, k_pages, v_pages, eps, q_norm, k_norm, scales, place)
    return {"q_out": exact["q_out"], "k_pages": exact["k_cache"], "v_pages": exact["v_cache"]}


@operator(reference_paged_rope_cache, writes=("q_out", "k_pages", "v_pages"), updates=("k_pages", "v_pages"))
@kernel
def paged_rope_cache(
    q: Tensor["T", "Q", 2, "R"],
    k: Tensor["T", "H", 2, "R"],
    v: Tensor["T", "H", "D"],
    cos: Tensor["P", 2, "R"],
    sin: Tensor["P", 2, "R"],
    positions: Tensor["T"],
    slots: Tensor["T"],
    q_out: Tensor["T", "Q", 2, "R"],
    k_pages: Tensor["N", "H", "L", 2, "R"],
    v_pages: Tensor["N", "H", "L", "D"],
    eps: Scalar["f32"],
    q_norm: Tensor[2, "R"] = None,
    k_norm: Tensor[2, "R"] = None,
    k_scale: Tensor["H"] = None,
    v_scale: Tensor["H"] = None,
):
    for n in parallel(each("T")):
        slot = maximum(slots[n].to(i64), 0)
        page, place = inside(slot // size("L"), "N"), slot % size("L")
        r, e = whole("R"), whole("D")
        row = _row(cos, sin, inside(positions[n], "P"), r)
        for h in tiles("Q"):
            halves = _norm(q[n, h, 0, r].to(f32), q[n, h, 1, r].to(f32), q_norm, eps, r)
            q_out[n, h, 0, r], q_out[n, h, 1, r] = _turn(*halves, *row)
        for h in tiles("H"):
            halves = _norm(k[n, h, 0, r].to(f32), k[n, h, 1, r].to(f32), k_norm, eps, r)
            of_keys, of_values = _scales(k_scale, v_scale, h)
            turned = (_stored(x, of_keys) for x in _turn(*halves, *row))
            k_pages[page, h, place, 0, r], k_pages[page, h, place, 1, r] = turned
            v_pages[page, h, place, e] = _stored(v[n, h, e], of_values)
