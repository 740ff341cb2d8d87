"""Rows E1 to E3 of the list of capabilities, by their names: rotary embedding with its gradient, and its study."""

import csv

import numpy as np
import pytest
import torch

from tilewright import ops
from tilewright.bench import rope, rope_peers, vendor


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


def test_E2_eager_compiled_and_fused_kernels_compete(case):
    everyone = rope_peers.contestants("cpu")
    assert next(iter(everyone)) == "torch" and "tilewright" in everyone
    assert ("torch.compile" in everyone) == vendor.compiles()
    x, cos, sin, dy = case
    leaves = [x.clone().requires_grad_() for _ in range(2)]
    for leaf, who in zip(leaves, ("torch", "tilewright"), strict=True):
        everyone[who](leaf, cos, sin).backward(dy)
    np.testing.assert_allclose(leaves[0].grad.numpy(), leaves[1].grad.numpy(), rtol=1e-5, atol=1e-6)


def test_E3_one_command_writes_plots_tables_and_profiles(command, monkeypatch, tmp_path):
    two = {who: rope_peers.contestants("cpu")[who] for who in ("torch", "tilewright")}
    monkeypatch.setattr(rope, "contestants", lambda device: two)  # torch.compile takes half a minute to compile
    arguments = ("--lengths", "8,32", "--head-dims", "16,8", "--heads", "2", "--seconds", "0", "--out", str(tmp_path))
    code, _, said = command("bench", "rope", "--device", "cpu", *arguments)
    assert code == 0, said
    pictures = {f"rope-{way}-{size}.png" for way in ("forward", "backward") for size in (8, 16)}
    assert {p.name for p in tmp_path.iterdir()} == pictures | {"rope.csv", "rope.html", "rope-profile.txt"}
    table = list(csv.DictReader((tmp_path / "rope.csv").open()))
    assert {(r["way"], r["length"], r["head_dim"]) for r in table} == {
        (way, n, d) for way in ("forward", "backward") for n in ("8", "32") for d in ("8", "16")
    }
    assert "tilewright: 3 passes" in (tmp_path / "rope-profile.txt").read_text()
