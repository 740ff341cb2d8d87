"""Bytes that enter a cache, by hand."""

from __future__ import annotations

import pytest

from tilewright.design.cost.nodes import Leaf, Node
from tilewright.design.cost.schedule import Access, Work
from tilewright.design.cost.traffic import entering, kept, working_set

A = Access("a", ("i",), (1024,), 4, 0)
B = Access("b", ("j",), (2048,), 4, 0)


def nest(*accesses: Access) -> Node:
    """for i (4 trips of 256) { for j (8 trips of 256) { accesses } }."""
    leaf = Leaf(Work((), accesses), {"i": 256.0, "j": 256.0})
    inner = Node("j", 8, {"i": 256.0, "j": 2048.0}, [leaf])
    return Node("i", 4, {"i": 1024.0, "j": 2048.0}, [inner])


def test_what_fits_is_read_once():
    assert entering(nest(A, B), 64 << 10) == {("a", 0): 4096, ("b", 0): 8192}


def test_what_does_not_fit_is_read_again():
    # All of b (8 KiB) and a tile of a (1 KiB) are 9 KiB a trip of i: more than 1.2 times 4 KiB, so b comes 4 times.
    assert entering(nest(A, B), 4 << 10) == {("a", 0): 4096, ("b", 0): 4 * 8192}


def test_between_lies_a_band():
    # 9 KiB in 10 KiB: kept is (1.2 - 0.9) / 0.6 = 1/2, so b comes 2.5 times.
    assert kept(9 << 10, 10 << 10) == pytest.approx(0.5)
    assert entering(nest(A, B), 10 << 10)["b", 0] == pytest.approx(2.5 * 8192)


def test_stores_around_the_caches_take_no_room():
    around = Access("c", ("j",), (2048,), 4, 0, write=True, around=True)
    leaf = Leaf(Work((), (A, around)), {"i": 256.0, "j": 256.0})
    assert working_set(leaf.patches.items(), 32 << 10) == 1024
    assert ("c", 0) not in entering(leaf, 32 << 10)


def test_no_cache_keeps_nothing():
    assert kept(1, 0) == 0
