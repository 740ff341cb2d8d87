"""A served trace made up: requests whose lengths have a heavy tail, the same for the same seed."""

from __future__ import annotations

import math
import random

from tilewright.errors import ArgumentError
from tilewright.observe.trace import Request, Trace

REQUESTS, LONGEST = 2000, 2048
MEDIAN, SPREAD = 96.0, 1.25
"""A log-normal body: half of the prompts are shorter than the median, 2% longer than about 13 times that."""


def served_trace(requests: int = REQUESTS, longest: int = LONGEST, seed: int = 0, new: int = 0) -> Trace:
    """`requests` requests of 1 to `longest` tokens, log-normally spread (heavy-tailed), `new` tokens generated each.

    Conversations repeat themselves: a fifth of the requests have one of sixteen favourite lengths (templates, system
    prompts), as shapes that recur are what a specialising run time lives from. ArgumentError for no request.
    """
    if requests < 1 or longest < 1:
        raise ArgumentError(f"{requests} requests of up to {longest} tokens make no trace; give at least 1 of each")
    chance = random.Random(f"served {seed}")
    favourites = [_length(chance, longest) for _ in range(16)]
    lengths = [
        chance.choice(favourites) if chance.random() < 0.2 else _length(chance, longest) for _ in range(requests)
    ]
    return Trace(requests=tuple(Request(n, new) for n in lengths))


def _length(chance: random.Random, longest: int) -> int:
    while True:  # drawn again beyond the ends: clipping would pile up requests of the longest length
        n = round(math.exp(chance.gauss(math.log(MEDIAN), SPREAD)))
        if 1 <= n <= longest:
            return n


__all__ = ["LONGEST", "REQUESTS", "served_trace"]
