import numpy as np
import torch
from cases import SIZES, STEPS, Case, element, memories, thorough
from hypothesis import given
from hypothesis import strategies as st

from tilewright import operators


@thorough
@given(memories, STEPS, element, SIZES, SIZES, st.sampled_from((1.0, 20.0, 500.0)))
def test_softmax(memory, steps, kind, m, d, spread):
    x = (memory.normal((m, d), np.float32) * np.float32(spread)).astype(kind)
    Case(operators.softmax, {"x": x}, {"y": ((m, d), kind)}).check(memory, steps)


@thorough
@given(memories, STEPS, st.integers(1, 9))
def test_minus_infinity_hides_an_element(memory, steps, d):
    x = memory.normal((4, d), np.float32)
    x[memory.random.random((4, d)) < 0.6] = -np.inf
    x[0] = -np.inf  # and a row where nothing is left is NaN, as in torch
    Case(operators.softmax, {"x": x}, {"y": ((4, d), np.float32)}).check(memory, steps)


@thorough
@given(memories, STEPS, element, SIZES, SIZES, st.sampled_from((1.0, 1e4)))
def test_softmax_backward(memory, steps, kind, m, d, spread):
    shares = operators.softmax.reference(memory.normal((m, d)))["y"].value
    inputs = {
        "y": memory.laid_out(shares.astype(kind)),
        "dy": (memory.normal((m, d)) * np.float32(spread)).astype(kind),
    }
    Case(operators.softmax_backward, inputs, {"dx": ((m, d), kind)}).check(memory, steps)


def test_reference_of_the_gradient_is_torch():
    x, dy = torch.randn(2, 5, 11, dtype=torch.float64, requires_grad=True)
    y = torch.softmax(x, -1)
    (dx,) = torch.autograd.grad(y, x, dy)
    ours = operators.softmax_backward.reference(y.detach().numpy(), dy.detach().numpy())["dx"].value
    np.testing.assert_allclose(ours, dx.numpy(), rtol=1e-10, atol=1e-14)


def test_reference_is_torch():
    x = torch.randn(5, 11, dtype=torch.float64) * 30
    x[1, 3:], x[2] = -torch.inf, -torch.inf
    ours = operators.softmax.reference(x.numpy())["y"].value
    np.testing.assert_allclose(ours, torch.softmax(x, -1).numpy(), rtol=1e-12)
