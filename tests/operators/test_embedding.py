import numpy as np
import pytest
from cases import SIZES, SOME, STEPS, Case, element, memories, thorough
from hypothesis import given

from tilewright import operators
from tilewright.errors import ArgumentError
from tilewright.language.interpreter import run


@thorough
@given(memories, STEPS, element, SIZES, SOME, SIZES)
def test_embedding(memory, steps, kind, n, vocabulary, d):
    inputs = {"ids": memory.integers(0, vocabulary, (n,)), "table": memory.normal((vocabulary, d), kind)}
    Case(operators.embedding, inputs, {"y": ((n, d), kind)}).check(memory, steps)


def test_an_id_outside_the_table_is_refused_by_the_interpreter():
    kernel = operators.embedding.kernel.trace({"ids": "i64", "table": "f32", "y": "f32"})
    tensors = {"ids": np.array([3]), "table": np.zeros((3, 2), np.float32), "y": np.zeros((1, 2), np.float32)}
    with pytest.raises(ArgumentError, match=r"is 3, outside dimension V of size 3"):
        run(kernel, tensors)
