"""Penalties: logits of tokens that a sequence has already are lowered, before its next token is chosen.

What a sequence has is told by `marks`, one number for each token of the vocabulary: twice the times that it was chosen,
and one more where it stands in the prompt.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tilewright.language import Tensor, each, f32, kernel, parallel, where
from tilewright.operators.operator import Exact, inside, operator, wide

CHOSEN, PROMPTED = 2, 1
"""What is added to the mark of a token when it is chosen; the mark of one that stands in the prompt."""


def reference_penalise(logits: Any, marks: Any, repetitions: Any, frequencies: Any, presences: Any) -> dict[str, Exact]:
    """y = x / r if x > 0 else x r, of tokens with a mark; less f times how often it was chosen; less p if it was."""
    x, chosen = wide(logits), np.asarray(marks) // CHOSEN
    by, often, once = (wide(a)[:, None] for a in (repetitions, frequencies, presences))
    with np.errstate(over="ignore", invalid="ignore"):
        scaled = np.where(np.asarray(marks) > 0, np.where(x > 0, x / by, x * by), x)
        taken = often * chosen, once * (chosen > 0)
        size = np.abs(scaled) + np.abs(taken[0]) + np.abs(taken[1])
        return {"y": Exact(scaled - taken[0] - taken[1], size, 3)}


@operator(reference_penalise, writes=("y",))
@kernel
def penalise(
    logits: Tensor["B", "V"],
    marks: Tensor["B", "V"].of("i32"),
    repetitions: Tensor["B"].of("f32"),
    frequencies: Tensor["B"].of("f32"),
    presences: Tensor["B"].of("f32"),
    y: Tensor["B", "V"].of("f32"),
):
    for b, v in parallel(each("B"), "V"):
        x, mark = logits[b, v].to(f32), marks[b, v]
        chosen = mark // CHOSEN
        x = where(mark > 0, where(x > 0.0, x / repetitions[b], x * repetitions[b]), x)
        y[b, v] = x - frequencies[b] * chosen.to(f32) - where(chosen > 0, presences[b], 0.0)


def reference_mark(chosen: Any, marks: Any) -> dict[str, Exact]:
    """The mark of token chosen[b] of sequence b is one choice higher."""
    more = np.asarray(marks).astype(np.int64)
    more[np.arange(len(more)), np.asarray(chosen)] += CHOSEN
    return {"marks": Exact.copied(more)}


@operator(reference_mark, writes=("marks",), updates=("marks",))
@kernel
def mark(chosen: Tensor["B"].of("i32"), marks: Tensor["B", "V"].of("i32")):
    for b in parallel(each("B")):
        at = inside(chosen[b], "V")
        marks[b, at] = marks[b, at] + CHOSEN
