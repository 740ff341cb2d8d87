import numpy as np
from cases import SIZES, STEPS, Case, element, memories, thorough
from hypothesis import given
from hypothesis import strategies as st

from tilewright import operators


@thorough
@given(memories, STEPS, element, element, SIZES, SIZES, st.sampled_from((0.0, -1.0, 0.3, 7.0)))
def test_scale_add(memory, steps, kind, other, m, d, alpha):
    inputs = {"a": memory.normal((m, d), kind), "b": memory.normal((m, d), other)}
    Case(operators.scale_add, inputs, {"c": ((m, d), kind)}, {"alpha": alpha}).check(memory, steps)


def test_reference():
    a, b = np.arange(6.0).reshape(2, 3), np.ones((2, 3))
    np.testing.assert_array_equal(operators.scale_add.reference(a, b, 2.0)["c"].value, 2 * a + 1)
