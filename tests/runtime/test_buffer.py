import gc
import math

import ml_dtypes
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tilewright.errors import ArgumentError, DTypeError
from tilewright.language.dtypes import DTYPES, bf16, f32
from tilewright.runtime.buffer import Buffer

sizes = st.lists(st.integers(0, 4), max_size=4).map(tuple)
thorough = settings(max_examples=200, deadline=None, derandomize=True)


@st.composite
def views(draw):
    """An array of distinct elements whose dimensions are permuted, sliced and reversed."""
    shape = draw(sizes)
    x = np.arange(math.prod(n + 2 for n in shape), dtype=np.int32).reshape([n + 2 for n in shape])
    steps = [draw(st.sampled_from((slice(0, n), slice(2, n + 2), slice(n, None, -1)))) for n in shape]
    x = x[(*steps, ...)]
    return x.transpose(draw(st.permutations(range(x.ndim))))


def factors(draw, count):
    """Sizes whose product is `count`."""
    found = []
    while count > 1 and len(found) < 4:
        divisor = draw(st.sampled_from([d for d in range(1, count + 1) if count % d == 0]))
        found.append(divisor)
        count //= divisor
    return (*found, count)


@thorough
@given(views())
def test_numpy_there_and_back(x):
    buffer = Buffer.of(x)
    assert (buffer.shape, buffer.size, buffer.dtype.name) == (x.shape, x.size, "i32")
    back = buffer.numpy()
    np.testing.assert_array_equal(back, x)
    assert not x.size or (back.ctypes.data, back.strides) == (x.ctypes.data, x.strides)


@thorough
@given(views(), st.data())
def test_reshape_is_numpys_view_or_refused(x, data):
    shape = factors(data.draw, x.size) if x.size else (3, 0)
    expected = np.reshape(x, shape)
    if np.shares_memory(expected, x) or not x.size:
        np.testing.assert_array_equal(Buffer.of(x).reshape(shape).numpy(), expected)
    else:
        with pytest.raises(ArgumentError, match=r"cannot be reshaped to .* without a copy"):
            Buffer.of(x).reshape(shape)


@thorough
@given(views().filter(lambda x: x.ndim), st.data())
def test_views_are_numpys(x, data):
    buffer, dim = Buffer.of(x), data.draw(st.integers(0, x.ndim - 1))
    order = data.draw(st.permutations(range(x.ndim)))
    np.testing.assert_array_equal(buffer.permute(order).numpy(), x.transpose(order))
    np.testing.assert_array_equal(buffer.swap(0, -1).numpy(), x.swapaxes(0, -1))
    start = data.draw(st.integers(0, x.shape[dim]))
    part = x.take(range(start, x.shape[dim]), dim)
    np.testing.assert_array_equal(buffer.narrow(dim, start, x.shape[dim] - start).numpy(), part)
    parts = factors(data.draw, x.shape[dim]) if x.shape[dim] else (2, 0)
    whole = x.reshape((*x.shape[:dim], *parts, *x.shape[dim + 1 :]))
    np.testing.assert_array_equal(buffer.split(dim, parts).numpy(), whole)
    np.testing.assert_array_equal(buffer.expand(dim, 3).numpy(), np.stack([x] * 3, dim))
    if x.shape[dim]:
        index = data.draw(st.integers(0, x.shape[dim] - 1))
        np.testing.assert_array_equal(buffer.select(dim, index).numpy(), x.take(index, dim))


@thorough
@given(views(), st.data())
def test_span_and_overlap(x, data):
    buffer = Buffer.of(x)
    low, high = buffer.span
    addresses = [Buffer.of(x[(*i, ...)]).pointer for i in np.ndindex(x.shape)]
    assert (low, high) == ((min(addresses), max(addresses) + 4) if addresses else (buffer.pointer,) * 2)
    if x.ndim and x.shape[0] > 1:
        halves = buffer.narrow(0, 0, 1), buffer.narrow(0, 1, x.shape[0] - 1)
        assert not halves[0].overlaps(halves[1])
        assert halves[1].overlaps(buffer) == bool(x[1:].size)


