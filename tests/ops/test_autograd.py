"""Gradients of ops, computed by ops: beside torch's own, by finite differences, and with nothing overwritten."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from tilewright import ops
from tilewright.errors import ArgumentError

EPS = 1e-6


def tables(generator, positions, size):
    """cos and sin as models have them: both halves alike."""
    angles = torch.randn(positions, size // 2, generator=generator).repeat(1, 2)
    return angles.cos(), angles.sin()


def turned(x, cos, sin):
    half = x.shape[-1] // 2
    return x * cos[None, :, None] + torch.cat([-x[..., half:], x[..., :half]], -1) * sin[None, :, None]


CALLS = {
    "rmsnorm": (lambda x, w: ops.rmsnorm(x, w, EPS), lambda x, w: F.rms_norm(x, w.shape, w, EPS)),
    "softmax": (lambda x, w: ops.softmax(x), lambda x, w: torch.softmax(x, -1)),
    "swiglu": (lambda x, w: ops.swiglu(x, w.expand_as(x)), lambda x, w: F.silu(x) * w.expand_as(x)),
    "geglu": (lambda x, w: ops.geglu(x, w.expand_as(x)), lambda x, w: F.gelu(x) * w.expand_as(x)),
    "geglu by tanh": (
        lambda x, w: ops.geglu(x, w.expand_as(x), approximate="tanh"),
        lambda x, w: F.gelu(x, approximate="tanh") * w.expand_as(x),
    ),
}


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("turn", [False, True])
def test_gradients_are_those_of_torch(generator, name, turn):
    shape = (5, 3, 9)
    x = torch.randn(shape, generator=generator)
    x = (x.transpose(0, 1) if turn else x).requires_grad_()
    w = torch.randn(9, generator=generator, requires_grad=True)
    dy = torch.randn(x.shape, generator=generator)
    ours, theirs = (
        torch.autograd.grad(call(x, w), (x, w), dy, allow_unused=True, materialize_grads=True) for call in CALLS[name]
    )
    for mine, torchs in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(mine.numpy(), torchs.numpy(), rtol=2e-5, atol=2e-6)


@pytest.mark.parametrize("approximate", ["none", "tanh"])
def test_gradients_of_gates_far_out_are_finite(approximate):
    """Squares and cubes of these overflow; the slopes of a gelu are 0 and 1 there."""
    gate = torch.tensor([[1e37, 3e19, 300.0, 17.0, -17.0, -300.0, -3e19, -1e37]])
    up, dy = torch.full_like(gate, 2.0), torch.full_like(gate, 3.0)
    dgate, dup = ops.geglu_backward(gate, up, dy, approximate=approximate)
    np.testing.assert_allclose(dgate.numpy(), [[6.0] * 4 + [0.0] * 4], rtol=1e-6, atol=1e-30)
    np.testing.assert_allclose(dup.numpy(), [[3e37, 9e19, 900.0, 51.0] + [0.0] * 4], rtol=1e-6, atol=1e-30)


@pytest.mark.parametrize("interleaved", [False, True])
@pytest.mark.parametrize("rotated", [8, 4])
def test_turning_back_undoes_turning(generator, interleaved, rotated):
    x = torch.randn(2, 3, 2, 8, generator=generator)
    cos, sin = tables(generator, 6, rotated)
    if interleaved:
        cos, sin = (t[:, : rotated // 2].repeat_interleave(2, 1) for t in (cos, sin))
    where = torch.tensor([[1, 5, 0], [2, 2, 3]])
    y = ops.rope(x, cos, sin, interleaved=interleaved, positions=where)
    back = ops.rope(y, cos, sin, interleaved=interleaved, positions=where, inverse=True)
    np.testing.assert_allclose(back.numpy(), x.numpy(), rtol=1e-5, atol=1e-6)


def test_the_gradient_of_rope_is_right_for_tables_whose_halves_differ(generator):
    x = torch.randn(1, 3, 2, 8, generator=generator, requires_grad=True)
    cos, sin = torch.randn(2, 3, 8, generator=generator)
    dy = torch.randn(x.shape, generator=generator)
    (ours,) = torch.autograd.grad(ops.rope(x, cos, sin), x, dy)
    (theirs,) = torch.autograd.grad(turned(x, cos, sin), x, dy)
    np.testing.assert_allclose(ours.numpy(), theirs.numpy(), rtol=1e-5, atol=1e-6)


def test_rope_is_differentiable_twice(generator):
    x = torch.randn(1, 3, 2, 8, generator=generator, requires_grad=True)
    cos, sin = tables(generator, 3, 8)
    dy = torch.randn(x.shape, generator=generator, requires_grad=True)
    (dx,) = torch.autograd.grad(ops.rope(x, cos, sin), x, dy, create_graph=True)
    v = torch.randn(x.shape, generator=generator)
    (ddy,) = torch.autograd.grad(dx, dy, v)
    np.testing.assert_allclose(ddy.numpy(), turned(v, cos, sin).numpy(), rtol=1e-5, atol=1e-6)


def test_what_cannot_be_recorded_says_so(generator):
    x = torch.randn(1, 3, 2, 8, generator=generator, requires_grad=True)
    cos, sin = tables(generator, 3, 8)
    with pytest.raises(ArgumentError, match=r"gelu: an operand asks for a gradient.*or pass x.detach"):
        ops.gelu(x)
    with pytest.raises(ArgumentError, match="softmax: autograd cannot record a call with out="):
        ops.softmax(x, out=torch.empty_like(x))
    with pytest.raises(ArgumentError, match="x is a leaf that asks for a gradient and cannot be overwritten"):
        ops.rope(x, cos, sin, out=x)
    with pytest.raises(ArgumentError, match=r"cos asks for a gradient.*cos.detach"):
        ops.rope(x, cos.requires_grad_(), sin)


def test_a_call_is_recorded_after_the_same_call_was_not(generator):
    """Launches that are kept by the form of their operands do not hide a gradient that is asked for later."""
    x = torch.randn(2, 9, generator=generator, requires_grad=True)
    with torch.no_grad():
        for _ in range(3):
            assert not ops.softmax(x).requires_grad
    assert ops.softmax(x).requires_grad
    assert not ops.softmax(x.detach()).requires_grad
    with torch.no_grad():
        assert not ops.gelu(x).requires_grad
    with pytest.raises(ArgumentError, match="gradient"):
        ops.gelu(x)


def test_rows_that_do_not_fold_are_refused(generator):
    x = torch.randn(3, 4, 5, 9, generator=generator).transpose(0, 2)[:, ::2]
    with pytest.raises(ArgumentError, match=r"rows that do not fold to one dimension; pass x.contiguous\(\)"):
        ops.rmsnorm_backward(x, torch.ones(9), x.clone())
