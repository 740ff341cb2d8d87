"""The likeliest tokens and what probabilities are made from: parts, and parts joined, against sorting."""

import numpy as np
from cases import STEPS, Case, memories, thorough
from hypothesis import given
from hypothesis import strategies as st

from tilewright import operators
from tilewright.operators.likeliest import NOWHERE

F32, I32 = np.dtype(np.float32), np.dtype(np.int32)
SOME = st.integers(1, 6)


def drawn(memory, shape, ties):
    """Logits; with ties, and hidden ones among them and whole rows of those."""
    if not ties:
        return memory.normal(shape)
    x = memory.random.integers(-2, 2, shape).astype(F32)
    x[x == 0] = -np.inf
    x[:1, :1] = -np.inf
    return memory.laid_out(x)


@thorough
@given(memories, STEPS, SOME, SOME, st.integers(1, 9), SOME, st.booleans())
def test_the_best_of_each_part_come_in_order(memory, steps, b, c, d, k, ties):
    outputs = {"value": ((b, c, k), F32), "token": ((b, c, k), I32), "part": ((b, c), F32)}
    x = drawn(memory, (b, c, d), ties)
    Case(operators.likeliest_parts, {"logits": x}, outputs, options={"k": k}).check(memory, steps)


@thorough
@given(memories, STEPS, SOME, SOME, st.integers(1, 9), SOME, st.booleans())
def test_joined_parts_are_the_whole_sorted(memory, steps, b, c, d, k, ties):
    x = drawn(memory, (b, c, d), ties)
    if ties:
        x[:, -1:, :1] = 1.0  # no row of nothing but hidden tokens: it has no probabilities
    parts = operators.likeliest_parts.reference(x, k)
    inputs = {
        "value": parts["value"].value.reshape(b, -1).astype(F32),
        "token": parts["token"].value.reshape(b, -1).astype(I32),
        "part": parts["part"].value.astype(F32), "logits": x.reshape(b, -1),
        "chosen": memory.random.integers(0, c * d, b).astype(I32),
    }  # fmt: skip
    best, one = {"values": ((b, k), F32), "tokens": ((b, k), I32)}, dict.fromkeys(("lse", "logit"), ((b,), F32))
    case = Case(operators.likeliest_join, inputs, {**best, **one}, options={"k": k})
    case.check(memory, steps)
    found, whole = case.expected(), inputs["logits"].astype(np.float64)
    order = np.argsort(-whole, axis=-1, kind="stable")[:, :k]
    n = order.shape[1]
    np.testing.assert_array_equal(found["tokens"].value[:, :n], order)
    assert (found["tokens"].value[:, n:] == NOWHERE).all()
    np.testing.assert_allclose(found["lse"].value, np.log(np.exp(whole).sum(-1)), rtol=1e-6, atol=1e-6)


def test_nan_is_seen():
    x = np.zeros((1, 1, 4), F32)
    x[0, 0, 2] = np.nan
    found = operators.likeliest_parts.reference(x, 2)
    assert found["token"].value.tolist() == [[[2, 0]]]
