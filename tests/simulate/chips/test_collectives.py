"""All-reduce: every algorithm sums exactly, its steps take what the closed form says, and both match NCCL."""

from __future__ import annotations

import numpy as np
import pytest

from tilewright.errors import ArgumentError
from tilewright.simulate.chips.collectives import ALGORITHMS, Link, all_reduce, best, fit, nccl_latency, seconds, steps

LINK = Link(bandwidth=100e9, alpha=2e-6, base=5e-6)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("chips", [1, 2, 3, 4, 7, 8, 16])
def test_values_and_seconds(algorithm, chips):
    random = np.random.default_rng(chips)
    values = [random.integers(-1000, 1000, 7 * chips) for _ in range(chips)]
    held, took = all_reduce(algorithm, values, LINK)
    for chip in held:
        np.testing.assert_array_equal(chip, np.sum(values, axis=0))
    assert took == pytest.approx(seconds(algorithm, chips, values[0].nbytes, LINK))


def test_a_ring_sends_no_more_than_it_must():
    """Every chip sends 2(N-1)/N of the data in all; parts that do not divide evenly are sent whole."""
    for step in steps("ring", 5):
        assert sorted(s.source for s in step) == sorted(s.target for s in step) == list(range(5))
    held, _ = all_reduce("ring", [np.full(13, c) for c in range(5)], LINK)
    assert all((chip == 10).all() for chip in held)


def test_small_messages_want_few_steps_and_large_ones_few_bytes():
    assert best(8, 8192, LINK)[0] == "oneshot"
    assert best(8, 1e9, LINK)[0] == "ring"
    assert best(1024, 1e5, LINK)[0] == "tree"


@pytest.mark.parametrize(
    "protocol, expected", [("LL", (7.8, 10.2, 15.0)), ("Simple", (15.2, 28.8, 56.0))]
)  # fmt: skip
def test_latencies_of_nccl(protocol, expected):
    assert [round(nccl_latency(n, protocol) * 1e6, 9) for n in (2, 4, 8)] == list(expected)


def test_a_fit_finds_what_made_the_data():
    sizes = [2.0**k for k in range(10, 30)]
    found = fit(8, sizes, [seconds("ring", 8, s, LINK) for s in sizes])
    assert (found.latency, found.bandwidth) == pytest.approx((5e-6 + 14 * 2e-6, 100e9))
    assert found.error < 1e-9


@pytest.mark.parametrize("make", [lambda: Link(0, 1e-6), lambda: Link(1e9, -1), lambda: steps("star", 4),
                                  lambda: steps("ring", 0)])  # fmt: skip
def test_impossible_networks_are_refused(make):
    with pytest.raises(ArgumentError):
        make()
