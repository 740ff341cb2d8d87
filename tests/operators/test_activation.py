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


def test_references_are_torch():
    x, up = torch.randn(2, 7, 5, dtype=torch.float64) * 5
    silu = torch.nn.functional.silu(x)
    np.testing.assert_allclose(operators.silu.reference(x.numpy())["y"].value, silu.numpy(), rtol=1e-12)
    swiglu = operators.swiglu.reference(x.numpy(), up.numpy())["y"].value
    np.testing.assert_allclose(swiglu, (silu * up).numpy(), rtol=1e-12)
    gelu = operators.gelu.reference(x.numpy(), "gelu")["y"].value
    np.testing.assert_allclose(gelu, torch.nn.functional.gelu(x).numpy(), rtol=1e-9, atol=1e-14)


def test_an_unknown_activation_is_named():
    with pytest.raises(ArgumentError, match=r"unknown activation 'swish'; choose one of silu, gelu"):
        operators.gelu.kernel.trace("f32", options={"activation": "swish"})
