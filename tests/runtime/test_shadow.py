"""Shadow verification goes round the kernels in use, each time with another seed, and ends."""

from __future__ import annotations

from test_table import slot

from tilewright.runtime.shadow import Shadow


def test_each_kernel_in_use_is_checked_in_turn_and_then_no_more():
    slots = [slot(1, saves=1.0), slot(2), slot(3, saves=1.0)]
    shadow = Shadow(rounds=2)
    asked = [shadow.next(slots) for _ in range(5)]
    assert [found and (found[0].key, found[1]) for found in asked] == [(1, 1000), (3, 1000), (1, 1001), (3, 1001), None]


def test_what_the_book_brought_was_verified_when_it_was_found():
    fixed = slot(1, saves=1.0)
    fixed.fixed = True
    assert Shadow().next([fixed]) is None
