import numpy as np
import pytest
import torch
from cases import SIZES, STEPS, Case, element, memories, thorough
from hypothesis import given
from hypothesis import strategies as st

from tilewright import operators
from tilewright.errors import ArgumentError

spreads = st.sampled_from((1.0, 10.0, 1000.0))


@thorough
@given(memories, STEPS, element, SIZES, SIZES, spreads)
def test_silu(memory, steps, kind, m, d, spread):
    x = (memory.normal((m, d)) * np.float32(spread)).astype(kind)
    Case(operators.silu, {"x": x}, {"y": ((m, d), kind)}).check(memory, steps)


@thorough
@given(memories, STEPS, element, SIZES, SIZES, spreads, st.sampled_from(("gelu", "gelu_tanh")))
def test_gelu(memory, steps, kind, m, d, spread, activation):
    x = (memory.normal((m, d)) * np.float32(spread)).astype(kind)
    Case(operators.gelu, {"x": x}, {"y": ((m, d), kind)}, options={"activation": activation}).check(memory, steps)


@thorough
@given(memories, STEPS, element, SIZES, SIZES)
def test_swiglu(memory, steps, kind, m, d):
    inputs = {"gate": memory.normal((m, d), kind), "up": memory.normal((m, d), kind)}
    Case(operators.swiglu, inputs, {"y": ((m, d), kind)}).check(memory, steps)


@thorough
@given(memories, STEPS, element, SIZES, SIZES, spreads, st.sampled_from(("gelu", "gelu_tanh")))
def test_geglu(memory, steps, kind, m, d, spread, activation):
    gate = (memory.normal((m, d)) * np.float32(spread)).astype(kind)
    inputs = {"gate": gate, "up": memory.normal((m, d), kind)}
    Case(operators.geglu, inputs, {"y": ((m, d), kind)}, options={"activation": activation}).check(memory, steps)


@thorough
@given(memories, STEPS, element, SIZES, SIZES, spreads)
def test_swiglu_backward(memory, steps, kind, m, d, spread):
    inputs = {name: memory.normal((m, d), kind) for name in ("gate", "up", "dy")}
    inputs["gate"] = (inputs["gate"].astype(np.float32) * np.float32(spread)).astype(kind)
    outputs = dict.fromkeys(("dgate", "dup"), ((m, d), kind))
    Case(operators.swiglu_backward, inputs, outputs).check(memory, steps)


@thorough
@given(memories, STEPS, element, SIZES, SIZES, spreads, st.sampled_from(("gelu", "gelu_tanh")))
def test_geglu_backward(memory, steps, kind, m, d, spread, activation):
    inputs = {name: memory.normal((m, d), kind) for name in ("gate", "up", "dy")}
    inputs["gate"] = (inputs["gate"].astype(np.float32) * np.float32(spread)).astype(kind)
    outputs = dict.fromkeys(("dgate", "dup"), ((m, d), kind))
    Case(operators.geglu_backward, inputs, outputs, options={"activation": activation}).check(memory, steps)


@pytest.mark.parametrize(("activation", "approximate"), [("gelu", "none"), ("gelu_tanh", "tanh")])
def test_reference_of_the_gradient_of_geglu_is_torch(activation, approximate):
    gate, up, dy = torch.randn(3, 7, 5, dtype=torch.float64)
    gate = (4 * gate).requires_grad_()
    up.requires_grad_()
    expected = torch.autograd.grad(torch.nn.functional.gelu(gate, approximate=approximate) * up, (gate, up), dy)
    ours = operators.geglu_backward.reference(*(t.detach().numpy() for t in (gate, up, dy)), activation)
    for name, theirs in zip(("dgate", "dup"), expected, strict=True):
        np.testing.assert_allclose(ours[name].value, theirs.numpy(), rtol=1e-9, atol=1e-13)


def test_reference_of_the_gradient_is_torch():
    gate, up, dy = torch.randn(3, 7, 5, dtype=torch.float64, requires_grad=True)
    expected = torch.autograd.grad(torch.nn.functional.silu(gate) * up, (gate, up), dy)
    ours = operators.swiglu_backward.reference(*(t.detach().numpy() for t in (gate, up, dy)))
    for name, theirs in zip(("dgate", "dup"), expected, strict=True):
        np.testing.assert_allclose(ours[name].value, theirs.numpy(), rtol=1e-10, atol=1e-14)


def test_references_are_torch():
    x, up = torch.randn(2, 7, 5, dtype=torch.float64) * 5
    silu = torch.nn.functional.silu(x)
    np.testing.assert_allclose(operators.silu.reference(x.numpy())["y"].value, silu.numpy(), rtol=1e-12)
    swiglu = operators.swiglu.reference(x.numpy(), up.numpy())["y"].value
    np.testing.assert_allclose(swiglu, (silu * up).numpy(), rtol=1e-12)
    geglu = operators.geglu.reference(x.numpy(), up.numpy())["y"].value
    np.testing.assert_allclose(geglu, (torch.nn.functional.gelu(x) * up).numpy(), rtol=1e-9, atol=1e-14)
    gelu = operators.gelu.reference(x.numpy(), "gelu")["y"].value
    np.testing.assert_allclose(gelu, torch.nn.functional.gelu(x).numpy(), rtol=1e-9, atol=1e-14)


def test_an_unknown_activation_is_named():
    with pytest.raises(ArgumentError, match=r"unknown activation 'swish'; choose one of silu, gelu"):
        operators.gelu.kernel.trace("f32", options={"activation": "swish"})
