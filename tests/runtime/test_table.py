"""The table is bounded, drops what is worth least, and says what it holds."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from tilewright.runtime.buckets import Range, Shape
from tilewright.runtime.events import events
from tilewright.runtime.table import MOST_SIZES, Slot, Special, Table


def slot(n: int, calls: int = 0, saves: float = 0.0) -> Slot:
    made = Slot(n, Shape("op", Range(n, n), None, "f32", "cpu"), (("M", Range(n, n)), ("K", 8)), None)
    if saves:
        kernel = SimpleNamespace(design=SimpleNamespace(hash=f"design {n}"))
        made.swap(Special(kernel, (), 1.0, 1.0 + saves), "specialised", "for the test")
    for _ in range(calls):
        made.tally((("M", n), ("K", 8))).add()
    return made


def test_it_is_bounded_and_the_least_valuable_make_room():
    table = Table(capacity=20)
    valuable = [table.add(slot(n, calls=1, saves=1.0)) for n in range(5)]
    for n in range(5, 500):
        table.add(slot(n, calls=n))
        assert len(table) <= 20
    assert all(table.get(s.key) is s for s in valuable)
    assert table.evictions == 500 - len(table)
    assert table.get(499) is not None


def test_what_is_evicted_answers_by_the_generic_kernel_again():
    table = Table(capacity=1)
    first = table.add(slot(1, calls=1, saves=1.0))
    table.add(slot(2))
    assert (first.special, first.state) == (None, "generic")
    assert events()[-1].kind == "evict"


def test_of_two_slots_of_one_key_the_first_stays():
    table = Table()
    first, second = slot(1), slot(1)
    assert table.add(first) is first
    assert table.add(second) is first


def test_hits_are_the_calls_since_the_swap_and_savings_follow():
    seen = slot(3, calls=4)
    kernel = SimpleNamespace(design=SimpleNamespace(hash="found"))
    seen.swap(Special(kernel, (), 1.0, 3.0), "specialised", "why")
    for _ in range(5):
        seen.tally((("M", 3), ("K", 8))).add()
    row = seen.row()
    assert (row.calls, row.hits, row.misses, row.swaps, row.design) == (9, 5, 4, 1, "found")
    assert row.saved_seconds == 10.0
    seen.swap(None, "rolled back", "wrong")
    seen.tally(()).add()
    assert (seen.row().hits, seen.row().misses, seen.row().swaps) == (5, 5, 2)


def test_exact_sizes_are_told_apart_as_far_as_a_slot_has_room():
    seen = slot(1)
    for n in range(3 * MOST_SIZES):
        seen.tally((("M", n),)).add()
    assert seen.calls == 3 * MOST_SIZES
    assert len(seen.met) == MOST_SIZES
    seen.tally((("M", 5),)).add()
    assert seen.common == (("M", 5),)


@pytest.mark.parametrize(
    ("sizes", "found"), [({"M": 2}, 1), ({"M": 2, "K": 8}, 1), ({"K": 9}, 0), ({}, 2), ({"X": 1}, 0)]
)
def test_why_finds_the_slots_that_sizes_fit(sizes, found):
    table = Table()
    for n in (2, 3):
        table.add(slot(n, calls=1))
    assert len(table.why("op", **sizes)) == found
    assert table.why("another", **sizes) == ()


def test_the_seconds_of_its_calls_are_known_from_those_that_were_timed():
    seen = slot(1)
    for rows, calls in ((2, 10), (3, 1), (4, 9)):
        for _ in range(calls):
            seen.tally((("M", rows),)).add()
    assert seen.seconds == 0.0
    seen.tally((("M", 2),)).took(1.0)
    seen.tally((("M", 4),)).took(2.0)
    assert seen.seconds == (10 * 1.0 + 9 * 2.0) * 20 / 19
    assert seen.common == (("M", 4),)  # fewer calls, more time
    seen.swap(None, "rolled back", "for the test")
    assert seen.seconds == 0.0
