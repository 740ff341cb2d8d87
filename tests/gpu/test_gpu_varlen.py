"""Packed sequences and logarithms of sums on the GPU, against float64: empty and long ones, any heads, one by one."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch

from tilewright import ops


def starts(lengths):
    return torch.tensor([0, *torch.tensor(lengths).cumsum(0).tolist()], device="cuda", dtype=torch.int32)


def packed(queries, keys, heads=(8, 2), width=128, dtype=torch.bfloat16, seed=0):
    torch.manual_seed(seed)
    shapes = ((sum(queries), heads[0]), (sum(keys), heads[1]), (sum(keys), heads[1]))
    return [torch.randn(*shape, width, device="cuda").to(dtype) for shape in shapes]


def exact(q, k, v, queries, keys, causal, window):
    """(o, lse) in float64, sequence after sequence."""
    o = torch.zeros(*q.shape, dtype=torch.float64, device="cuda")
    lse = torch.full(q.shape[1::-1], -torch.inf, dtype=torch.float64, device="cuda")
    group = q.shape[1] // k.shape[1]
    for (a, b), (c, e) in zip(pairwise(starts(queries).tolist()), pairwise(starts(keys).tolist()), strict=True):
        mine, other = (x[c:e].double().repeat_interleave(group, 1) for x in (k, v))
        scores = torch.einsum("shd,thd->hst", q[a:b].double(), mine) * q.shape[-1] ** -0.5
        at = torch.arange(b - a, device="cuda")[:, None] + (e - c) - (b - a)
        key = torch.arange(e - c, device="cuda")[None]
        seen = (key <= at) if causal else torch.ones_like(scores[0], dtype=torch.bool)
        if window is not None:
            seen = seen & (key > at - window)
        scores = scores.masked_fill(~seen, -torch.inf)
        lse[:, a:b] = torch.logsumexp(scores, -1)
        o[a:b] = torch.einsum("hst,thd->shd", torch.softmax(scores, -1).nan_to_num(0.0), other)
    return o, lse


BATCHES = {
    "one token": ([1], [1]),
    "empty ones": ([0, 500, 0, 33, 0], [0, 500, 0, 33, 0]),
    "no query or no key": ([140, 0, 30], [0, 600, 90]),
    "parts of prompts": ([300, 1, 170], [1400, 900, 700]),
    "more queries than keys": ([90, 400, 200], [2, 40, 190]),
    "past tiles": ([1300, 1, 700, 330, 2048], [1300, 1, 700, 330, 2048]),
    "many short ones": ([7, 16, 1, 30, 5] * 20, [7, 16, 1, 30, 5] * 20),
    "decoding": ([1] * 9, [500, 0, 4096, 17, 1, 64, 33, 2, 1000]),
}


@pytest.mark.parametrize(("causal", "window"), [(False, None), (True, None), (True, 100)])
@pytest.mark.parametrize("width", [64, 128])
@pytest.mark.parametrize("batch", BATCHES)
def test_packed_sequences_are_attention_of_each_alone(batch, width, causal, window):
    queries, keys = BATCHES[batch]
    q, k, v = packed(queries, keys, width=width)
    o, sums = exact(q, k, v, queries, keys, causal, window)
    ours, lse = ops.varlen_attention(
        q, k, v, starts(queries), starts(keys), causal=causal, window=window, return_lse=True
    )
    torch.testing.assert_close(ours.double(), o, rtol=2e-2, atol=4e-3)
    assert torch.equal(torch.isneginf(lse), torch.isneginf(sums))
    there = torch.isfinite(sums)
    torch.testing.assert_close(lse[there].double(), sums[there], rtol=1e-3, atol=1e-3)
    again, _ = ops.varlen_attention(
        q, k, v, starts(queries), starts(keys), causal=causal, window=window, return_lse=True
    )
    alone = ops.varlen_attention(q, k, v, starts(queries), starts(keys), causal=causal, window=window)
    assert torch.equal(ours, again)
    torch.testing.assert_close(alone.double(), o, rtol=2e-2, atol=4e-3)


@pytest.mark.parametrize(("heads", "width", "dtype"), [
    ((4, 4), 80, torch.float16), ((8, 1), 96, torch.bfloat16), ((2, 2), 256, torch.bfloat16),
    ((6, 2), 32, torch.float32), ((6, 2), 128, torch.bfloat16), ((10, 2), 128, torch.bfloat16),
    ((4, 2), 64, torch.float16), ((16, 2), 128, torch.bfloat16), ((3, 3), 64, torch.bfloat16),
])  # fmt: skip
def test_packed_sequences_of_any_heads_and_types(heads, width, dtype):
    """Heads in fours, in twos and in odd numbers: of one head, and of several side by side in a tile."""
    lengths = [130, 0, 1, 77, 260]
    q, k, v = packed(lengths, lengths, heads, width, dtype)
    o, _ = exact(q, k, v, lengths, lengths, True, None)
    ours = ops.varlen_attention(q, k, v, starts(lengths), causal=True)
    torch.testing.assert_close(ours.double(), o, rtol=2e-2, atol=4e-3)


def test_tokens_past_the_last_sequence_are_never_read_and_wrong_starts_lead_nowhere():
    q, k, v = packed([500], [500])
    k[300:], v[300:] = torch.nan, torch.nan
    ours = ops.varlen_attention(q, k, v, torch.tensor([0, 120, 300], device="cuda"), causal=True)
    assert torch.isfinite(ours).all() and not ours[300:].any()
    for wrong in ([0, 2**31 - 1, 7], [-(2**31), 2**30, 2**31 - 1], [400, 300, 0]):
        ops.varlen_attention(q, k, v, torch.tensor(wrong, device="cuda", dtype=torch.int32), causal=True)
    torch.cuda.synchronize()


def test_a_captured_call_follows_the_lengths():
    q, k, v = packed([600], [600])
    ends = torch.tensor([0, 100, 600], device="cuda", dtype=torch.int32)
    out = torch.empty_like(q)
    launch = ops.varlen_attention.bind(q, k, v, ends, causal=True, out=out)
    launch()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        launch()
    for lengths in ([100, 500], [371, 229], [600, 0]):
        ends.copy_(starts(lengths))
        out.fill_(torch.nan)
        graph.replay()
        torch.testing.assert_close(out.double(), exact(q, k, v, lengths, lengths, True, None)[0], rtol=2e-2, atol=4e-3)


@pytest.mark.parametrize("width", [64, 128])
@pytest.mark.parametrize("paged", [False, True])
def test_logarithms_of_sums_of_one_query_a_request(paged, width):
    """Zero, short and long requests; two halves of the keys are joined by them."""
    lengths = [0, 1, 2047, 4096, 16, 300, 4095]
    torch.manual_seed(0)
    q = torch.randn(7, 8, 1, width, device="cuda").bfloat16()
    k, v = (torch.randn(7, 2, 4096, width, device="cuda").bfloat16() for _ in range(2))
    there = torch.tensor(lengths, device="cuda", dtype=torch.int32)
    if paged:
        pages = [x.view(7, 2, 256, 16, width).transpose(1, 2).reshape(-1, 2, 16, width).contiguous() for x in (k, v)]
        table = torch.arange(7 * 256, device="cuda", dtype=torch.int32).view(7, -1)
        o, lse = ops.paged_attention(q, *pages, table, there, return_lse=True)
        alone = ops.paged_attention(q, *pages, table, there)
    else:
        o, lse = ops.attention(q, k, v, causal=True, lengths=there, return_lse=True)
        alone = ops.attention(q, k, v, causal=True, lengths=there)
    torch.testing.assert_close(o, alone, rtol=1e-2, atol=1e-3)
    assert lse.shape == (7, 8, 1) and lse.dtype == torch.float32 and (lse[0] == -torch.inf).all()
    for b, n in enumerate(lengths[1:], 1):
        keys = k[b, :, :n].double().repeat_interleave(4, 0)
        scores = (q[b].double() @ keys.transpose(1, 2)) * width**-0.5
        torch.testing.assert_close(lse[b].double(), torch.logsumexp(scores, -1), rtol=1e-3, atol=1e-3)
