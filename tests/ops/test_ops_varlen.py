"""Attention of packed sequences: each as attention of it alone, whatever lies beside it."""

from __future__ import annotations

from itertools import pairwise

import ml_dtypes
import numpy as np
import pytest
import torch

from tilewright import operators, ops
from tilewright.errors import ArgumentError, DTypeError
from tilewright.runtime import tolerance


def starts(lengths):
    return torch.tensor([0, *np.cumsum(lengths)], dtype=torch.int32)


def packed(generator, queries, keys, heads=(4, 2), d=16, dtype=torch.float32):
    n, t = sum(queries), sum(keys)
    q = torch.randn(n, heads[0], d, generator=generator).to(dtype)
    k, v = (torch.randn(t, heads[1], d, generator=generator).to(dtype) for _ in range(2))
    return q, k, v


def one_by_one(q, k, v, queries, keys, causal, window):
    """(o, lse) in float64, sequence after sequence."""
    outs, sums = torch.zeros(q.shape, dtype=torch.float64), torch.full(q.shape[1::-1], -torch.inf, dtype=torch.float64)
    group = q.shape[1] // k.shape[1]
    for (a, b), (c, e) in zip(pairwise(starts(queries).tolist()), pairwise(starts(keys).tolist()), strict=True):
        mine, other = (x.double().repeat_interleave(group, 1) for x in (k[c:e], v[c:e]))
        scores = torch.einsum("shd,thd->hst", q[a:b].double(), mine) * q.shape[-1] ** -0.5
        at, key = torch.arange(b - a)[:, None] + (e - c) - (b - a), torch.arange(e - c)[None]
        seen = (key <= at) if causal else torch.ones(b - a, e - c, dtype=torch.bool)
        if window is not None:
            seen = seen & (key > at - window)
        scores = scores.masked_fill(~seen, -torch.inf)
        sums[:, a:b] = torch.logsumexp(scores, -1)
        outs[a:b] = torch.einsum("hst,thd->shd", torch.softmax(scores, -1).nan_to_num(0.0), other)
    return outs, sums


BATCHES = {
    "one token": ([1], [1]),
    "empty ones": ([0, 5, 0, 3, 0], [0, 5, 0, 3, 0]),
    "no query or no key": ([4, 0, 3], [0, 6, 9]),
    "more keys than queries": ([3, 1, 17], [40, 9, 70]),
    "more queries than keys": ([9, 4, 20], [2, 4, 7]),
    "past tiles": ([130, 1, 70, 33], [130, 1, 70, 33]),
    "decoding": ([1] * 9, [5, 0, 130, 17, 1, 64, 33, 2, 90]),
}


