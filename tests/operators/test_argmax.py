import numpy as np
import torch
from cases import SIZES, STEPS, Case, element, memories, thorough
from hypothesis import given
from hypothesis import strategies as st

from tilewright import operators


@thorough
@given(memories, STEPS, element, SIZES, st.integers(1, 40), st.booleans())
def test_argmax_gives_the_first_of_equal_ones(memory, steps, kind, m, d, ties):
    x = memory.normal((m, d), kind)
    if ties:
        x[...] = memory.random.integers(-2, 2, (m, d)).astype(kind)
    Case(operators.argmax, {"x": x}, {"index": ((m,), np.int64)}).check(memory, steps)


@thorough
@given(memories, STEPS, st.integers(1, 20))
def test_infinities_and_nan(memory, steps, d):
    x = memory.random.choice(np.array([-np.inf, -1.0, np.inf, np.nan], np.float32), (6, d))
    x[0] = -np.inf
    Case(operators.argmax, {"x": x}, {"index": ((6,), np.int32)}).check(memory, steps)


def test_reference_is_torch():
    x = torch.randint(0, 4, (20, 9)).double()
    np.testing.assert_array_equal(operators.argmax.reference(x.numpy())["index"].value, x.argmax(-1).numpy())


@thorough
@given(memories, STEPS, element, SIZES, st.integers(5, 40), st.sampled_from((1, 2, 5)), st.booleans())
def test_topk_gives_the_largest_in_order_and_the_first_of_equal_ones(memory, steps, kind, m, d, k, ties):
    x = memory.normal((m, d), kind)
    if ties:
        x[...] = memory.random.integers(-2, 2, (m, d)).astype(kind)
        x[:1] = -np.inf
    outputs = {"values": ((m, k), kind), "index": ((m, k), np.int64)}
    Case(operators.topk, {"x": x}, outputs, options={"k": k}).check(memory, steps)


def test_reference_of_topk_is_torch():
    x = torch.randn(20, 30).double()
    values, index = torch.topk(x, 4)
    exact = operators.topk.reference(x.numpy(), 4)
    np.testing.assert_array_equal(exact["values"].value, values.numpy())
    np.testing.assert_array_equal(exact["index"].value, index.numpy())
