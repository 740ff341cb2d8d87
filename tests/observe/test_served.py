"""Served traces made up."""

from __future__ import annotations

import pytest

from tilewright.errors import ArgumentError
from tilewright.observe.served import served_trace


def test_the_same_seed_gives_the_same_requests():
    assert served_trace(200, seed=4) == served_trace(200, seed=4) != served_trace(200, seed=5)


def test_lengths_have_a_heavy_tail_within_their_bounds():
    lengths = sorted(r.prompt for r in served_trace().requests)
    assert len(lengths) == 2000
    assert lengths[0] >= 1
    assert 1024 < lengths[-1] <= 2048
    assert sum(lengths) / 2000 > 1.5 * lengths[1000]  # the mean is far above the median
    assert len(set(lengths)) > 300


def test_new_tokens_are_those_asked_for_and_nothing_makes_no_trace():
    assert {r.new for r in served_trace(10, new=3).requests} == {3}
    with pytest.raises(ArgumentError, match="0 requests"):
        served_trace(0)
