"""Tiles: element types of arithmetic, broadcasting, axes, dots; each checked on the traced type."""

from __future__ import annotations

import numpy as np
import pytest

from tilewright.language import (
    Scalar,
    Tensor,
    coord,
    dot,
    each,
    exp,
    exp2,
    full,
    kernel,
    log,
    maximum,
    minimum,
    parallel,
    size,
    sqrt,
    tiles,
    where,
    zeros,
)
from tilewright.language.interpreter import run
from tilewright.language.printer import show_type
from tilewright.language.verifier import check


def type_of(expression, dtypes="f32"):
    """The type of `expression(x, v, p, s)` for x[M, N], v[N], integers p[N] and a scalar s."""
    found = []

    @kernel
    def program(x: Tensor["M", "N"], v: Tensor["N"], p: Tensor["N"].of("i32"), s: Scalar["f32"], y: Tensor["N"]):
        y[:] = 0
        tile = expression(x, v, p, s)
        found.append(show_type(tile.type))

    check(program.trace(dtypes))
    return found[0]


@pytest.mark.parametrize(
    ("expression", "dtypes", "expected"),
    [
        (lambda x, v, p, s: x[:, :], "bf16", "bf16[M, N]"),
        (lambda x, v, p, s: x[:, :] + v[:], "bf16", "f32[M, N]"),
        (lambda x, v, p, s: v[:] + x[:, :], "f32", "f32[M, N]"),
        (lambda x, v, p, s: v[:] * 2, "f64", "f64[N]"),
        (lambda x, v, p, s: v[:] * s, "f64", "f64[N]"),
        (lambda x, v, p, s: 1 - v[:], "f8e4m3", "f32[N]"),
        (lambda x, v, p, s: p[:] + 1, "f32", "i32[N]"),
        (lambda x, v, p, s: 7 - p[:] // 2 % 3, "f32", "i32[N]"),
        (lambda x, v, p, s: p[:] + coord("N"), "f32", "i64[N]"),
        (lambda x, v, p, s: v[:] <= 0.5, "f16", "bool[N]"),
        (lambda x, v, p, s: ~(v[:] == v[:]) | (v[:] != 0), "f32", "bool[N]"),
        (lambda x, v, p, s: where(v[:] > 0, v[:], 0), "bf16", "f32[N]"),
        (lambda x, v, p, s: where(v[:] > 0, 1, 2), "f32", "i64[N]"),
        (lambda x, v, p, s: where(v[:] > 0, 1.0, 2), "f32", "f32[N]"),
        (lambda x, v, p, s: where(v[:] > 0, p[:], -1), "f32", "i32[N]"),
        (lambda x, v, p, s: where(v[:] > 0, v[:] < 2, v[:] < 3), "f32", "bool[N]"),
        (lambda x, v, p, s: exp2(s), "f32", "f32[]"),
        (lambda x, v, p, s: x[:, :].sum("N"), "bf16", "f32[M]"),
        (lambda x, v, p, s: x[:, :].T.max("N"), "f32", "f32[M]"),
        (lambda x, v, p, s: p[:].min("N"), "f32", "i32[]"),
        (lambda x, v, p, s: dot(x[:, :], v[:]), "bf16", "f32[M]"),
        (lambda x, v, p, s: dot(v[:], x[:, :].T), "f16", "f32[M]"),
        (lambda x, v, p, s: dot(v[:], v[:].to("f64")), "f16", "f64[]"),
        (lambda x, v, p, s: dot(v[:].to("i8"), v[:].to("i8")), "f32", "i32[]"),
        (lambda x, v, p, s: size("M") // 2, "f32", "i64[]"),
        (lambda x, v, p, s: x[0, p[:]], "f32", "f32[N]"),
        (lambda x, v, p, s: x[p[:].max("N"), "N"], "f32", "f32[N]"),
        (lambda x, v, p, s: s.to("bf16"), "f32", "bf16[]"),
        (lambda x, v, p, s: -abs(v[:]), "bf16", "f32[N]"),
        (lambda x, v, p, s: 1.0 / sqrt(log(v[:])), "bf16", "f32[N]"),
    ],
)
def test_types(expression, dtypes, expected):
    assert type_of(expression, dtypes) == expected


def test_broadcasts_put_outer_loops_first():
    @kernel
    def program(v: Tensor["N"], w: Tensor["M"], y: Tensor["M", "N"]):
        for i in parallel("M"):
            for j in tiles("N"):
                tile = v[j] * w[i]
                assert [axis.name for axis in tile.axes] == ["m", "n"]
                y[i, j] = tile

    program.trace()


def test_a_point_is_its_position_in_arithmetic():
    @kernel
    def program(x: Tensor["N"], y: Tensor["N"]):
        for b in parallel(each("N")):
            y[b] = where(b % 2 == 0, x[b], (10 - b).to("f32"))

    x, y = np.arange(6, dtype=np.float32), np.full(6, np.nan, np.float32)
    run(program.trace(), {"x": x, "y": y})
    np.testing.assert_array_equal(y, [0, 9, 2, 7, 4, 5])


def test_carried_tiles_change_in_place():
    @kernel
    def program(x: Tensor["N"], y: Tensor[4]):
        top, low, scaled = full(value=-np.inf), full(value=np.inf), full(value=1.0)
        total = zeros()
        for n in tiles("N"):
            top.update(maximum(top, x[n].max(n)))
            low.update(minimum(low, x[n].min(n)))
            total -= x[n].sum(n)
            scaled *= 2.0
        scaled /= 4.0
        y[0], y[1], y[2], y[3] = top, low, total, scaled

    x, y = np.arange(1, 7, dtype=np.float32), np.full(4, np.nan, np.float32)
    run(program.trace(), {"x": x, "y": y}, steps=2)
    np.testing.assert_array_equal(y, [6, 1, -21, 2])


def test_transposes_of_a_carried_tile_are_taken_at_once():
    @kernel
    def program(x: Tensor["M", "N"], y: Tensor["N", "M"]):
        acc = zeros("M", "N")
        acc += x[:, :]
        before = acc.T
        acc *= 0.0
        y[:, :] = before

    x, y = np.ones((2, 3), np.float32), np.full((3, 2), np.nan, np.float32)
    run(check(program.trace()), {"x": x, "y": y})
    np.testing.assert_array_equal(y, 1)


def test_functions_agree_with_numpy():
    @kernel
    def program(x: Tensor["N"], y: Tensor[3, "N"]):
        y[0, :] = exp(x[:])
        y[1, :] = exp2(x[:])
        y[2, :] = log(x[:])

    x, y = np.linspace(0.1, 3, 7), np.full((3, 7), np.nan)
    run(program.trace("f64"), {"x": x, "y": y})
    np.testing.assert_array_equal(y, [np.exp(x), np.exp2(x), np.log(x)])
