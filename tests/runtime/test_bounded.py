"""A bounded mapping forgets what was put in first."""

from __future__ import annotations

from tilewright.runtime.bounded import Bounded


def test_what_was_put_in_first_makes_room():
    known = Bounded[int, str](3)
    for n in range(5):
        known[n] = str(n)
    known[3] = "again"
    assert known == {2: "2", 3: "again", 4: "4"}
