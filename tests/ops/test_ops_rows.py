import ml_dtypes
import numpy as np
import pytest
import torch

from tilewright import operators, ops
from tilewright.errors import ArgumentError
from tilewright.runtime import tolerance


def normal(*shape, kind=np.float32, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(kind)


def test_rmsnorm_in_place():
    x, weight = normal(2, 3, 8, kind=ml_dtypes.bfloat16), normal(8, seed=1)
    exact = operators.rmsnorm.reference(x.reshape(6, 8).copy(), weight, 1e-6)["y"]
    assert ops.rmsnorm(x, weight, out=x) is x
    tolerance.check("rmsnorm", x.reshape(6, 8), exact)


@pytest.mark.parametrize("sum_over", ["x", "residual", None])
def test_add_rmsnorm_gives_the_norm_and_the_sum(sum_over):
    operands = {"x": normal(4, 8), "residual": normal(4, 8, seed=1)}
    weight = normal(8, seed=2)
    exact = operators.add_rmsnorm.reference(operands["x"].copy(), operands["residual"].copy(), weight, 1e-5)
    out = (np.empty((4, 8), np.float32), operands.get(sum_over, np.empty((4, 8), np.float32)))
    normed, total = ops.add_rmsnorm(**operands, weight=weight, eps=1e-5, out=out)
    tolerance.check("normed", normed, exact["y"])
    tolerance.check("sum", total, exact["total"])


def test_add_rmsnorm_needs_two_places():
    x, out = normal(4, 8), np.empty((4, 8), np.float32)
    with pytest.raises(ArgumentError, match=r"out\[1\] of shape \[4, 8\] shares memory with out\[0\]"):
        ops.add_rmsnorm(x, x, normal(8), out=(out, out))


@pytest.mark.parametrize("bias", [None, torch.full((8,), 0.25)])
def test_layernorm_of_torch(generator, bias):
    x, weight = torch.randn(3, 5, 8, generator=generator).transpose(0, 1), torch.randn(8, generator=generator)
    y = ops.layernorm(x, weight, bias)
    theirs = torch.nn.functional.layer_norm(x.double(), (8,), weight.double(), None if bias is None else bias.double())
    np.testing.assert_allclose(y.numpy(), theirs.numpy(), rtol=1e-5, atol=2e-6)


def test_softmax_and_argmax_of_any_rank(generator):
    x = torch.randn(2, 3, 4, 5, generator=generator).permute(3, 1, 0, 2)
    np.testing.assert_allclose(ops.softmax(x).numpy(), torch.softmax(x.double(), -1).numpy(), rtol=1e-5)
    index = ops.argmax(x)
    assert index.dtype == torch.int64
    np.testing.assert_array_equal(index.numpy(), x.argmax(-1).numpy())
    assert ops.argmax(x[0, 0, 0]).item() == x[0, 0, 0].argmax().item()
    narrow = np.empty(3, np.int32)
    np.testing.assert_array_equal(ops.argmax(np.eye(3, dtype=np.float32), out=narrow), [0, 1, 2])


def test_empty_rows():
    assert ops.softmax(np.zeros((3, 0), np.float32)).shape == (3, 0)
    assert ops.rmsnorm(torch.zeros(0, 4), torch.ones(4)).shape == (0, 4)
    normed, total = ops.add_rmsnorm(np.zeros((0, 4), np.float32), np.zeros((0, 4), np.float32), np.ones(4, np.float32))
    assert normed.shape == total.shape == (0, 4)
    assert ops.argmax(np.zeros((0, 4), np.float32)).shape == (0,)
    with pytest.raises(ArgumentError, match=r"argmax: x of shape \[4, 0\] has no elements to choose from"):
        ops.argmax(np.zeros((4, 0), np.float32))


def test_a_weight_of_another_size_is_named():
    with pytest.raises(ArgumentError, match=r"rmsnorm: weight of shape \[3\] does not fit \[4\] \(D is the last dim"):
        ops.rmsnorm(normal(2, 4), normal(3))


def test_topk_of_any_rank(generator):
    x = torch.randn(2, 3, 50, generator=generator)
    values, index = ops.topk(x, 4)
    exact = torch.topk(x, 4)
    torch.testing.assert_close(values, exact.values)
    assert index.dtype == torch.int64 and torch.equal(index, exact.indices)
    narrow = (np.empty((3, 2), np.float32), np.empty((3, 2), np.int32))
    ops.topk(np.eye(3, dtype=np.float32), 2, out=narrow)
    np.testing.assert_array_equal(narrow[1], [[0, 1], [1, 0], [2, 0]])
    assert ops.topk(torch.empty(0, 5), 2)[0].shape == (0, 2)
    for k in (0, 6):
        with pytest.raises(ArgumentError, match=rf"topk: k={k} of 5 elements in x's last dimension; take 1 to 5"):
            ops.topk(torch.zeros(2, 5), k)
