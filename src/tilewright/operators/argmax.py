"""The position of the largest element of each row; the first of them where several are equal."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from tilewright.language import Tensor, coord, f32, full, i32, kernel, parallel, tiles, where, zeros
from tilewright.operators.operator import Exact, operator, wide

_NOWHERE = 2**31 - 1


def reference_argmax(x: Any) -> dict[str, Exact]:
    """index = the first position of the maximum; a NaN counts as +inf, so that it is seen and not skipped."""
    x = wide(x)
    index = np.argmax(np.where(np.isnan(x), np.inf, x), axis=-1)
    return {"index": Exact.copied(index)}


@operator(reference_argmax, writes=("index",))
@kernel
def argmax(x: Tensor["M", "D"], index: Tensor["M"]):
    for i in parallel("M"):
        top = full(i, value=-math.inf, dtype=f32)
        found = zeros(i, dtype=i32)
        for d in tiles("D"):
            v = x[i, d].to(f32)
            v = where(v >= -math.inf, v, math.inf)
            largest = v.max(d)
            here = where(v == largest, coord(d).to(i32), _NOWHERE).min(d)
            # Strictly larger: an equal one further on is not the first.
            found.update(where(largest > top, here, found))
            top.update(where(largest > top, largest, top))
        index[i] = found
