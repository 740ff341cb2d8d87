"""Sums that are broadcast into what they are added to, or lie in another order there."""

from __future__ import annotations

import numpy as np
import pytest

import tilewright as tw
from tilewright import Tensor, dot, f32, parallel, tiles, zeros


@tw.kernel
def of_a_shared_row(w: Tensor["D"], y: Tensor["M"]):
    for i in parallel("M"):
        s = zeros(i, dtype=f32)
        for d in tiles("D"):
            s += w[d].sum(d)
        y[i] = s


@tw.kernel
def turned(x: Tensor["N", "M", "D"], y: Tensor["M", "N"]):
    for i, j in parallel("M", "N"):
        s = zeros(i, j, dtype=f32)
        for d in tiles("D"):
            s += x[j, i, d].sum(d)
        y[i, j] = s


@tw.kernel
def product_for_each_page(a: Tensor["M", "K"], b: Tensor["N", "K"], y: Tensor["M", "N", "P"]):
    for i, j, p in parallel("M", "N", "P"):
        s = zeros(i, j, p, dtype=f32)
        for k in tiles("K"):
            s += dot(a[i, k], b[j, k].T)
        y[i, j, p] = s


@tw.kernel
def product_turned(a: Tensor["M", "K"], b: Tensor["N", "K"], y: Tensor["N", "M"]):
    for i, j in parallel("M", "N"):
        s = zeros(j, i, dtype=f32)
        for k in tiles("K"):
            s += dot(a[i, k], b[j, k].T)
        y[j, i] = s


def drawn(*shape):
    return np.random.default_rng(len(shape)).standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize("m, n, p, k", [(5, 7, 3, 100), (1, 1, 1, 1), (17, 33, 2, 64)])
def test_they_are_added_right(m, n, p, k):
    a, b, x = drawn(m, k), drawn(n, k), drawn(n, m, k)
    wide = a.astype(np.float64) @ b.astype(np.float64).T
    cases = [
        (of_a_shared_row, {"w": a[0].copy()}, np.full(m, a[0].astype(np.float64).sum())),
        (turned, {"x": x}, x.astype(np.float64).sum(axis=2).T),
        (product_for_each_page, {"a": a, "b": b}, np.broadcast_to(wide[:, :, None], (m, n, p))),
        (product_turned, {"a": a, "b": b}, wide.T),
    ]
    for program, operands, exact in cases:
        y = np.full(exact.shape, np.nan, np.float32)
        tw.launch(program, **operands, y=y)
        # k products or terms of about 1, each rounded once and added k times: k eps, of sums of at most 4 k in all.
        np.testing.assert_allclose(y, exact, rtol=0, atol=4 * k * k * 2.0**-24, err_msg=program.name)
