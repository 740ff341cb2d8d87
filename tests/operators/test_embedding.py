import numpy as np
from cases import SIZES, SOME, STEPS, Case, element, memories, thorough
from hypothesis import given

from tilewright import operators
from tilewright.language.interpreter import run


@thorough
@given(memories, STEPS, element, SIZES, SOME, SIZES)
def test_embedding(memory, steps, kind, n, vocabulary, d):
    inputs = {"ids": memory.integers(0, vocabulary, (n,)), "table": memory.normal((vocabulary, d), kind)}
    Case(operators.embedding, inputs, {"y": ((n, d), kind)}).check(memory, steps)


def test_an_id_outside_the_table_names_the_nearest_row():
    kernel = operators.embedding.kernel.trace({"ids": "i64", "table": "f32", "y": "f32"})
    y, table = np.full((4, 2), np.nan, np.float32), np.arange(6, dtype=np.float32).reshape(3, 2)
    run(kernel, {"ids": np.array([3, -1, 1, -(1 << 40)]), "table": table, "y": y})
    assert np.array_equal(y, table[[2, 0, 1, 0]])
