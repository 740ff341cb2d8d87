"""Attention where it is hardest, on a CPU: ties, scores of 1e37, keys of -inf, lengths at the border of a page."""

from __future__ import annotations

import math

import pytest
import torch

from tilewright import ops
from tilewright.errors import ArgumentError

PAGE, KV, HEADS, WIDTH = 4, 2, 4, 16
LENGTHS = (0, 1, PAGE - 1, PAGE, PAGE + 1, 40)


def caches(generator, room=40):
    k, v = (torch.randn(len(LENGTHS), KV, room, WIDTH, generator=generator) for _ in range(2))
    return k, v, torch.tensor(LENGTHS, dtype=torch.int32)


def decoded(q, k, v, lengths, paged, **options):
    if not paged:
        return ops.attention(q, k, v, causal=True, lengths=lengths, **options)
    b, heads, room, width = k.shape
    cut = [x.view(b, heads, room // PAGE, PAGE, width).transpose(1, 2) for x in (k, v)]
    pages = [x.reshape(-1, heads, PAGE, width) for x in cut]
    order = torch.randperm(pages[0].shape[0], generator=torch.Generator().manual_seed(1))
    moved = [torch.empty_like(p) for p in pages]
    for to, x in zip(moved, pages, strict=True):
        to[order] = x
    return ops.paged_attention(q, *moved, order.view(b, -1).int(), lengths, **options)


@pytest.mark.parametrize("paged", [False, True])
def test_equal_scores_share_their_weight(generator, paged):
    k, v, lengths = caches(generator)
    o, lse = decoded(torch.zeros(len(LENGTHS), HEADS, 1, WIDTH), k, v, lengths, paged, return_lse=True)
    for b, n in enumerate(LENGTHS):
        mean = v[b, :, :n].double().mean(1).nan_to_num(0.0).float().repeat_interleave(HEADS // KV, 0)
        torch.testing.assert_close(o[b, :, 0], mean, rtol=1e-5, atol=1e-6)
        assert (lse[b] - (math.log(n) if n else -math.inf)).nan_to_num(0.0).abs().max() < 1e-5


@pytest.mark.parametrize("paged", [False, True])
def test_scores_of_1e37_choose_one_key(generator, paged):
    k, v, lengths = caches(generator)
    q = torch.full((len(LENGTHS), HEADS, 1, WIDTH), 1e18)
    k.fill_(-1e18)
    v.mul_(1e35)
    for b, n in enumerate(LENGTHS):
        if n:
            k[b, :, n * 2 // 3] = 1e18
    o = decoded(q, k, v, lengths, paged)
    for b, n in enumerate(LENGTHS):
        chosen = v[b, :, n * 2 // 3] if n else torch.zeros(KV, WIDTH)
        assert torch.equal(o[b, :, 0], chosen.repeat_interleave(HEADS // KV, 0))


@pytest.mark.parametrize("paged", [False, True])
def test_keys_of_minus_infinity_weigh_nothing(generator, paged):
    k, v, lengths = caches(generator)
    k[:, :, ::3] = -math.inf
    k[-1] = -math.inf  # of one request all
    q = torch.ones(len(LENGTHS), HEADS, 1, WIDTH)
    o, lse = decoded(q, k, v, lengths, paged, return_lse=True)
    assert (o[-1] == 0).all() and (lse[-1] == -math.inf).all()
    for b, n in enumerate(LENGTHS[:-1]):
        p = torch.softmax(k[b, :, :n].double().sum(-1) * WIDTH**-0.5, -1).nan_to_num(0.0)
        value = (p[:, None] @ v[b, :, :n].double())[:, 0].float().repeat_interleave(HEADS // KV, 0)
        torch.testing.assert_close(o[b, :, 0], value, rtol=1e-5, atol=1e-6)


def test_rows_that_are_not_aligned_are_read_as_they_lie(generator):
    k, v, lengths = caches(generator)
    q = torch.randn(len(LENGTHS), HEADS, 1, WIDTH, generator=generator)
    spaced = []
    for x in (k, v):
        room = torch.full((*x.shape[:3], WIDTH + 3), math.nan)
        room[..., 1 : WIDTH + 1] = x
        spaced.append(room[..., 1 : WIDTH + 1])
    theirs = ops.attention(q, k, v, causal=True, lengths=lengths)
    torch.testing.assert_close(ops.attention(q, *spaced, causal=True, lengths=lengths), theirs, rtol=1e-5, atol=1e-6)


def test_gradients_and_other_devices_are_refused(generator):
    k, v, lengths = caches(generator)
    q = torch.randn(len(LENGTHS), HEADS, 1, WIDTH, generator=generator)
    for given in ((q.clone().requires_grad_(), k, v), (q, k, v.clone().requires_grad_())):
        with pytest.raises(ArgumentError, match=r"attention: an operand asks for a gradient.*detach"):
            ops.attention(*given, lengths=lengths)
    with pytest.raises(ArgumentError, match=r"k: tensor .* is on meta"):
        ops.attention(q, k.to("meta"), v, lengths=lengths)
