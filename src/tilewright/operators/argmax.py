"""The largest element of each row, or the K largest, and where they are. Of equal ones the first counts."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from tilewright.language import Tensor, coord, each, f32, full, i32, kernel, maximum, minimum, parallel, tiles, where
from tilewright.operators.operator import Exact, operator, wide

_NOWHERE = 2**31 - 1


def _seen(x: Any) -> Any:
    """A NaN counts as +inf, so that it is seen and not skipped; inside a kernel, in f32."""
    v = x.to(f32)
    return where(v >= -math.inf, v, math.inf)


def reference_argmax(x: Any) -> dict[str, Exact]:
    """index = the first position of the maximum; a NaN counts as +inf."""
    x = wide(x)
    index = np.argmax(np.where(np.isnan(x), np.inf, x), axis=-1)
    return {"index": Exact.copied(index)}


@operator(reference_argmax, writes=("index",))
@kernel
def argmax(x: Tensor["M", "D"], index: Tensor["M"]):
    for i in parallel("M"):
        top = full(i, value=-math.inf, dtype=f32)
        for d in tiles("D"):
            top.update(maximum(top, _seen(x[i, d]).max(d)))
        # Two plain reductions, which any machine splits as it likes: a pair of value and place would be neither.
        found = full(i, value=_NOWHERE, dtype=i32)
        for d in tiles("D"):
            found.update(minimum(found, where(_seen(x[i, d]) == top, coord(d).to(i32), _NOWHERE).min(d)))
        index[i] = found


def reference_topk(x: Any, k: int = 1) -> dict[str, Exact]:
    """The k largest elements, largest first, and their positions; a NaN counts as +inf."""
    x = wide(x)
    seen = np.where(np.isnan(x), np.inf, x)
    index = np.argsort(-seen, axis=-1, kind="stable")[:, :k]
    return {"values": Exact.copied(np.take_along_axis(seen, index, -1)), "index": Exact.copied(index)}


@operator(reference_topk, writes=("values", "index"))
@kernel
def topk(x: Tensor["M", "D"], values: Tensor["M", "K"], index: Tensor["M", "K"], *, k=1):
    # `k` tells the reference how wide the outputs are; the program is the same for any.
    for i in parallel("M"):
        last, at = full(i, value=math.inf, dtype=f32), full(i, value=-1, dtype=i32)
        for n in tiles(each("K")):
            top = full(i, value=-math.inf, dtype=f32)
            for d in tiles("D"):
                v = _seen(x[i, d])
                top.update(maximum(top, where(_behind(v, d, last, at), v, -math.inf).max(d)))
            found = full(i, value=_NOWHERE, dtype=i32)
            before = where(top < last, -1, at)  # of the largest those up to the last one found are taken already
            for d in tiles("D"):
                here = (_seen(x[i, d]) == top) & (coord(d).to(i32) > before)
                found.update(minimum(found, where(here, coord(d).to(i32), _NOWHERE).min(d)))
            values[i, n], index[i, n] = top, found
            last.update(top)
            at.update(found)


def _behind(v: Any, d: Any, last: Any, at: Any) -> Any:
    """Whether elements come after the one at `at`, whose value is `last`: smaller, or equal and further on."""
    return (v < last) | ((v == last) & (coord(d).to(i32) > at))
