"""The choice of tokens: the interpreter against the reference, and draws against the distribution they come from."""

import numpy as np
from cases import STEPS, Case, memories, thorough
from hypothesis import given
from hypothesis import strategies as st

from tilewright import operators
from tilewright.operators.sample import PRIME, gumbel

F32, I32 = np.dtype(np.float32), np.dtype(np.int32)


def parts(x, temperatures, seeds, places):
    shape = x.shape[:2]
    inputs = {"logits": x, "temperatures": temperatures, "seeds": seeds, "places": places}
    return Case(operators.sample_parts, inputs, {"score": (shape, F32), "token": (shape, I32)})


@thorough
@given(memories, STEPS, st.integers(1, 3), st.integers(1, 5), st.integers(1, 20), st.booleans())
def test_the_likeliest_token_of_each_part_is_the_first_of_equals(memory, steps, b, c, d, ties):
    x = memory.normal((b, c, d), F32)
    if ties:
        x[...] = memory.random.integers(-2, 2, (b, c, d))
    seeds, places = (memory.random.integers(0, PRIME, b).astype(I32) for _ in range(2))
    parts(x, np.zeros(b, F32), seeds, places).check(memory, steps)
    outputs = {"score": ((b, c), F32), "token": ((b, c), I32)}
    Case(operators.sample_parts, {"logits": x}, outputs).check(memory, steps)
    given = {"temperatures": np.zeros(b, F32), "seeds": seeds, "places": places, "floors": memory.normal((b,), F32)}
    Case(operators.sample_parts, {"logits": x, **given}, outputs).check(memory, steps)


@thorough
@given(memories, st.integers(1, 4), st.integers(1, 20))
def test_draws_are_those_of_the_reference_whatever_the_tiles(memory, c, d):
    x = memory.normal((2, c, d), F32)
    seeds, places = (memory.random.integers(0, PRIME, 2).astype(I32) for _ in range(2))
    case = parts(x, np.array([0.7, 1.3], F32), seeds, places)
    wanted = case.expected()
    for steps in (1, 3, 16):
        found = case._run(memory, steps, exact=True)
        np.testing.assert_array_equal(found["token"], wanted["token"].value)
        np.testing.assert_allclose(found["score"], wanted["score"].value, rtol=1e-9, atol=1e-9)


@thorough
@given(memories, STEPS, st.integers(1, 5), st.integers(1, 9))
def test_the_best_part_wins_and_the_state_goes_on(memory, steps, b, c):
    inputs = {
        "score": memory.random.integers(-2, 2, (b, c)).astype(F32),
        "token": np.arange(b * c, dtype=I32).reshape(b, c),
        "place": memory.random.integers(0, 100, b).astype(I32),
        "length": memory.random.integers(1, 100, b).astype(I32),
    }
    kinds = {"chosen": I32, "peak": F32, "place": I32, "length": I32}
    Case(operators.sample_join, inputs, {n: ((b,), k) for n, k in kinds.items()}).check(memory, steps)


def test_nan_is_seen():
    x = np.zeros((1, 1, 4), F32)
    x[0, 0, 2] = np.nan
    zero = np.zeros(1, I32)
    found = operators.sample_parts.reference(x, np.zeros(1, F32), zero, zero)
    assert found["token"].value.tolist() == [[2]]
    assert found["score"].value.tolist() == [[np.inf]]


def test_draws_follow_gumbels_distribution():
    drawn = np.sort(gumbel(7, np.arange(64)[:, None], np.arange(4096)[None]).reshape(-1))
    share = np.exp(-np.exp(-drawn))
    even = (np.arange(drawn.size) + 0.5) / drawn.size
    assert np.abs(share - even).max() < 1.95 / np.sqrt(drawn.size)  # Kolmogorov and Smirnov, one in a thousand


def test_neighbours_have_nothing_to_do_with_one_another():
    for a, b in (
        (gumbel(7, 3, np.arange(1 << 16)), gumbel(7, 3, 1 + np.arange(1 << 16))),
        (gumbel(7, 3, np.arange(1 << 16)), gumbel(7, 4, np.arange(1 << 16))),
        (gumbel(7, 3, np.arange(1 << 16)), gumbel(8, 3, np.arange(1 << 16))),
    ):
        assert abs(np.corrcoef(a, b)[0, 1]) < 3.3 / np.sqrt(1 << 16)
