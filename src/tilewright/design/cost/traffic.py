"""Bytes that enter a cache: what a loop nest reads again and what it finds there.

A loop whose body fits in a cache touches each byte of its whole range once; one whose body does not fit pays for the
body on every trip. Between "fits" and "does not" lies a band, since caches are shared with what else runs and do not
replace the oldest line exactly.
"""

from __future__ import annotations

from collections.abc import Iterable

from tilewright.design.cost.nodes import Leaf, Node
from tilewright.design.cost.patch import Patch
from tilewright.design.cost.schedule import Access

FITS, BURSTS = 0.6, 1.2
"""Up to the first share of a cache all of a working set is found again, beyond the second nothing."""

Bytes = dict[tuple[str, int], float]
"""Bytes of a buffer that come in a turn of a tile's serial loops: they run one after the other."""


def kept(held: float, capacity: int) -> float:
    """Which part of a working set of `held` bytes a cache keeps: 1 for all of it."""
    if capacity <= 0:
        return 0.0
    return min(1.0, max(0.0, (BURSTS - held / capacity) / (BURSTS - FITS)))


def working_set(patches: Iterable[tuple[Access, Patch]], capacity: int) -> float:
    """Bytes of the cache that accesses take together; of one buffer the largest, and nothing that goes around."""
    largest: dict[str, float] = {}
    for access, p in patches:
        if not access.around:
            largest[access.buffer] = max(largest.get(access.buffer, 0.0), p.held(capacity))
    return sum(largest.values())


def touched(node: Node | Leaf) -> Bytes:
    """Bytes of each buffer that a node touches, in whole lines, in the turn that touches it first."""
    result: Bytes = {}
    for access, p in node.patches.items():
        if not access.around:
            key = access.buffer, node.turns[access.buffer]
            result[key] = max(result.get(key, 0.0), p.touched)
    return result


def entering(node: Node | Leaf, capacity: int) -> Bytes:
    """Bytes of each buffer that enter a cache of `capacity` bytes while `node` runs once, the cache empty before."""
    if isinstance(node, Leaf):
        return touched(node)
    inside = _body_set(node, capacity)
    reuse = kept(inside, capacity)
    if reuse == 1.0:
        return touched(node)
    again: Bytes = {}
    for child in node.children:
        for key, count in entering(child, capacity).items():
            again[key] = again.get(key, 0.0) + count * node.trips
    if reuse == 0.0:
        return again
    once = touched(node)
    return {key: reuse * once.get(key, 0.0) + (1 - reuse) * count for key, count in again.items()}


def _body_set(node: Node, capacity: int) -> float:
    if len(node.children) == 1:
        return working_set(node.children[0].patches.items(), capacity)
    largest: dict[str, float] = {}
    for child in node.children:
        for access, p in child.patches.items():
            if not access.around:
                largest[access.buffer] = max(largest.get(access.buffer, 0.0), p.held(capacity))
    return sum(largest.values())
