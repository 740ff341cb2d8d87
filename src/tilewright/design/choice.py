"""Zero trials: the designs that the model thinks best, with nothing measured."""

from __future__ import annotations

from collections.abc import Callable

from tilewright.design.default import Facts
from tilewright.design.design import Design
from tilewright.design.space import pool
from tilewright.language import ir

POOL = 256
"""Designs that the model is asked about; each costs a check of legality and an estimate, about a millisecond both."""


def choose(
    kernel: ir.Kernel, facts: Facts, model: Callable[[Design], float], count: int = 1, *, size: int = POOL
) -> list[Design]:
    """The `count` best of a pool by the word of `model` (seconds for a design), best first, ties in canonical order.

    The pool holds the default, members of the drawn space and the neighbours of the best, about `size` in all; it
    depends on the program, the facts and the model alone, so every process and host chooses alike.
    """
    return pool(kernel, facts, model, size)[:count]


__all__ = ["POOL", "choose"]
