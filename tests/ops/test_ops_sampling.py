"""`ops.sample_parts` and `ops.sample_join` by compiled kernels, and what they refuse."""

from __future__ import annotations

import numpy as np
import pytest

from tilewright import operators, ops
from tilewright.errors import ArgumentError, DTypeError
from tilewright.runtime import tolerance

KEYS = {"temperatures": np.float32, "seeds": np.int32, "places": np.int32}


def keys(b, **given):
    return [given.get(name, np.zeros(b, kind)).astype(kind) for name, kind in KEYS.items()]


def chosen(x, places, *given):
    b, parts, _ = x.shape
    out = [np.full((b, parts), -1, np.float32), np.full((b, parts), -1, np.int32)]
    scores, tokens = ops.sample_parts(x, *given, out=tuple(out))
    state = (np.zeros(b, np.int32), np.zeros(b, np.float32), places, np.ones(b, np.int32))
    return ops.sample_join(scores, tokens, out=state)


def test_greedy_takes_the_first_of_the_largest():
    x = np.random.default_rng(0).integers(-3, 4, (5, 8, 31)).astype(np.float32)
    places = np.arange(5, dtype=np.int32)
    for given in (keys(5), ()):
        tokens, *_ = chosen(x, places.copy(), *given)
        np.testing.assert_array_equal(tokens, x.reshape(5, -1).argmax(1))
    tokens, peaks, places, lengths = chosen(x, places, *keys(5))
    np.testing.assert_array_equal(tokens, x.reshape(5, -1).argmax(1))
    np.testing.assert_array_equal(peaks, x.reshape(5, -1).max(1))
    assert places.tolist() == [1, 2, 3, 4, 5]
    assert lengths.tolist() == [2] * 5


def test_draws_are_those_of_the_reference():
    rng = np.random.default_rng(1)
    x = rng.standard_normal((6, 4, 25)).astype(np.float32)
    given = keys(6, temperatures=np.array([0, 0.3, 0.7, 1, 2, 5]), seeds=np.arange(6) * 977, places=np.arange(6) + 40)
    parts = operators.sample_parts.reference(x, *given)
    best = parts["score"].value.argmax(1)
    tokens, *_ = chosen(x, given[2].copy(), *given)
    np.testing.assert_array_equal(tokens, parts["token"].value[np.arange(6), best])


def test_wrong_operands():
    x = np.zeros((2, 4, 8), np.float32)
    with pytest.raises(DTypeError, match="seeds of shape \\[2\\] is i64"):
        ops.sample_parts(x, np.zeros(2, np.float32), np.zeros(2, np.int64), np.zeros(2, np.int32))
    with pytest.raises(ArgumentError, match="B is that of logits"):
        ops.sample_parts(x, *keys(3))
    with pytest.raises(ArgumentError, match="places is missing; give temperatures, seeds and places, or none of them"):
        ops.sample_parts(x, *keys(2)[:2])
    with pytest.raises(ArgumentError, match="does not fit \\[B, C, D\\]"):
        ops.sample_parts(x[0], *keys(4))


# ------------------------------------------------------------------------------- penalties, and what is told
def test_penalties_by_compiled_kernels_are_those_of_the_reference():
    rng = np.random.default_rng(2)
    x, marks = rng.standard_normal((3, 301)).astype(np.float32), rng.integers(0, 6, (3, 301)).astype(np.int32)
    ways = [np.array(w, np.float32) for w in ([1.5, 1.0, 0.5], [0.25, 0.0, -1.0], [0.0, 0.75, 2.0])]
    y = ops.penalise(x, marks, *ways, out=np.full_like(x, np.nan))
    tolerance.check("y", y, operators.penalise.reference(x, marks, *ways)["y"])
    before = marks.copy()
    assert ops.mark(np.array([7, 300, 0], np.int32), out=marks) is marks
    before[[0, 1, 2], [7, 300, 0]] += 2
    np.testing.assert_array_equal(marks, before)


@pytest.mark.parametrize("parts", [1, 4, 25])
def test_what_is_told_of_logits_is_what_sorting_gives(parts):
    x = np.random.default_rng(3).integers(-9, 9, (5, 100)).astype(np.float32) / 4
    chosen = np.array([0, 99, 5, 50, 7], np.int32)
    values, tokens, part = ops.likeliest_parts(x.reshape(5, parts, -1), 20)
    joined = ops.likeliest_join(values.reshape(5, -1), tokens.reshape(5, -1), part, x, chosen, 20)
    order = np.argsort(-x, axis=1, kind="stable")[:, :20]
    np.testing.assert_array_equal(joined[1], order)
    np.testing.assert_array_equal(joined[0], np.take_along_axis(x, order, 1))
    np.testing.assert_allclose(joined[2], np.log(np.exp(x.astype(np.float64)).sum(1)), rtol=1e-6)
    np.testing.assert_array_equal(joined[3], x[np.arange(5), chosen])


def test_wrong_operands_of_penalties_and_of_what_is_told():
    x, marks, ways = np.zeros((2, 8), np.float32), np.zeros((2, 8), np.int32), [np.ones(2, np.float32)] * 3
    with pytest.raises(DTypeError, match="marks of shape \\[2, 8\\] is f32"):
        ops.penalise(x, x, *ways)
    with pytest.raises(ArgumentError, match="the shape of logits"):
        ops.penalise(x, marks[:, :7], *ways)
    with pytest.raises(ArgumentError, match="B is that of chosen"):
        ops.mark(np.zeros(3, np.int32), out=marks)
    marks.flags.writeable = False
    with pytest.raises(ArgumentError, match="is read-only"):
        ops.mark(np.zeros(2, np.int32), out=marks)
    with pytest.raises(ArgumentError, match="k=0; take at least 1"):
        ops.likeliest_parts(x.reshape(2, 2, 4), 0)
    with pytest.raises(ArgumentError, match="the shape of values"):
        ops.likeliest_join(x, marks[:, :3], x[:, :2], x, marks[:, 0], 2)
