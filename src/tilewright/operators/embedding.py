"""Rows of a table, picked by their numbers."""

from __future__ import annotations

from typing import Any

from tilewright.language import Tensor, each, kernel, parallel
from tilewright.operators.operator import Exact, inside, operator, wide


def reference_embedding(ids: Any, table: Any) -> dict[str, Exact]:
    """y[n] = table[ids[n]]."""
    return {"y": Exact.copied(wide(table[ids]))}


@operator(reference_embedding, writes=("y",))
@kernel
def embedding(ids: Tensor["N"], table: Tensor["V", "D"], y: Tensor["N", "D"]):
    for n, d in parallel(each("N"), "D"):
        y[n, d] = table[inside(ids[n], "V"), d]
