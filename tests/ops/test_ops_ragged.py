"""Ragged batches: packed, unpacked, and their tiles counted."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import tilewright as tw
from tilewright.errors import ArgumentError
from tilewright.ops.ragged import Ragged, Tiles


def test_rows_are_packed_and_come_back_to_their_places():
    batch, random = Ragged([2, 0, 3], 5), np.random.default_rng(0)
    x = random.standard_normal((3, 5, 4), np.float32)
    rows = batch.pack(x)
    assert np.array_equal(rows, np.concatenate([x[0, :2], x[2, :3]]))
    out = batch.unpack(rows, np.full_like(x, 7))
    assert np.array_equal(out[2, :3], x[2, :3])
    assert (out[0, 2:] == 7).all()
    assert (out[1] == 7).all()


def test_torch_tensors_too():
    batch, x = Ragged([1, 3]), torch.arange(6.0).reshape(2, 3)
    rows = batch.pack(x)
    assert rows.tolist() == [0, 3, 4, 5]
    assert batch.unpack(rows, torch.zeros(2, 3)).tolist() == [[0, 0, 0], [3, 4, 5]]


def test_an_operator_on_packed_rows_never_sees_padding():
    batch, random = Ragged.padded([3, 17, 1], 16), np.random.default_rng(1)
    x, w = random.standard_normal((3, 32, 8), np.float32), random.standard_normal((5, 8), np.float32)
    for b, n in enumerate(batch.lengths):
        x[b, n:] = np.nan
    out = batch.unpack(tw.ops.linear(batch.pack(x), w), np.zeros((3, 32, 5), np.float32))
    assert np.isfinite(out).all()
    assert np.array_equal(out[1, 16], tw.ops.linear(batch.pack(x), w)[3 + 16])


def test_packed_rows_go_to_attention_as_they_are():
    batch, random = Ragged([3, 0, 9]), np.random.default_rng(2)
    q, k, v = (batch.pack(random.standard_normal((3, 9, heads, 8), np.float32)) for heads in (4, 2, 2))
    assert batch.starts.tolist() == [0, 3, 3, 12]
    ours = tw.ops.varlen_attention(q, k, v, batch.starts, causal=True)
    last = [x[None, 3:].transpose(0, 2, 1, 3) for x in (q, k, v)]
    alone = tw.ops.attention(*last, causal=True)[0].transpose(1, 0, 2)
    np.testing.assert_allclose(ours[3:], alone, rtol=1e-5, atol=1e-6)


def test_tiles_are_counted():
    assert Ragged([5, 0, 64, 17], 64).tiles(16) == Tiles(1 + 0 + 4 + 2, 16 - 7)
    assert Ragged.padded([5, 17], 16).room == 32
    assert Ragged([]).tiles(16).share == 0.0


@pytest.mark.parametrize("wrong", [([3], 2), ([-1], 2), ([[1]], 2)])
def test_lengths_that_do_not_fit_are_refused(wrong):
    with pytest.raises(ArgumentError, match="from 0 to its room, 2"):
        Ragged(*wrong)


def test_tensors_that_do_not_fit_are_refused():
    with pytest.raises(ArgumentError, match=r"x has the shape \(2, 2\); it must begin with \(1, 2\)"):
        Ragged([1], 2).pack(np.zeros((2, 2)))
