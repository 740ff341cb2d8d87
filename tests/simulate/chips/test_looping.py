"""The closed forms of kernel looping, and the rooflines that were published with it."""

from __future__ import annotations

import pytest

from tilewright.simulate.chips.looping import by_kernel, looped, sync_of
from tilewright.simulate.chips.published import GIB, PUBLISHED, PUBLISHED_BYTES, roofline


def test_each_call_is_paid_for():
    assert by_kernel(32, 1.0, 1.2) == pytest.approx(70.4)
    assert by_kernel(32, 1.0, 1.2, kernels=10) == pytest.approx(32 + 384)
    assert looped(32, 1.0, 1.2) == pytest.approx(33.2)


@pytest.mark.parametrize("sync", [0.1, 1.2, 7.0])
def test_the_cost_of_a_call_follows_from_the_speedup(sync):
    speedup = by_kernel(32, 1.0, sync) / looped(32, 1.0, sync)
    assert sync_of(speedup, 32, 1.0) == pytest.approx(sync)


def test_published_rooflines_follow_from_bytes_and_bandwidth():
    assert PUBLISHED_BYTES == 15.4 * GIB
    for each in PUBLISHED:
        assert roofline(PUBLISHED_BYTES, each.bandwidth) == pytest.approx(each.tokens, rel=0.001)
