import ml_dtypes
import numpy as np
import pytest
import torch

from tilewright import operators, ops
from tilewright.errors import ArgumentError, DTypeError
from tilewright.runtime import tolerance

bf16 = ml_dtypes.bfloat16


def close(actual, exact):
    tolerance.check("result", np.asarray(actual), exact)


def flat(x):
    return np.asarray(x, np.float64).reshape(-1, x.shape[-1])


def test_torch_in_torch_out(generator):
    x = torch.randn(3, 4, 7, generator=generator).bfloat16()
    w, bias = torch.randn(5, 7, generator=generator).bfloat16(), torch.randn(5, generator=generator)
    y = ops.linear(x, w, bias, activation="gelu")
    assert isinstance(y, torch.Tensor) and y.dtype == torch.bfloat16 and y.shape == (3, 4, 5)
    exact = operators.matmul.reference(flat(x.float()), flat(w.float()), bias.numpy(), activation="gelu")["c"]
    close(y.view(torch.int16).numpy().view(bf16).reshape(12, 5), exact)


def test_numpy_in_numpy_out_and_residual_in_place():
    random = np.random.default_rng(0)
    x, w, y = (random.standard_normal(s).astype(np.float32) for s in ((2, 3, 6), (4, 6), (2, 3, 4)))
    before = y.copy()
    assert ops.linear(x, w, residual=y, out=y) is y
    close(y.reshape(6, 4), operators.matmul.reference(flat(x), w, residual=flat(before))["c"])


@pytest.mark.parametrize(
    "view",
    [
        lambda x: x.transpose(0, 1),
        lambda x: x.permute(2, 0, 1, 3),
        lambda x: x[:, ::2, :1],
        lambda x: x[:, 1:3, 1:, ::3],
        lambda x: x[0, 0, 0],
        lambda x: x[:1, :1],
        lambda x: x[:, :, :1].expand(4, 6, 5, 8),
        lambda x: x.transpose(0, 3)[..., :3],
    ],
)
def test_any_layout_of_any_rank_is_read_where_it_lies(generator, view):
    x = view(torch.randn(4, 6, 2, 8, generator=generator))
    w = torch.randn(x.shape[-1], 3, generator=generator).T
    exact = operators.matmul.reference(flat(x.numpy()), w.numpy())["c"]
    y = ops.linear(x, w)
    assert y.shape == (*x.shape[:-1], 3)
    close(y.numpy().reshape(-1, 3), exact)
    place = torch.full((3, *x.shape[:-1]), torch.nan).movedim(0, -1)
    assert ops.linear(x, w, out=place) is place
    close(place.numpy().reshape(-1, 3), exact)


def test_gate_up(generator):
    x, gate, up = (torch.randn(*s, generator=generator) for s in ((2, 3, 6), (5, 6), (5, 6)))
    y = ops.gate_up(x, gate, up)
    exact = operators.gate_up.reference(flat(x.numpy()), gate.numpy(), up.numpy())["y"]
    close(y.numpy().reshape(6, 5), exact)


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ((4, 5), (5, 3)),
        ((2, 4, 5), (5, 3)),
        ((4, 5), (2, 5, 3)),
        ((2, 1, 4, 5), (3, 5, 2)),
        ((2, 3, 1, 5), (2, 3, 5, 2)),
        ((1, 4, 5), (1, 5, 2)),
        ((3, 0, 5), (5, 2)),
    ],
)
def test_matmul_broadcasts_as_torch(generator, a, b):
    a, b = torch.randn(a, generator=generator), torch.randn(b, generator=generator)
    ours, theirs = ops.matmul(a, b), torch.matmul(a.double(), b.double())
    assert ours.shape == theirs.shape
    magnitude = torch.matmul(a.double().abs(), b.double().abs())
    close(ours.numpy(), operators.Exact(theirs.numpy(), magnitude.numpy(), 5))


def test_matmul_of_transposed_operands(generator):
    a = torch.randn(5, 4, 2, generator=generator).permute(2, 1, 0)
    b = torch.randn(3, 5, 2, generator=generator).permute(2, 1, 0)
    theirs = torch.matmul(a.double(), b.double())
    close(ops.matmul(a, b).numpy(), operators.Exact(theirs.numpy(), (a.abs() @ b.abs()).double().numpy(), 5))


def test_tf32_is_asked_for_and_stays_within_its_bound(generator):
    x, w = (torch.randn(n, 96, generator=generator) for n in (7, 33))
    terms = x.abs().double() @ w.abs().double().T
    for y in (ops.linear(x, w, precision="tf32"), ops.matmul(x, w.T, precision="tf32")):
        assert ((y.double() - x.double() @ w.double().T).abs() <= 2.0**-8.9 * terms).all()
    stack = torch.randn(2, 5, 96, generator=generator)
    assert ops.matmul(stack, stack.mT, precision="tf32").shape == (2, 5, 5)
    with pytest.raises(ArgumentError, match="tf32 or None"):
        ops.linear(x, w, precision="tf16")
    with pytest.raises(DTypeError, match="leave it away"):
        ops.linear(x.bfloat16(), w.bfloat16(), precision="tf32")


