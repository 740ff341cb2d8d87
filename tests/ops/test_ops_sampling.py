"""`ops.sample_parts` and `ops.sample_join` by compiled kernels, and what they refuse."""

from __future__ import annotations

import numpy as np
import pytest

from tilewright import operators, ops
from tilewright.errors import ArgumentError, DTypeError

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
