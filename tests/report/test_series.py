"""Rank correlation and error against values worked out by hand."""

from __future__ import annotations

import math

import pytest

from tilewright.errors import ArgumentError
from tilewright.report.series import median_error, spearman


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([(1, 10), (2, 20), (3, 1000)], 1.0),
        ([(1, 3), (2, 2), (3, 1)], -1.0),
        # ranks (1, 2, 3, 4, 5) and (2, 1, 4, 3, 5): 1 - 6 * 4 / (5 * 24)
        ([(1, 2), (2, 1), (3, 4), (4, 3), (5, 5)], 0.8),
        # a tie: ranks (1.5, 1.5, 3) and (1, 2, 3): covariance 1.5 over sqrt(1.5 * 2)
        ([(1, 1), (1, 2), (2, 3)], math.sqrt(0.75)),
    ],
)
def test_spearman(values: list[tuple[float, float]], expected: float):
    assert spearman(values) == pytest.approx(expected)


def test_spearman_of_too_little_is_no_number():
    assert math.isnan(spearman([(1, 2), (2, 3)]))
    assert math.isnan(spearman([(1, 2), (1, 3), (1, 4)]))


def test_median_error_is_a_factor():
    assert median_error([(1.0, 1.25), (2.0, 1.0), (1.0, 1.0)]) == pytest.approx(0.25)
    with pytest.raises(ArgumentError, match="measure some"):
        median_error([])
