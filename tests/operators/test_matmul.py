import numpy as np
import torch
from cases import SIZES, STEPS, Case, element, memories, thorough
from hypothesis import given
from hypothesis import strategies as st

from tilewright import operators
from tilewright.operators.activation import ACTIVATIONS

activations = st.sampled_from((None, *ACTIVATIONS))


@thorough
@given(memories, STEPS, element, element, SIZES, SIZES, SIZES, st.booleans(), st.booleans(), activations)
def test_matmul_with_any_epilogue(memory, steps, kind, stored, m, n, k, bias, residual, activation):
    inputs = {"a": memory.normal((m, k), kind), "b": memory.normal((n, k), kind)}
    if bias:
        inputs["bias"] = memory.normal((n,), stored)
    if residual:
        inputs["residual"] = memory.normal((m, n), stored)
    options = {"activation": activation}
    Case(operators.matmul, inputs, {"c": ((m, n), stored)}, options=options).check(memory, steps)


@thorough
@given(memories, STEPS, element, element, SIZES, SIZES, SIZES, st.booleans(), st.booleans(), activations)
def test_matmul_with_a_scale_of_each_row_and_column(memory, steps, kind, stored, m, n, k, rows, columns, activation):
    inputs = {"a": memory.normal((m, k), kind), "b": memory.normal((n, k), kind), "bias": memory.normal((n,), stored)}
    inputs |= {"row_scale": memory.normal((m,))} if rows else {}
    inputs |= {"column_scale": memory.normal((n,))} if columns else {}
    Case(operators.matmul, inputs, {"c": ((m, n), stored)}, options={"activation": activation}).check(memory, steps)


def test_scales_are_those_of_rows_and_of_columns():
    a, b, rows, columns = (np.random.default_rng(0).standard_normal(s) for s in ((5, 7), (3, 7), 5, 3))
    found = operators.matmul.reference(a, b, row_scale=rows, column_scale=columns)["c"].value
    np.testing.assert_allclose(found, np.diag(rows) @ a @ b.T @ np.diag(columns), rtol=1e-12)


@thorough
@given(memories, STEPS, element, SIZES, SIZES, SIZES)
def test_gate_up(memory, steps, kind, m, n, k):
    inputs = {"x": memory.normal((m, k), kind), "gate": memory.normal((n, k), kind), "up": memory.normal((n, k), kind)}
    Case(operators.gate_up, inputs, {"y": ((m, n), kind)}).check(memory, steps)


@thorough
@given(memories, STEPS, element, SIZES, SIZES, SIZES, SIZES)
def test_batched_matmul(memory, steps, kind, b, m, n, k):
    inputs = {"a": memory.normal((b, m, k), kind), "b": memory.normal((b, n, k), kind)}
    Case(operators.batched_matmul, inputs, {"c": ((b, m, n), kind)}).check(memory, steps)


def test_reference_is_torch():
    a, b, bias, residual = (torch.randn(*s, dtype=torch.float64) for s in ((5, 7), (3, 7), (3,), (5, 3)))
    functions = {
        None: lambda v: v,
        "silu": torch.nn.functional.silu,
        "gelu": torch.nn.functional.gelu,
        "gelu_tanh": lambda v: torch.nn.functional.gelu(v, approximate="tanh"),
        "relu": torch.relu,
    }
    for name, function in functions.items():
        ours = operators.matmul.reference(a.numpy(), b.numpy(), bias.numpy(), residual.numpy(), name)["c"].value
        theirs = function(torch.nn.functional.linear(a, b, bias)) + residual
        np.testing.assert_allclose(ours, theirs.numpy(), rtol=1e-12, atol=1e-12)


def test_no_terms_give_the_bias():
    bias = np.arange(4, dtype=np.float32)
    exact = operators.matmul.reference(np.zeros((2, 0)), np.zeros((4, 0)), bias)["c"]
    np.testing.assert_array_equal(exact.value, np.broadcast_to(bias, (2, 4)))