def test_same_place_ignores_the_strides_of_single_positions():
    x = np.zeros((1, 3), np.float32)
    assert Buffer.of(x).same_place(Buffer.of(x.T.copy().T[:])) is False
    assert Buffer(64, (1, 3), (7, 1), f32).same_place(Buffer(64, (1, 3), (3, 1), f32))
    assert not Buffer(64, (2, 3), (7, 1), f32).same_place(Buffer(64, (2, 3), (3, 1), f32))


@pytest.mark.parametrize("name", DTYPES)
def test_every_dtype_from_numpy_and_torch(name):
    x = np.ones((2, 3), DTYPES[name].numpy)
    assert Buffer.of(x).dtype is DTYPES[name]
    np.testing.assert_array_equal(Buffer.of(x).numpy(), x)
    assert Buffer.of(x).numpy().dtype == x.dtype
    kind = getattr(torch, DTYPES[name].numpy.name)
    assert Buffer.of(torch.ones(2, 3).to(kind)).dtype is DTYPES[name]


def test_torch_views_and_parameters():
    x = torch.arange(24.0).reshape(2, 3, 4).transpose(0, 2)[1:, ::2]
    buffer = Buffer.of(x)
    assert (buffer.shape, buffer.strides, buffer.device) == ((3, 2, 2), (1, 8, 12), "cpu")
    np.testing.assert_array_equal(buffer.numpy(), x.numpy())
    parameter = torch.nn.Parameter(torch.ones(3, dtype=torch.bfloat16))
    assert Buffer.of(parameter).dtype is bf16 and Buffer.of(parameter).pointer == parameter.data_ptr()
    assert Buffer.of(buffer) is buffer


def test_the_array_keeps_the_memory_alive():
    view = Buffer.of(np.full(1 << 16, 7.0)).narrow(0, 5, 3).numpy()
    gc.collect()
    np.full(1 << 16, 1.0)
    np.testing.assert_array_equal(view, [7, 7, 7])


def test_writing_reaches_the_owner_unless_it_is_read_only():
    x = np.zeros(4, ml_dtypes.bfloat16)
    Buffer.of(x).split(0, (2, 2)).select(1, 1).numpy()[...] = 3
    np.testing.assert_array_equal(x.astype(int), [0, 3, 0, 3])
    x.flags.writeable = False
    assert not Buffer.of(x).writable
    with pytest.raises(ValueError, match=r"read-only"):
        Buffer.of(x).numpy()[0] = 1


def test_what_cannot_be_a_buffer():
    records = np.zeros(4, [("a", "u1"), ("b", "f4")])
    with pytest.raises(ArgumentError, match=r"array of shape \[4\] has byte strides \[5\].*ascontiguousarray"):
        Buffer.of(records["b"])
    with pytest.raises(DTypeError, match=r"unknown dtype"):
        Buffer.of(np.zeros(3, ">f4"))
    with pytest.raises(DTypeError, match=r"unknown dtype .*complex64"):
        Buffer.of(torch.zeros(2, dtype=torch.complex64))
    with pytest.raises(ArgumentError, match=r"got list; convert it first"):
        Buffer.of([1.0])
    with pytest.raises(ArgumentError, match=r"is on meta"):
        Buffer.of(torch.zeros(2, device="meta"))
    with pytest.raises(ArgumentError, match=r"no plain strided memory"):
        Buffer.of(torch.eye(2).to_sparse())
    with pytest.raises(ArgumentError, match=r"a buffer on cuda:0 cannot be read"):
        Buffer(0, (1,), (1,), f32, "cuda:0").numpy()


@pytest.mark.parametrize(
    "view",
    [
        lambda b: b.reshape((5, 3)),
        lambda b: b.reshape((-1, 5)),
        lambda b: b.permute((0, 0)),
        lambda b: b.select(0, 2),
        lambda b: b.select(2, 0),
        lambda b: b.narrow(1, 2, 5),
        lambda b: b.split(1, (2, 2)),
    ],
)
def test_a_view_that_does_not_exist_is_refused(view):
    with pytest.raises(ArgumentError, match=r"buffer of shape \[2, 6\] and strides \[6, 1\] cannot "):
        view(Buffer.of(np.zeros((2, 6), np.float32)))
