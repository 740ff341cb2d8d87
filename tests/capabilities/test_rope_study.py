"""Rows E1 to E3 of the list of capabilities, by their names: rotary embedding with its gradient, and its study."""

import numpy as np
import pytest
import torch

from tilewright import ops


@pytest.fixture
def case():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 5, 3, 16, generator=generator)
    angles = torch.outer(torch.arange(5.0), 10_000.0 ** (-torch.arange(0, 16, 2) / 16)).repeat(1, 2)
    return x, angles.cos(), angles.sin(), torch.randn(x.shape, generator=generator)


def test_E1_forward_in_place_and_backward_with_the_sine_negated(case):
    x, cos, sin, dy = case
    leaf = x.clone().requires_grad_()
    inner = leaf * 1.0
    version, given = inner._version, dy.clone()
    y = ops.rope(inner, cos, sin, out=inner)
    assert y is inner and y.data_ptr() == inner.data_ptr()  # no second tensor
    assert inner._version > version  # marked as written, so that autograd refuses stale reads
    y.backward(dy)
    assert torch.equal(dy, given)  # the caller's gradient is as it was
    negated = ops.rope(dy, cos, -sin)
    assert torch.equal(leaf.grad, negated)  # the same kernel with the sine negated, bit by bit
    np.testing.assert_allclose(ops.rope(y.detach(), cos, -sin).numpy(), x.numpy(), rtol=1e-5, atol=1e-6)


def test_E1_a_real_gradient_check(case):
    """torch.autograd.gradcheck over every element. Turning is linear: a wide step costs no accuracy in f32."""
    x, cos, sin, _ = case
    for interleaved in (False, True):
        for positions in (None, torch.tensor([4, 0, 2, 2, 1])):
            assert torch.autograd.gradcheck(
                lambda t, i=interleaved, p=positions: ops.rope(t, cos, sin, interleaved=i, positions=p),
                x[:1, :, :1].clone().requires_grad_(),
                eps=0.5,
                atol=1e-5,
                rtol=1e-4,
            )


def test_E1_a_stale_read_is_refused(case):
    x, cos, sin, _ = case
    inner = x.clone().requires_grad_() * 1.0
    squared = inner * inner  # keeps inner for its gradient
    ops.rope(inner, cos, sin, out=inner)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        squared.sum().backward()
