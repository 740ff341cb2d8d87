"""Attention of one query a request where it is hardest, out of rows and out of pages, against what must come out."""

from __future__ import annotations

import math

import pytest
import torch

from tilewright import ops
from tilewright.errors import ArgumentError

PAGE, KV, HEADS = 16, 2, 8
LENGTHS = (0, 1, PAGE - 1, PAGE, PAGE + 1, 255, 256, 257, 4096)
"""Ends at, before and behind the border of a page, of a step and of a part."""


def caches(width, room=4096, lengths=LENGTHS):
    torch.manual_seed(width)
    k, v = (torch.randn(len(lengths), KV, room, width, device="cuda").bfloat16() for _ in range(2))
    return k, v, torch.tensor(lengths, device="cuda", dtype=torch.int32)


def decoded(q, k, v, lengths, paged, **options):
    """Attention out of rows, or out of pages that lie in another order."""
    if not paged:
        return ops.attention(q, k, v, causal=True, lengths=lengths, **options)
    b, heads, room, width = k.shape
    order = torch.randperm(b * room // PAGE, device="cuda")
    pages = []
    for x in (k, v):
        cut = x.view(b, heads, room // PAGE, PAGE, width).transpose(1, 2).reshape(-1, heads, PAGE, width)
        pages.append(torch.empty_like(cut))
        pages[-1][order] = cut
    return ops.paged_attention(q, *pages, order.view(b, -1).int(), lengths, **options)


@pytest.mark.parametrize("paged", [False, True])
@pytest.mark.parametrize("width", [64, 128])
def test_equal_scores_share_their_weight_up_to_the_end_of_a_request(width, paged):
    k, v, lengths = caches(width)
    q = torch.zeros(len(LENGTHS), HEADS, 1, width, device="cuda", dtype=torch.bfloat16)
    o, lse = decoded(q, k, v, lengths, paged, return_lse=True)
    for b, n in enumerate(LENGTHS):
        mean = v[b, :, :n].double().mean(1).nan_to_num(0.0).repeat_interleave(HEADS // KV, 0)
        torch.testing.assert_close(o[b, :, 0].double(), mean, rtol=2.0**-8, atol=2e-3)
        assert (lse[b] - (math.log(n) if n else -math.inf)).nan_to_num(0.0).abs().max() < 1e-5


@pytest.mark.parametrize("paged", [False, True])
@pytest.mark.parametrize("width", [64, 128])
def test_scores_of_1e37_choose_one_key(width, paged):
    """The key that wins lies in another part for each request; what is beside it weighs nothing."""
    k, v, lengths = caches(width)
    q = torch.full((len(LENGTHS), HEADS, 1, width), 1e18, device="cuda", dtype=torch.bfloat16)
    k.copy_(torch.full_like(k, -1e17))
    v.mul_(1e35)  # so that a part that knows of no winner can add up its own
    for b, n in enumerate(LENGTHS):
        if n:
            k[b, :, n * 2 // 3] = 1e17
    o = decoded(q, k, v, lengths, paged)
    for b, n in enumerate(LENGTHS):
        chosen = v[b, :, n * 2 // 3] if n else torch.zeros_like(v[b, :, 0])
        assert torch.equal(o[b, :, 0], chosen.repeat_interleave(HEADS // KV, 0))


@pytest.mark.parametrize("paged", [False, True])
def test_keys_of_minus_infinity_weigh_nothing_and_nothing_else_is_a_sum_of_nothing(paged):
    width = 128
    k, v, lengths = caches(width)
    q = torch.ones(len(LENGTHS), HEADS, 1, width, device="cuda", dtype=torch.bfloat16)
    k[:, :, ::3] = -math.inf
    k[-1] = -math.inf  # of one request all
    o, lse = decoded(q, k, v, lengths, paged, return_lse=True)
    assert (o[-1] == 0).all() and (lse[-1] == -math.inf).all()
    for b, n in enumerate(LENGTHS[:-1]):
        scores = k[b, :, :n].double().sum(-1) * width**-0.5
        p = torch.softmax(scores, -1).nan_to_num(0.0)
        value = (p[:, None] @ v[b, :, :n].double())[:, 0].repeat_interleave(HEADS // KV, 0)
        torch.testing.assert_close(o[b, :, 0].double(), value, rtol=2e-2, atol=3e-3)
        sums = torch.logsumexp(scores, -1) if n else torch.full((KV,), -math.inf, device="cuda")
        assert torch.equal(torch.isinf(lse[b].view(KV, -1)[:, 0]), torch.isinf(sums))


@pytest.mark.parametrize("paged", [False, True])
def test_a_window_that_lies_behind_all_but_the_last_keys(paged):
    k, v, lengths = caches(64)
    q = torch.randn(len(LENGTHS), HEADS, 1, 64, device="cuda").bfloat16()
    o = decoded(q, k, v, lengths, paged, window=1)  # of one key the value is the result
    for b, n in enumerate(LENGTHS):
        last = v[b, :, n - 1] if n else torch.zeros_like(v[b, :, 0])
        assert torch.equal(o[b, :, 0], last.repeat_interleave(HEADS // KV, 0))


@pytest.mark.parametrize("paged", [False, True])
def test_very_long_requests(paged):
    room = 300_000 // PAGE * PAGE
    k, v, lengths = caches(64, room, (room, room - 1, 5))
    q = torch.randn(3, HEADS, 1, 64, device="cuda").bfloat16()
    o = decoded(q, k, v, lengths, paged)
    for b, n in enumerate(lengths.tolist()):
        keys, values = (x[b, :, :n].double().repeat_interleave(HEADS // KV, 0) for x in (k, v))
        p = torch.softmax(q[b].double() @ keys.transpose(1, 2) * 0.125, -1)
        far = (o[b].double() - p @ values).abs()
        assert (far <= 2.0**-8 * (p @ values.abs()) + 2.0**-8 * (p @ values).abs()).all()


def test_views_and_rows_that_are_not_aligned():
    """Caches as [B, T, heads, width], and rows of 130 elements of which 128 are read: no 16 bytes begin a row."""
    k, v, lengths = caches(128, 512, (512, 100, 0, 17))
    q = torch.randn(4, HEADS, 1, 128, device="cuda").bfloat16()
    right = ops.attention(q, k, v, causal=True, lengths=lengths)
    turned = [x.transpose(1, 2).contiguous().transpose(1, 2) for x in (k, v)]
    torch.testing.assert_close(ops.attention(q, *turned, causal=True, lengths=lengths), right, rtol=2e-2, atol=2e-3)
    spaced = []
    for x in (k, v):
        room = torch.full((*x.shape[:3], 130), math.nan, device="cuda", dtype=x.dtype)
        room[..., 1:129] = x
        spaced.append(room[..., 1:129])
    assert spaced[0].data_ptr() % 16 and spaced[0].stride(2) % 8
    torch.testing.assert_close(ops.attention(q, *spaced, causal=True, lengths=lengths), right, rtol=2e-2, atol=2e-3)


def test_tensors_on_other_devices_and_gradients_are_refused():
    k, v, lengths = caches(64, 64, (64, 3))
    q = torch.randn(2, HEADS, 1, 64, device="cuda").bfloat16()
    for wrong in ((q.cpu(), k, v), (q, k.cpu(), v), (q, k, v.cpu())):
        with pytest.raises(ArgumentError, match="cuda"):
            ops.attention(*wrong, causal=True, lengths=lengths)
    with pytest.raises(ArgumentError, match="cuda"):
        ops.attention(q, k, v, causal=True, lengths=lengths.cpu())
    with pytest.raises(ArgumentError, match="grad"):
        ops.attention(q.requires_grad_(), k, v, causal=True, lengths=lengths)