@pytest.mark.parametrize(("causal", "window"), [(False, None), (True, None), (True, 5), (False, 3)])
@pytest.mark.parametrize("batch", BATCHES)
def test_each_sequence_is_attention_of_it_alone(generator, batch, causal, window):
    queries, keys = BATCHES[batch]
    q, k, v = packed(generator, queries, keys)
    wanted, sums = one_by_one(q, k, v, queries, keys, causal, window)
    o, lse = ops.varlen_attention(q, k, v, starts(queries), starts(keys), causal=causal, window=window, return_lse=True)
    np.testing.assert_allclose(o, wanted, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(lse, sums, rtol=1e-5, atol=1e-5)
    assert torch.equal(o, ops.varlen_attention(q, k, v, starts(queries), starts(keys), causal=causal, window=window))


@pytest.mark.parametrize("seed", range(6))
def test_drawn_batches(generator, seed):
    random = np.random.default_rng(seed)
    count = int(random.integers(1, 7))
    queries = random.integers(0, 60, count).tolist()
    keys = queries if seed % 2 else random.integers(0, 90, count).tolist()
    heads = [(1, 1), (6, 2), (8, 1)][seed % 3]
    causal, window = bool(random.integers(2)), [None, 7][int(random.integers(2))]
    q, k, v = packed(generator, queries, keys, heads, d=8)
    ours = ops.varlen_attention(
        q, k, v, starts(queries), None if seed % 2 else starts(keys).long(), causal=causal, window=window
    )
    np.testing.assert_allclose(ours, one_by_one(q, k, v, queries, keys, causal, window)[0], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_sixteen_bits(generator, dtype):
    queries = [40, 3, 0, 21]
    q, k, v = packed(generator, queries, queries, (4, 4), 32, dtype)
    ours = ops.varlen_attention(q, k, v, starts(queries), causal=True)
    assert ours.dtype == dtype
    element = {torch.bfloat16: ml_dtypes.bfloat16, torch.float16: np.float16}[dtype]
    own = [x.view(torch.int16).numpy().view(element).transpose(1, 0, 2)[None] for x in (q, k, v, ours)]
    for begin, end in pairwise(starts(queries).tolist()):
        a, b, c, o = (x[:, :, begin:end] for x in own)
        exact = operators.attention.reference(a[:, :, None], b, c, 32**-0.5, causal=True)["o"]
        tolerance.check("o", o[:, :, None], exact)


def test_padded_attention_is_the_same(generator):
    lengths = [7, 0, 12]
    q, k, v = packed(generator, lengths, lengths)
    places = [torch.zeros(3, 12, x.shape[1], 16) for x in (q, k, v)]
    for (begin, end), b in zip(pairwise(starts(lengths).tolist()), range(3), strict=True):
        for place, x in zip(places, (q, k, v), strict=True):
            place[b, 12 - (end - begin) if place is places[0] else 0 :][: end - begin] = x[begin:end]
    padded = ops.attention(*(x.transpose(1, 2) for x in places), causal=True, lengths=torch.tensor(lengths))
    ours = ops.varlen_attention(q, k, v, starts(lengths), causal=True)
    for (begin, end), b in zip(pairwise(starts(lengths).tolist()), range(3), strict=True):
        np.testing.assert_allclose(
            ours[begin:end], padded[b, :, 12 - (end - begin) :].transpose(0, 1), rtol=1e-5, atol=1e-6
        )


def test_views_of_one_product_go_in_without_a_copy_and_results_where_they_are_wanted(generator):
    lengths = [5, 9]
    qkv = torch.randn(14, 8, 16, generator=generator)
    q, k, v = qkv[:, :4], qkv[:, 4:6], qkv[:, 6:]
    out = torch.full((4, 14, 16), torch.nan).transpose(0, 1), torch.full((4, 14), torch.nan)
    found = ops.varlen_attention(q, k, v, starts(lengths), causal=True, scale=0.5, return_lse=True, out=out)
    assert found[0] is out[0] and found[1] is out[1]
    wanted, _ = one_by_one(q * 2.0, k, v, lengths, lengths, True, None)  # 0.5 is twice 1 / sqrt(16)
    np.testing.assert_allclose(out[0], wanted, rtol=1e-5, atol=1e-6)


def test_tokens_past_the_last_sequence_are_no_work_and_give_zeros(generator):
    q, k, v = packed(generator, [12], [12])
    k[7:], v[7:] = torch.nan, torch.nan
    ours = ops.varlen_attention(q, k, v, torch.tensor([0, 3, 7]), causal=True)
    assert torch.isfinite(ours).all() and not ours[7:].any() and ours[:7].any(1).all()


def test_calls_alike_are_not_bound_again_and_read_their_own_lengths(generator):
    for lengths in ([4, 8], [12, 0], [1, 11]):
        q, k, v = packed(generator, lengths, lengths)
        ours = ops.varlen_attention(q, k, v, starts(lengths), causal=True)
        np.testing.assert_allclose(ours, one_by_one(q, k, v, lengths, lengths, True, None)[0], rtol=1e-5, atol=1e-6)


def test_arrays_too(generator):
    lengths = [3, 6]
    q, k, v = (x.numpy() for x in packed(generator, lengths, lengths))
    ours = ops.varlen_attention(q, k, v, starts(lengths).numpy(), causal=True)
    assert isinstance(ours, np.ndarray)
    np.testing.assert_allclose(ours, one_by_one(*map(torch.from_numpy, (q, k, v)), lengths, lengths, True, None)[0],
                               rtol=1e-5, atol=1e-6)  # fmt: skip


def test_no_sequence_gives_zeros_and_no_query_returns_at_once(generator):
    q, k, v = packed(generator, [3], [3])
    assert not ops.varlen_attention(q, k, v, torch.tensor([0])).any()
    assert ops.varlen_attention(q[:0], k, v, torch.tensor([0, 0]), torch.tensor([0, 3])).shape == (0, 4, 16)


@pytest.mark.parametrize("wrong", [[0, 4, 2, 12], [1, 12], [0, 13], [-1, 12]])
def test_cumulative_lengths_that_lead_nowhere_are_refused(generator, wrong):
    q, k, v = packed(generator, [12], [12])
    with pytest.raises(ArgumentError, match=r"cu_seqlens_q holds .* ends at 12 or before, the tokens of q: give torch"):
        ops.varlen_attention(q, k, v, torch.tensor(wrong))
    if len(wrong) == 2:
        with pytest.raises(ArgumentError, match=r"cu_seqlens_k holds .* the tokens of k"):
            ops.varlen_attention(q, k, v, torch.tensor([0, 12]), torch.tensor(wrong))


def test_wrong_calls(generator):
    q, k, v = packed(generator, [12], [12])
    ends = torch.tensor([0, 12])
    with pytest.raises(ArgumentError, match=r"k of shape .* has 11 tokens and q 12; give cu_seqlens_k"):
        ops.varlen_attention(q, k[1:], v[1:], ends)
    with pytest.raises(ArgumentError, match=r"has 4 heads, not a multiple of the 3 heads of k"):
        ops.varlen_attention(q, k[:, :1].expand(12, 3, 16), v[:, :1].expand(12, 3, 16), ends)
    with pytest.raises(DTypeError, match=r"k of shape .* is bf16 but q is f32"):
        ops.varlen_attention(q, k.bfloat16(), v, ends)
    with pytest.raises(DTypeError, match=r"cu_seqlens_q of shape .* is f32"):
        ops.varlen_attention(q, k, v, ends.float())
    with pytest.raises(ArgumentError, match=r"cu_seqlens_k of shape \[3\] does not fit \[2\]"):
        ops.varlen_attention(q, k, v, ends, torch.tensor([0, 1, 12]))
    with pytest.raises(ArgumentError, match=r"window=0 sees no key"):
        ops.varlen_attention(q, k, v, ends, window=0)
    with pytest.raises(ArgumentError, match=r"varlen_attention: with return_lse=True out is a pair"):
        ops.varlen_attention(q, k, v, ends, return_lse=True, out=torch.empty(12, 4, 16))
    with pytest.raises(ArgumentError, match=r"cu_seqlens_q of shape \[0\] says nothing"):
        ops.varlen_attention(q, k, v, ends[:0])
