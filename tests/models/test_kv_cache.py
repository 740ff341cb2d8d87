"""The KV cache: grows as needed, keeps what it holds, says when its memory moved."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest

from tilewright.errors import ContextError
from tilewright.models.kv_cache import CHUNK, KVCache


def cache(limit=4096, max_rows=4):
    return KVCache(layers=2, kv_heads=3, head_dim=4, dtype=ml_dtypes.bfloat16, limit=limit, max_rows=max_rows)


def test_starts_empty():
    assert (cache().rows, cache().capacity, cache().bytes) == (0, 0, 0)


def test_grows_in_chunks():
    c = cache()
    c.reserve(1, 1)
    assert (c.rows, c.capacity) == (1, CHUNK)
    c.reserve(1, CHUNK + 1)
    assert c.capacity == 2 * CHUNK
    c.reserve(1, 10 * CHUNK)
    c.reserve(1, 10 * CHUNK + 1)
    assert c.capacity == 15 * CHUNK
    assert c.keys[1].shape == (1, 3, 15 * CHUNK, 4)


def test_never_beyond_its_limit():
    c = cache(limit=CHUNK + 10)
    c.reserve(1, CHUNK + 1)
    assert c.capacity == CHUNK + 10
    with pytest.raises(ContextError, match=f"{CHUNK + 11} tokens do not fit the context of {CHUNK + 10}"):
        c.reserve(1, CHUNK + 11)


def test_rows_double_up_to_their_limit():
    c = cache(max_rows=5)
    rows = []
    for wanted in range(1, 6):
        c.reserve(wanted, 1)
        rows.append(c.rows)
    assert rows == [1, 2, 4, 4, 5]
    with pytest.raises(ContextError, match="6 sequences do not fit the 5 rows of this cache; raise max_batch"):
        c.reserve(6, 1)


def test_growing_keeps_live_tokens():
    c = cache()
    c.reserve(2, 10)
    c.lengths[:] = 10, 3
    for array in (*c.keys, *c.values):
        array[...] = np.random.default_rng(0).standard_normal(array.shape)
    before = [array.copy() for array in (*c.keys, *c.values)]
    c.reserve(3, CHUNK + 1)
    assert c.lengths.tolist() == [10, 3, 0, 0]
    for old, new in zip(before, (*c.keys, *c.values), strict=True):
        np.testing.assert_array_equal(new[0, :, :10], old[0, :, :10])
        np.testing.assert_array_equal(new[1, :, :3], old[1, :, :3])


def test_layout_changes_only_when_memory_moves():
    c = cache()
    c.reserve(1, 5)
    first = c.layout
    c.reserve(1, CHUNK)
    assert c.layout == first
    c.reserve(2, 5)
    assert c.layout != first
    assert c.layout != cache().layout


def test_move_and_clear():
    c = cache()
    c.reserve(3, 5)
    for array in (*c.keys, *c.values):
        array[...] = np.arange(c.rows).reshape(-1, 1, 1, 1)
    c.lengths[:3] = 4, 5, 2
    c.move(2, 0)
    assert c.lengths.tolist()[:3] == [2, 5, 0]
    for array in (*c.keys, *c.values):
        assert (array[0, :, :2] == 2).all() and (array[1] == 1).all()
    c.clear(1)
    assert c.lengths.tolist()[:3] == [2, 0, 0]
