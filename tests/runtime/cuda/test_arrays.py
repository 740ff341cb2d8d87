"""Arrays on a GPU are views: the same shapes and strides as NumPy gives, of memory that is never touched."""

from __future__ import annotations

import numpy as np
import pytest

from tilewright.errors import ArgumentError
from tilewright.language.dtypes import f32
from tilewright.runtime.buffer import Buffer
from tilewright.runtime.cuda.arrays import DeviceArray

PLACE = 1 << 40


def array(*shape):
    """One that begins at an address which no process may read, and NumPy's of the same shape."""
    like = np.zeros(shape, np.float32)
    strides = tuple(s // 4 for s in like.strides)
    return DeviceArray(Buffer(PLACE, shape, strides, f32, "cuda:0")), like


def same(found, wanted, base):
    buffer = found.tilewright_buffer
    assert found.shape == wanted.shape
    assert [s * 4 for s in buffer.strides] == list(wanted.strides)
    start = wanted.__array_interface__["data"][0] - base.__array_interface__["data"][0]
    assert buffer.pointer - PLACE == start


@pytest.mark.parametrize(
    "key", [1, -1, slice(1, 3), slice(-1, None), (slice(None), 2), (0, slice(None), slice(1, 4)), (slice(None), -2, 3)]
)
def test_parts(key):
    found, like = array(4, 5, 6)
    same(found[key], like[key], like)


def test_shapes():
    found, like = array(4, 6, 8)
    same(found.reshape(4, 2, 3, -1), like.reshape(4, 2, 3, -1), like)
    same(found.transpose(2, 0, 1), like.transpose(2, 0, 1), like)
    assert (len(found), found.size, found.nbytes, found.dtype) == (4, 192, 768, np.float32)
    with pytest.raises(ArgumentError, match="without a copy"):
        found.transpose(2, 0, 1).reshape(-1)


def test_what_is_no_view():
    found, _ = array(4, 5)
    with pytest.raises(ArgumentError, match="slices on a GPU have step 1, not 2"):
        found[::2]
    with pytest.raises(ArgumentError, match="be selected at 4"):
        found[4]


def test_operands_of_ops():
    found, _ = array(4, 5)
    assert Buffer.of(found) is found.tilewright_buffer