def test_nothing_to_sum_gives_the_bias_and_nothing_to_write_returns_at_once():
    x, w, bias = np.zeros((3, 0), np.float32), np.zeros((2, 0), np.float32), np.array([1, 2], np.float32)
    np.testing.assert_array_equal(ops.linear(x, w, bias), [[1, 2]] * 3)
    assert ops.linear(np.zeros((4, 0, 6), bf16), np.zeros((5, 6), bf16)).shape == (4, 0, 5)
    assert ops.matmul(torch.zeros(0, 2, 3), torch.zeros(3, 4)).shape == (0, 2, 4)


def test_a_launch_reads_the_memory_again():
    x, w, y = np.ones((1, 3), np.float32), np.ones((2, 3), np.float32), np.empty((1, 2), np.float32)
    launch = ops.linear.bind(x, w, out=y)
    launch()
    np.testing.assert_array_equal(y, [[3, 3]])
    x[...], w[1] = 2, 5
    launch()
    np.testing.assert_array_equal(y, [[6, 30]])
    with pytest.raises(ArgumentError, match=r"linear.bind needs out="):
        ops.linear.bind(x, w)


def test_several_launches_are_one():
    x = np.arange(24, dtype=np.float32).reshape(3, 4, 2).swapaxes(0, 1)
    w, y = np.eye(2, dtype=np.float32), np.empty((4, 3, 2), np.float32)
    ops.linear.bind(x, w, out=y)()
    np.testing.assert_array_equal(y, x)


def ones(*shape, kind=np.float32):
    return np.ones(shape, kind)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda: ops.linear(ones(2, 3), ones(4, 5)),
            ArgumentError,
            r"linear: w of shape \[4, 5\] does not fit \[N, 3\]",
        ),
        (lambda: ops.linear(ones(2, 3), ones(3)), ArgumentError, r"linear: w of shape \[3\] needs at least 2 dim"),
        (lambda: ops.linear(ones(2, 3), ones(4, 3), ones(3)), ArgumentError, r"bias of shape \[3\] does not fit \[4\]"),
        (
            lambda: ops.linear(ones(2, 3), ones(4, 3), residual=ones(4, 2)),
            ArgumentError,
            r"residual of shape \[4, 2\] does not fit \[2, 4\]",
        ),
        (lambda: ops.linear(ones(2, 3), ones(4, 3), out=ones(2, 3)), ArgumentError, r"out of shape \[2, 3\] does not"),
        (lambda: ops.linear(ones(2, 3), ones(4, 3), activation="swish"), ArgumentError, "'swish'; choose one of silu"),
        (
            lambda: ops.linear(ones(2, 3, kind=np.float64), ones(4, 3)),
            DTypeError,
            r"linear: x of shape \[2, 3\] is f64, not one of f32, bf16, f16; convert it with .astype\(numpy.float32\)",
        ),
        (lambda: ops.linear(torch.ones(2, 3).int(), ones(4, 3)), DTypeError, r"convert it with .to\(torch.float32\)"),
        (lambda: ops.linear(ones(2, 3), ones(4, 3, kind=bf16)), DTypeError, "w of shape .* is bf16 but x is f32"),
        (lambda: ops.linear([1, 2], ones(4, 2)), ArgumentError, "linear: x: expected a NumPy array or a torch tensor"),
        (lambda: ops.linear(torch.ones(2, 3, device="meta"), ones(4, 3)), ArgumentError, "x: tensor .* is on meta"),
        (lambda: ops.matmul(ones(2, 3), ones(4, 3)), ArgumentError, r"matmul: b of shape \[4, 3\] does not fit"),
        (lambda: ops.matmul(ones(2, 2, 3), ones(4, 3, 1)), ArgumentError, "leading dimensions that do not broadcast"),
        (
            lambda: ops.gate_up(ones(2, 3), ones(4, 3), ones(5, 3)),
            ArgumentError,
            r"w_up of shape \[5, 3\] does not fit",
        ),
    ],
)
def test_a_wrong_call_names_the_operand_and_the_fix(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_out_must_not_be_read_as_well():
    x, w = ones(4, 4), ones(4, 4)
    with pytest.raises(ArgumentError, match=r"linear: out of shape .* shares memory with x"):
        ops.linear(x, w, out=x)
    with pytest.raises(ArgumentError, match=r"stride 0"):
        ops.linear(x, w, out=torch.empty(1, 4).expand(4, 4))
    fixed = ones(4, 4)
    fixed.flags.writeable = False
    with pytest.raises(ArgumentError, match=r"is read-only"):
        ops.linear(x, w, out=fixed)
    # Two halves of the same rows are apart, though they lie between each other.
    both = ones(4, 8)
    ops.linear(both[:, :4], w, out=both[:, 4:])
    np.testing.assert_array_equal(both[:, 4:], 4 * ones(4, 4))
