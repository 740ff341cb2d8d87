import numpy as np
import torch
from cases import SIZES, STEPS, Case, element, memories, thorough
from hypothesis import given
from hypothesis import strategies as st

from tilewright import operators

EPS = 1e-5


@thorough
@given(memories, STEPS, element, element, SIZES, SIZES)
def test_rmsnorm(memory, steps, kind, weight, m, d):
    inputs = {"x": memory.normal((m, d), kind), "weight": memory.normal((d,), weight)}
    Case(operators.rmsnorm, inputs, {"y": ((m, d), kind)}, {"eps": EPS}).check(memory, steps)


@thorough
@given(memories, STEPS, element, element, SIZES, SIZES)
def test_add_rmsnorm(memory, steps, kind, stored, m, d):
    inputs = {
        "x": memory.normal((m, d), kind),
        "residual": memory.normal((m, d), stored),
        "weight": memory.normal((d,), kind),
    }
    outputs = {"total": ((m, d), stored), "y": ((m, d), kind)}
    Case(operators.add_rmsnorm, inputs, outputs, {"eps": EPS}).check(memory, steps)


@thorough
@given(memories, STEPS, element, SIZES, SIZES, st.booleans(), st.sampled_from((0.0, 1.0, 30.0)))
def test_layernorm_far_from_zero_too(memory, steps, kind, m, d, bias, mean):
    x = memory.normal((m, d), kind)
    x += np.asarray(mean, kind)
    inputs = {"x": x, "weight": memory.normal((d,), kind)}
    if bias:
        inputs["bias"] = memory.normal((d,), kind)
    Case(operators.layernorm, inputs, {"y": ((m, d), kind)}, {"eps": EPS}).check(memory, steps)


@thorough
@given(memories, STEPS, element, element, SIZES, SIZES)
def test_rmsnorm_backward(memory, steps, kind, weight, m, d):
    inputs = {
        "x": memory.normal((m, d), kind),
        "weight": memory.normal((d,), weight),
        "dy": memory.normal((m, d), kind),
    }
    outputs = {"dx": ((m, d), kind), "scale": ((m,), np.float32)}
    Case(operators.rmsnorm_backward, inputs, outputs, {"eps": EPS}).check(memory, steps)


@thorough
@given(memories, STEPS, element, element, SIZES, SIZES)
def test_rmsnorm_weight_backward(memory, steps, kind, weight, m, d):
    inputs = {"x": memory.normal((m, d), kind), "dy": memory.normal((m, d), kind), "scale": memory.normal((m,))}
    Case(operators.rmsnorm_weight_backward, inputs, {"dweight": ((d,), weight)}).check(memory, steps)


def test_references_of_gradients_are_torch():
    x, dy, weight = (torch.randn(*s, dtype=torch.float64, requires_grad=True) for s in ((6, 9), (6, 9), (9,)))
    y = torch.nn.functional.rms_norm(x, (9,), weight, EPS)
    dx, dweight = (g.numpy() for g in torch.autograd.grad(y, (x, weight), dy))
    given_ = {"x": x.detach().numpy(), "dy": dy.detach().numpy()}
    ours = operators.rmsnorm_backward.reference(**given_, weight=weight.detach().numpy(), eps=EPS)
    np.testing.assert_allclose(ours["dx"].value, dx, rtol=1e-11, atol=1e-12)
    total = operators.rmsnorm_weight_backward.reference(**given_, scale=ours["scale"].value)
    np.testing.assert_allclose(total["dweight"].value, dweight, rtol=1e-11, atol=1e-12)


def test_references_are_torch():
    x, weight, bias = (torch.randn(*s, dtype=torch.float64) for s in ((6, 9), (9,), (9,)))
    ours = operators.rmsnorm.reference(x.numpy(), weight.numpy(), EPS)["y"].value
    theirs = torch.nn.functional.rms_norm(x, (9,), weight, EPS)
    np.testing.assert_allclose(ours, theirs.numpy(), rtol=1e-12)
    ours = operators.layernorm.reference(x.numpy(), weight.numpy(), EPS, bias.numpy())["y"].value
    theirs = torch.nn.functional.layer_norm(x, (9,), weight, bias, EPS)
    np.testing.assert_allclose(ours, theirs.numpy(), rtol=1e-11, atol=1e-12)
    exact = operators.add_rmsnorm.reference(x.numpy(), 2 * x.numpy(), weight.numpy(), EPS)
    theirs = torch.nn.functional.rms_norm(3 * x, (9,), weight, EPS)
    np.testing.assert_allclose(exact["y"].value, theirs.numpy(), rtol=1e-12)
