"""Numbers of a call on their way to compiled kernels: those that a type does not hold are refused, large ones count."""

from __future__ import annotations

import numpy as np
import pytest

import tilewright as tw
from tilewright import Scalar, Tensor, parallel
from tilewright.errors import ArgumentError

X = np.random.default_rng(0).standard_normal((3, 8)).astype(np.float32)


@pytest.mark.parametrize("wrong", ["2", None, True, [1.0], 1e300, -1e300, 10**400])
def test_a_scalar_that_is_no_number_of_its_type(wrong):
    with pytest.raises(ArgumentError, match=r"scale_add: alpha=.*; pass a (plain|smaller) number"):
        tw.ops.scale_add(X, wrong, X)


@pytest.mark.parametrize("alpha", [np.float32(2), np.float64(0.5), np.int64(3), 2**100, -3.4028234663852886e38])
def test_a_scalar_that_is_one(alpha):
    small = X * np.float32(2.0**-126)  # so that no product is infinite
    exact = float(alpha) * small.astype(np.float64) + small
    np.testing.assert_allclose(tw.ops.scale_add(small, alpha, small), exact, rtol=2**-22, atol=2.0**-149)


@tw.kernel
def shifted(x: Tensor["M", "D"].of("i32"), y: Tensor["M", "D"].of("i32"), by: Scalar["i32"]):
    for i, d in parallel("M", "D"):
        y[i, d] = x[i, d] + by


def test_an_integer_beyond_its_type():
    x = np.arange(6, dtype=np.int32).reshape(2, 3)
    y = np.zeros_like(x)
    tw.launch(shifted, x=x, y=y, by=2**31 - 6)
    np.testing.assert_array_equal(y, x.astype(np.int64) + 2**31 - 6)
    for by in (2**31, -(2**31) - 1):
        with pytest.raises(ArgumentError, match=f"shifted: by={by} does not fit i32; pass a smaller number"):
            tw.launch(shifted, x=x, y=y, by=by)


@pytest.mark.parametrize("window", [2**31 - 1, 2**31, 2**40, np.int64(2**62), 2**70])
def test_a_window_beyond_all_keys_hides_none(window):
    random = np.random.default_rng(1)
    q, k = random.standard_normal((1, 2, 20, 16), np.float32), random.standard_normal((1, 2, 7, 16), np.float32)
    for queries, keys in ((q, k), (k, q)):
        wanted = tw.ops.attention(queries, keys, keys, causal=True)
        np.testing.assert_array_equal(tw.ops.attention(queries, keys, keys, causal=True, window=window), wanted)


@pytest.mark.parametrize("window", [2.0, "3", True])
def test_a_window_that_is_no_number_of_keys(window):
    q = np.zeros((1, 1, 2, 16), np.float32)
    with pytest.raises(ArgumentError, match="is no number of keys; give a whole number, or None for no window"):
        tw.ops.attention(q, q, q, window=window)


@pytest.mark.parametrize("rows", [2**20, 2**31])
def test_a_result_that_no_memory_holds(rows):
    x = np.broadcast_to(np.float32(1), (rows, 2**22))
    with pytest.raises(ArgumentError, match=r"a result of shape .* takes .* GiB, which is not to be had"):
        tw.ops.softmax(x)
