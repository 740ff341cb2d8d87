"""Levels that tokens have to reach: each step against the reference, and the whole search against sorting."""

import numpy as np
import pytest
from cases import STEPS, Case, memories, thorough
from hypothesis import given
from hypothesis import strategies as st

from tilewright import operators, ops
from tilewright.engine.sampling import REACH, SamplingParams, _candidates
from tilewright.models.memory import HOST
from tilewright.models.plan import LEVELS, Choice, Filters, Recorder, Workspace
from tilewright.operators.operator import wide

F32 = np.dtype(np.float32)
SOME = st.integers(1, 6)


def shares(count):
    return np.arange(count, dtype=F32) / np.float32(count)


def floats(*names, shape):
    return dict.fromkeys(names, (shape, F32))


@thorough
@given(memories, STEPS, SOME, SOME, SOME)
def test_a_search_begins_between_the_cut_and_just_above_the_best(memory, steps, b, c, j):
    inputs = {
        "score": memory.normal((b, c)), "temperatures": np.abs(memory.normal((b,))),
        "cuts": -np.abs(memory.normal((b,))), "shares": shares(j),
    }  # fmt: skip
    case = Case(operators.level_begin, inputs, {**floats("top", "low", "high", shape=(b,)), "levels": ((b, j), F32)})
    case.check(memory, steps)
    found = case.expected()
    assert np.all(found["low"].value <= found["top"].value)
    assert np.all(found["top"].value < found["high"].value)


@thorough
@given(memories, STEPS, SOME, SOME)
def test_a_search_by_mass_begins_where_the_other_ended(memory, steps, b, j):
    inputs = {
        "top": memory.normal((b,)), "low": memory.normal((b,)) - 9, "kept": np.abs(memory.normal((b,))),
        "portions": np.minimum(1.0, np.abs(memory.normal((b,)))).astype(F32), "shares": shares(j),
    }  # fmt: skip
    Case(
        operators.level_again, inputs, {**floats("least", "high", shape=(b,)), "levels": ((b, j), F32)}
    ).check(memory, steps)  # fmt: skip


@thorough
@given(memories, STEPS, SOME, SOME, st.integers(1, 9), SOME)
def test_what_reaches_each_level_is_counted_and_weighed(memory, steps, b, c, d, j):
    x = memory.normal((b, c, d))
    inputs = {
        "logits": x, "levels": memory.normal((b, j)), "top": x.max((1, 2)),
        "temperatures": np.abs(memory.normal((b,))),
    }  # fmt: skip
    Case(operators.level_parts, inputs, floats("count", "mass", shape=(b, j, c))).check(memory, steps)


@thorough
@given(memories, STEPS, SOME, SOME, SOME)
def test_the_ends_move_to_neighbouring_levels(memory, steps, b, j, c):
    levels = np.sort(memory.random.integers(-8, 8, (b, j))).astype(F32)
    # More reach a lower level; whole numbers, so that sums are exact and comparisons mean the same everywhere.
    count = np.sort(memory.random.integers(0, 5, (b, j, c)), axis=1)[:, ::-1].astype(F32)
    mass = np.sort(memory.random.integers(0, 5, (b, j, c)), axis=1)[:, ::-1].astype(F32)
    inputs = {
        "count": count, "mass": mass, "levels": levels, "shares": shares(j),
        "fewest": memory.random.integers(0, 3 * c, b).astype(F32),
        "least": memory.random.integers(0, 3 * c, b).astype(F32),
        "low": levels[:, 0].copy(), "high": levels[:, -1] + 1,
    }  # fmt: skip
    case = Case(operators.level_join, inputs, {**floats("low", "high", "kept", shape=(b,)), "finer": ((b, j), F32)})
    case.check(memory, steps)


# ------------------------------------------------------------------------------------------- the whole search
def floors(logits, temperatures, limits):
    """The level of each row, by the kernels of this host."""
    rows = len(logits)
    cuts, fewest, portions = (np.ascontiguousarray(column) for column in np.array(limits, F32).T)
    filters = Filters(cuts, fewest, portions, shares(LEVELS), np.zeros(rows, F32))
    whole = [np.zeros(rows, np.int32) for _ in range(4)]
    choice = Choice(*whole[:3], np.array(temperatures, F32), whole[3], np.zeros(rows, F32), filters)
    run = Recorder(ops, Workspace(), np.float32)
    found = run._floors(logits, choice, filters)
    HOST.run(run.launches)
    return found.copy()


WAYS = [
    {"top_k": 1}, {"top_k": 7}, {"top_k": 4000}, {"top_p": 0.9}, {"top_p": 1e-9}, {"min_p": 0.05}, {},
    {"top_k": 40, "top_p": 0.8}, {"top_k": 40, "top_p": 0.95, "min_p": 0.02}, {"top_p": 0.5, "temperature": 3.0},
    {"top_k": 5, "temperature": 0.05}, {"top_p": 0.999, "temperature": 0.3},
]  # fmt: skip


@pytest.mark.parametrize("spread", [1.0, 6.0])
def test_the_same_tokens_are_kept_as_by_sorting(spread):
    random, vocab = np.random.default_rng(5), 4096
    logits = (spread * random.standard_normal((len(WAYS), vocab))).astype(F32)
    params = [SamplingParams(**way) for way in WAYS]
    limits = [
        (max(-REACH, np.log(p.min_p)) if p.min_p else -REACH, p.top_k if 0 < p.top_k < vocab else vocab, p.top_p)
        for p in params
    ]
    found = floors(logits, [p.temperature for p in params], limits)
    for row, floor, p in zip(logits, found, params, strict=True):
        ids, weights = _candidates(row, p)
        kept = set(np.flatnonzero(row >= floor))
        share = np.exp((wide(row) - row.max()) / p.temperature)
        # In f32 a token at the edge of top-p may fall on either side: it is the last one, and within rounding of it.
        doubtful = {int(i) for i in kept.symmetric_difference(ids.tolist())}
        assert sum(share[list(doubtful)], 0.0) <= 2e-6 * share.sum(), p
        if p.top_p == 1.0:
            assert kept == {int(i) for i, w in zip(ids, weights, strict=True) if w > 1e-45}, p


def test_equal_tokens_are_kept_together():
    logits = np.array([[3.0, 1.0, 2.0, 2.0] + [0.0] * 60], F32)
    assert np.flatnonzero(logits[0] >= floors(logits, [1.0], [(-REACH, 2, 1.0)])[0]).tolist() == [0, 2, 3]


def test_neighbouring_numbers_are_told_apart():
    logits = np.full((1, 64), 4.0, F32)
    logits[0, 5] = np.nextafter(np.float32(4.0), np.float32(5.0))
    assert np.flatnonzero(logits[0] >= floors(logits, [1.0], [(-REACH, 1, 1.0)])[0]).tolist() == [5]


def test_masked_logits_never_count():
    logits = np.full((1, 64), -np.inf, F32)
    logits[0, [3, 9]] = 1.0, 0.0
    assert np.flatnonzero(logits[0] >= floors(logits, [1.0], [(-REACH, 50, 1.0)])[0]).tolist() == [3, 9]
