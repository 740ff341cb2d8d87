"""alpha A + B in one pass over the data."""

from __future__ import annotations

from typing import Any

import numpy as np

from tilewright.language import Scalar, Tensor, f32, kernel, parallel
from tilewright.operators.operator import Exact, operator, wide


def reference_scale_add(a: Any, b: Any, alpha: float) -> dict[str, Exact]:
    """c = alpha a + b."""
    a, b = wide(a), wide(b)
    return {"c": Exact(alpha * a + b, np.abs(alpha * a) + np.abs(b), 2)}


@operator(reference_scale_add, writes=("c",))
@kernel
def scale_add(a: Tensor["M", "D"], b: Tensor["M", "D"], c: Tensor["M", "D"], alpha: Scalar["f32"]):
    for i, d in parallel("M", "D"):
        c[i, d] = alpha * a[i, d].to(f32) + b[i, d]
