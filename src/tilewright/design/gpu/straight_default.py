"""The default design of a product of few rows whose operands go straight to registers, where that is legal and best."""

from __future__ import annotations

import math
from collections.abc import Iterator

from tilewright.design.default import Facts
from tilewright.design.design import Design
from tilewright.design.gpu.product import Product
from tilewright.design.gpu.straight import UNITS, legal_straight, straight
from tilewright.language import ir

_BY_FMA, _BY_MMA = 2, 8
"""Rows up to which each is best on an H200 (note 0019); more rows pass through shared memory."""

_WARPS, _THREADS = 8, 1024
"""Warps of a block, and threads of an SM: enough to keep memory busy, few enough that each has 64 registers."""

_MANY, _EMPTY = 16, 1.3
"""Warps of a block by mma, all of one sum; rounds of such blocks over what they fill of them, at most."""

_AT_ONCE = 4
"""Blocks of eight warps that an SM holds: where all of a product's are there at once, none waits for another's end."""

_CHUNKS = 4
"""Chunks of all rows of the weights that a lane asks for at once."""


def default_straight(kernel: ir.Kernel, p: Product, facts: Facts) -> Design | None:
    """A legal design, good at once; None where rows are too many, or operands lie in another way."""
    m, k = p.size(p.m, facts), p.size(p.k, facts)
    if m > _BY_MMA:
        return None
    weights = sum(o.axis == p.n.name for o in p.operands)
    for atom in ("fma", "mma") if m <= _BY_FMA else ("mma",):
        for found in (_by_fma if atom == "fma" else _by_mma)(p, facts, k, weights):
            if not legal_straight(kernel, found, facts):
                return found
    return None


def _by_fma(p: Product, facts: Facts, k: int, weights: int) -> Iterator[Design]:
    """Four warps along the sum where it falls in so many steps; of two sums in small blocks, which end soon."""
    lanes = UNITS["fma"][2] * 16 // p.itemsize
    whole = weights > 1 and k % (4 * _CHUNKS * lanes) == 0
    chunks = _CHUNKS if whole else max(1, _CHUNKS // weights)
    steps = -(-k // (lanes * chunks))
    along = next(w for w in (4, 2, 1) if steps % w == 0)
    warps = _WARPS if weights == 1 else 4
    found = straight(p, facts, 1, along, max(1, warps // along), chunks, "fma")
    resident = _THREADS // (32 * found.number("warps")) if weights == 1 else 4
    yield Design.of({**dict(found.decisions), "resident": resident})


def _by_mma(p: Product, facts: Facts, k: int, weights: int) -> Iterator[Design]:
    """As many warps as have equal parts of the sum: 16 of one where blocks fill the last round, else up to eight."""
    if weights == 1:
        yield from _of_one(p, facts, k)
    lanes, chunks = UNITS["mma"][2] * 16 // p.itemsize, max(1, _CHUNKS // weights)
    steps, blocks = -(-k // (lanes * chunks)), -(-p.size(p.n, facts) // UNITS["mma"][1])
    rounds = blocks / (facts.machine.cores * _THREADS // (32 * _MANY))
    if weights == 1 and steps % _MANY == 0 and math.ceil(rounds) < _EMPTY * rounds + (rounds <= 1):
        found = straight(p, facts, 1, _MANY, 1, chunks)
        yield Design.of({**dict(found.decisions), "resident": _THREADS // (32 * _MANY)})
    along = next(w for w in range(min(_WARPS, steps), 0, -1) if steps % w == 0)
    found = straight(p, facts, 1, along, max(1, _WARPS // along), chunks)
    yield Design.of({**dict(found.decisions), "resident": _THREADS // (32 * found.number("warps"))})


def _of_one(p: Product, facts: Facts, k: int) -> Iterator[Design]:
    """Of one product, as sweeps on an H200 had them (note 0019), where the sum falls in equal parts.

    All blocks are there at once, if so few have so many columns: two fragments of them where eight warps then have four
    steps each. Many blocks follow one another: the longer the sum, the more of it is in flight in each of them.
    """
    sms, step = facts.machine.cores, UNITS["mma"][2] * 16 // p.itemsize
    each = math.prod(facts.sizes.get(a.over, 1) for a in p.each)
    rounds = [-(-each * -(-p.size(p.n, facts) // (UNITS["mma"][1] * c)) // sms) for c in (1, 2)]
    parts = k / (_WARPS * _CHUNKS * step)  # steps of each of eight warps

    def deal(columns: int, warps: int, chunks: int, resident: int, flows: bool, across: int = 1) -> Iterator[Design]:
        steps = -(-k // (step * chunks))
        if steps % warps == 0 and k % (step * chunks) == 0:
            found = dict(straight(p, facts, columns, warps, across, chunks).decisions)
            yield Design.of({**found, "resident": resident, **({"stages": 1} if flows and steps > warps else {})})

    if 1 < rounds[1] < _AT_ONCE and 4 <= parts < 8:
        yield from deal(2, _WARPS, _CHUNKS, rounds[1], True)
    elif rounds[0] <= 2 and parts >= 8:
        yield from deal(1, _MANY, _CHUNKS // 2, 1, False, across=2)
    elif rounds[0] <= 2:
        yield from deal(1, _MANY, _CHUNKS // 2, 2, True)
    elif rounds[0] <= _AT_ONCE:
        yield from deal(1, _WARPS, _CHUNKS, rounds[0], True)
    elif parts <= 2:
        yield from deal(1, _MANY, _CHUNKS, 2, False)
    elif parts <= 4:
        yield from deal(1, _WARPS, _CHUNKS // 2, 3, False)
    elif parts <= 8:
        yield from deal(1, _MANY, _CHUNKS // 2, 2, True)
    else:
        yield from deal(1, _WARPS, _CHUNKS, _AT_ONCE, True)


__all__ = ["default_straight"]
