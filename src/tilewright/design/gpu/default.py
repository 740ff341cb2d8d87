"""The default design of a product on a GPU: tile, parts of the sum, ring and cluster by bytes and waves.

Few rows: weights lie along the rows of the atom, 64 or 128 a block; the sum is split until every SM has work, and the
ring is as deep as memory latency asks for. Many rows: the tile whose waves waste least, blocks in pairs that share
what they read.
"""

from __future__ import annotations

import math

from tilewright.design.default import Facts
from tilewright.design.design import Choice, Design
from tilewright.design.gpu.product import Product
from tilewright.design.gpu.resources import ROW_BYTES, Resources

_FEW = 128
"""Rows up to which the time is that of reading the weights."""

_SHARED = 227 * 1024

_TILES = ((128, 256, 2, 1.0), (256, 128, 2, 0.99), (128, 192, 2, 0.94), (128, 128, 2, 0.86), (64, 256, 1, 0.72), (64, 128, 1, 0.6))
"""Rows, columns, warpgroups, and the rate beside the first where all waves are full."""


def default_product(p: Product, facts: Facts) -> Design:
    """A legal design of a product, good at once."""
    m, n = p.size(p.m, facts), p.size(p.n, facts)
    few_rows = m <= _FEW and n >= 64
    decisions = _few(p, facts) if few_rows else _many(p, facts)
    decisions |= {f"atom.{d.name}": "wgmma" for d in p.dots}
    return Design.of(decisions)


def _sms(facts: Facts) -> int:
    return facts.machine.cores


def _each(p: Product, facts: Facts) -> int:
    return math.prod(facts.sizes.get(a.over, 1) for a in p.each)


# ------------------------------------------------------------------------------------------- few rows
def _few(p: Product, facts: Facts) -> dict[str, Choice]:
    m, n, k = (p.size(a, facts) for a in (p.m, p.n, p.k))
    columns = max(8, -(-m // 8) * 8)
    best = min(
        ((_few_cost(p, facts, columns, rows, parts), rows, parts) for rows in (64, 128) for parts in _parts(p, facts, k)),
        key=lambda c: c[0],
    )
    rows, parts = best[1], best[2]
    decisions: dict[str, Choice] = {
        f"tile.{p.m.name}": columns,
        f"tile.{p.n.name}": rows,
        f"tile.{p.k.name}": ROW_BYTES // p.itemsize,
        "warpgroups": rows // 64,
        "producer": "warp",
        "swap": True,
        "inflight": 0,
        "stages": 4,
    }
    if parts > 1:
        decisions |= {f"split.{p.k.name}": parts, f"how.{p.k.name}": "cluster" if parts <= 4 and columns <= 32 else "two_pass"}
    weights = {o.tensor for o in p.operands if o.axis == p.n.name}
    if n * k * p.itemsize > 32 << 20:
        decisions |= {f"cache.{t}": "evict_first" for t in sorted(weights)}
    steps = -(-k // parts // int(ROW_BYTES // p.itemsize))
    several = -(-n // rows) * -(-m // columns) * parts * _each(p, facts) > _sms(facts)
    return _deepest(p, facts, decisions, max(2, min(steps, 16)), _SHARED // 2 if several else _SHARED)


def _parts(p: Product, facts: Facts, k: int) -> list[int]:
    """Into how many parts a sum may be split: each has four steps at least; the size must be part of the kernel."""
    steps = -(-k // (ROW_BYTES // p.itemsize))
    known = p.k.over in facts.fixed
    return [s for s in (1, 2, 3, 4, 5, 6, 8) if s == 1 or (known and steps >= 4 * s and -(-steps // -(-steps // s)) == s)]


def _few_cost(p: Product, facts: Facts, columns: int, rows: int, parts: int) -> float:
    """Seconds: what all SMs read, by the fullest of them, and what joining parts takes."""
    m, n, k = (p.size(a, facts) for a in (p.m, p.n, p.k))
    items = -(-n // rows) * -(-m // columns) * parts * _each(p, facts)
    read = facts.machine.memory.read or facts.machine.memory.bandwidth or 3e12
    weights = sum(o.axis == p.n.name for o in p.operands)
    own = weights * rows * -(-k // parts) * p.itemsize
    shared = columns * -(-k // parts) * p.itemsize
    waves = math.ceil(items / _sms(facts))
    each = max(own / (read / _sms(facts)), (own + shared) / (_L2 / _sms(facts)))
    join = 0.0 if parts == 1 else 1.0e-6 + parts * 4 * rows * columns * 2e-12 * waves
    return waves * each + join


_L2 = 6.5e12  # bytes/s that all SMs together read from L2


# ------------------------------------------------------------------------------------------ many rows
def _many(p: Product, facts: Facts) -> dict[str, Choice]:
    m, n = p.size(p.m, facts), p.size(p.n, facts)
    tiles = [(_many_cost(p, facts, *t), t) for t in _TILES]
    rows, columns, groups, _ = min(tiles, key=lambda c: c[0])[1]
    columns = max(8 * len(p.dots), columns // len(p.dots))
    decisions: dict[str, Choice] = {
        f"tile.{p.m.name}": rows,
        f"tile.{p.n.name}": columns,
        f"tile.{p.k.name}": ROW_BYTES // p.itemsize,
        "warpgroups": groups,
        "stages": 4,
        "persistent": True,
        "grid.order": "grouped",
        "grid.group": 8,
    }
    tall, wide = -(-m // rows), -(-n // columns)
    if tall * wide * _each(p, facts) >= _sms(facts) // 2:
        axis = p.m.name if columns >= rows else p.n.name
        count = tall if axis == p.m.name else wide
        if count % 2 == 0 or count > 8:
            decisions[f"cluster.{axis}"] = 2
    aligned = all(t in facts.aligned and p.unit_column(t, facts) for t in p.outputs)
    if aligned and columns % 64 == 0 and p.result_dtype in ("bf16", "f16"):
        decisions |= {f"store.{t}": "tma" for t in p.outputs}
    return _deepest(p, facts, decisions, 8)


def _many_cost(p: Product, facts: Facts, rows: int, columns: int, groups: int, rate: float) -> float:
    m, n = p.size(p.m, facts), p.size(p.n, facts)
    tiles = -(-m // rows) * -(-n // columns) * _each(p, facts)
    waves = math.ceil(tiles / _sms(facts))
    return waves * rows * columns / rate


def _deepest(
    p: Product, facts: Facts, decisions: dict[str, Choice], most: int, room: int = _SHARED
) -> dict[str, Choice]:
    """As many stages as `room` bytes of shared memory hold, `most` at most: of two blocks on an SM one begins while the
    other ends."""
    for stages in range(most, 1, -1):
        tried = {**decisions, "stages": stages}
        if Resources(p, Design.of(tried), facts).shared_bytes <= room:
            return tried
    return {**decisions, "stages": 2}
