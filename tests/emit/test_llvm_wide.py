"""Integers of 64 bits: all their bits count where they may be large, and positions still lie in lanes of 32."""

from __future__ import annotations

import numpy as np
import pytest

import tilewright as tw
from tilewright import Scalar, Tensor, coord, f32, i64, parallel, tiles, where, zeros
from tilewright.emit.llvm_wide import WIDE, widened
from tilewright.language import ir
from tilewright.language.functions import maximum, minimum

SHAPES = [(4, 16), (3, 37), (1, 1), (2, 131), (0, 5)]


def large(shape, seed=0):
    return np.random.default_rng(seed).integers(-(2**44), 2**44, shape)


def run(program, **operands):
    tw.launch(program, **operands)
    return operands


@tw.kernel
def arithmetic(x: Tensor["M", "D"].of("i64"), y: Tensor["M", "D"].of("i64"), a: Scalar["i64"]):
    for i, d in parallel("M", "D"):
        y[i, d] = where(x[i, d] > coord(d) * coord(d), x[i, d] * a - coord(i), a + 3000000000)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("columns", [False, True])
def test_arithmetic_on_what_tensors_and_scalars_hold(shape, columns):
    x, a = large(shape), 2**17 + 7
    y = np.zeros(shape[::-1], np.int64).T if columns else np.zeros(shape, np.int64)
    run(arithmetic, x=x.T.copy().T if columns else x, y=y, a=a)
    at, row = np.arange(shape[1]), np.arange(shape[0])[:, None]
    np.testing.assert_array_equal(y, np.where(x > at * at, x * a - row, a + 3000000000))


@tw.kernel
def reduced(
    x: Tensor["M", "D"].of("i64"),
    low: Tensor["M"].of("i64"),
    high: Tensor["M"].of("i64"),
    total: Tensor["M"].of("i64"),
    squares: Tensor["M"].of("i64"),
):
    for i in parallel("M"):
        least, most = zeros(i, dtype=i64), zeros(i, dtype=i64)
        whole, of_places = zeros(i, dtype=i64), zeros(i, dtype=i64)
        for d in tiles("D"):
            least.update(minimum(least, x[i, d].min(d)))
            most.update(maximum(most, x[i, d].max(d)))
            whole += x[i, d].sum(d)
            of_places += (coord(d) * coord(d)).sum(d)
        low[i], high[i], total[i], squares[i] = least, most, whole, of_places


@pytest.mark.parametrize("shape", [*SHAPES[:-1], (3, 5000)])
@pytest.mark.parametrize("sign", [-1, 1])
def test_reductions(shape, sign):
    x = sign * np.abs(large(shape))
    low, high, total, squares = (np.full(shape[0], -77) for _ in range(4))
    run(reduced, x=x, low=low, high=high, total=total, squares=squares)
    np.testing.assert_array_equal(low, np.minimum(x.min(axis=1), 0))
    np.testing.assert_array_equal(high, np.maximum(x.max(axis=1), 0))
    np.testing.assert_array_equal(total, x.sum(axis=1))
    np.testing.assert_array_equal(squares, np.full(shape[0], (np.arange(shape[1]) ** 2).sum()))


@tw.kernel
def converted(x: Tensor["M", "D"], y: Tensor["M", "D"].of("i64"), z: Tensor["M", "D"]):
    for i, d in parallel("M", "D"):
        y[i, d] = x[i, d].to(i64)
        z[i, d] = (x[i, d].to(i64) + 1).to(f32)


@pytest.mark.parametrize("shape", SHAPES)
def test_from_floats_and_back(shape):
    x = (np.random.default_rng(1).standard_normal(shape) * 1e12).astype(np.float32)
    y, z = np.zeros(shape, np.int64), np.zeros(shape, np.float32)
    run(converted, x=x, y=y, z=z)
    np.testing.assert_array_equal(y, x.astype(np.int64))
    np.testing.assert_array_equal(z, (x.astype(np.int64) + 1).astype(np.float32))


@tw.kernel
def counted(x: Tensor["M", "D"], y: Tensor["M", "D"].of("i64")):
    for i, d in parallel("M", "D"):
        place = coord(d) + coord(i)
        y[i, d] = where(x[i, d] > 0.0, place, place - 1)


def test_positions_stay_narrow_and_are_widened_where_they_are_stored():
    kernel = counted.trace({"x": "f32", "y": "i64"})
    types = {s.name: s.type.dtype for s in ir.walk(widened(kernel).body) if isinstance(s, ir.Let)}
    assert i64 in types.values() and WIDE not in types.values()
    assert widened(kernel).param("y").dtype == WIDE
    x = np.random.default_rng(2).standard_normal((3, 37)).astype(np.float32)
    y = run(counted, x=x, y=np.full((3, 37), -77))["y"]
    np.testing.assert_array_equal(y, np.add.outer(np.arange(3), np.arange(37)) - (x <= 0))


def test_a_program_without_them_is_as_it_was():
    from tilewright import operators

    kernel = operators.matmul.kernel.trace({"a": "f32", "b": "f32", "c": "f32"})
    assert widened(kernel) is kernel
