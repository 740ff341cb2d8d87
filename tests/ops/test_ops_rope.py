import numpy as np
import pytest
import torch

from tilewright import ops
from tilewright.errors import ArgumentError


def pair(x, interleaved):
    """For each element the partner that it turns with, with its sign."""
    if interleaved:
        return torch.stack([-x[..., 1::2], x[..., ::2]], -1).flatten(-2)
    half = x.shape[-1] // 2
    return torch.cat([-x[..., half:], x[..., :half]], -1)


def turned(x, cos, sin, interleaved=False):
    """x[B, S, H, D] with cos and sin[B or 1, S, R], in float64."""
    size, x = cos.shape[-1], x.double()
    head, rest = x[..., :size], x[..., size:]
    cos, sin = cos.double()[..., None, :], sin.double()[..., None, :]
    return torch.cat([head * cos + pair(head, interleaved) * sin, rest], -1)


@pytest.mark.parametrize("interleaved", [False, True])
@pytest.mark.parametrize("rotated", [8, 4, 0])
@pytest.mark.parametrize("positions", [None, [3, 0, 1], [[1, 2, 3], [5, 0, 0]]])
def test_rope(generator, interleaved, rotated, positions):
    x = torch.randn(2, 4, 3, 8, generator=generator).transpose(1, 2)
    cos, sin = torch.randn(2, 6, rotated, generator=generator)
    where = None if positions is None else torch.tensor(positions, dtype=torch.int32)
    rows = torch.arange(3)[None] if where is None else where.reshape(-1, 3)
    expected = turned(x, cos[rows], sin[rows], interleaved).numpy()
    y = ops.rope(x, cos, sin, interleaved=interleaved, positions=where)
    np.testing.assert_allclose(y.numpy(), expected, rtol=1e-6, atol=1e-6)
    assert ops.rope(x, cos, sin, interleaved=interleaved, positions=where, out=x) is x
    np.testing.assert_allclose(x.numpy(), expected, rtol=1e-6, atol=1e-6)


def test_positions_and_tables_are_checked():
    x, cos = np.ones((2, 3, 1, 4), np.float32), np.ones((3, 4), np.float32)
    with pytest.raises(ArgumentError, match=r"positions holds 3, outside \[0, 3\)"):
        ops.rope(x, cos, cos, positions=np.array([0, 1, 3]))
    with pytest.raises(ArgumentError, match=r"cos of shape .* has 2 rows for 3 positions"):
        ops.rope(x, cos[:2], cos[:2])
    with pytest.raises(ArgumentError, match=r"cos of shape .* turns 3 elements of heads of 4"):
        ops.rope(x, cos[:, :3], cos[:, :3])
    with pytest.raises(ArgumentError, match=r"positions of shape \[1, 3\] does not fit \[2, 3\]"):
        ops.rope(x, cos, cos, positions=np.zeros((1, 3), np.int64))


def normed(x, weight):
    x = x.double()
    return x / (x.pow(2).mean(-1, keepdim=True) + 1e-6).sqrt() * weight.double()


@pytest.mark.parametrize("interleaved", [False, True])
@pytest.mark.parametrize("norm", [False, True])
def test_rope_cache_splits_a_projection_and_fills_the_cache(generator, interleaved, norm):
    batch, tokens, query_heads, heads, d, room = 2, 3, 4, 2, 8, 7
    qkv = torch.randn(batch * tokens, (query_heads + 2 * heads) * d, generator=generator)
    q, k, v = qkv.view(batch, tokens, -1, d).split([query_heads, heads, heads], 2)
    cos, sin = torch.randn(2, room, d, generator=generator)
    positions = torch.tensor([[0, 1, 2], [4, 5, 6]])
    cache_k, cache_v = torch.full((2, batch, heads, room, d), 7.0)
    norms = dict(zip(("q_norm", "k_norm"), torch.randn(2, d, generator=generator), strict=True)) if norm else {}
    place = torch.full((batch, query_heads, tokens, d), torch.nan)
    ops.rope_cache(
        q, k, v, cos, sin, positions, cache_k, cache_v, **norms, interleaved=interleaved, out=place.transpose(1, 2)
    )
    if norm:
        q, k = normed(q, norms["q_norm"]), normed(k, norms["k_norm"])
    expected = turned(q, cos[positions], sin[positions], interleaved)
    np.testing.assert_allclose(place.transpose(1, 2).numpy(), expected.numpy(), rtol=2e-6, atol=2e-6)
    keys = turned(k, cos[positions], sin[positions], interleaved)
    full_k, full_v = torch.full((2, batch, heads, room, d), 7.0, dtype=torch.float64)
    for b in range(batch):
        full_k[b, :, positions[b]], full_v[b, :, positions[b]] = keys[b].transpose(0, 1), v[b].double().transpose(0, 1)
    np.testing.assert_allclose(cache_k.numpy(), full_k.numpy(), rtol=2e-6, atol=2e-6)
    np.testing.assert_array_equal(cache_v.numpy(), full_v.numpy())


def test_paged_rope_cache_is_rope_cache_with_slots(generator):
    tokens, query_heads, heads, d, pages, page_size = 5, 4, 2, 8, 4, 3
    q, k, v = (torch.randn(tokens, h, d, generator=generator) for h in (query_heads, heads, heads))
    cos, sin = torch.randn(2, 9, d, generator=generator)
    positions, slots = torch.tensor([0, 8, 2, 3, 7]), torch.tensor([11, 0, 4, 6, 5], dtype=torch.int32)
    k_pages, v_pages = torch.zeros(2, pages, page_size, heads, d).transpose(2, 3)
    ours = ops.paged_rope_cache(q, k, v, cos, sin, positions, slots, k_pages, v_pages)
    cache_k, cache_v = torch.zeros(2, 1, heads, 9, d)
    theirs = ops.rope_cache(q[None], k[None], v[None], cos, sin, positions[None], cache_k, cache_v)
    assert torch.equal(ours, theirs[0])
    written = k_pages.transpose(1, 2).reshape(-1, heads, d)[slots], v_pages.transpose(1, 2).reshape(-1, heads, d)[slots]
    assert torch.equal(written[0], cache_k[0].transpose(0, 1)[positions])
    assert torch.equal(written[1], v)
    with pytest.raises(ArgumentError, match=r"slots holds 12, outside \[0, 12\)"):
        ops.paged_rope_cache(q, k, v, cos, sin, positions, slots + 1, k_pages, v_pages)


def test_the_cache_is_checked():
    q = np.ones((1, 2, 1, 4), np.float32)
    cos, cache = np.ones((9, 4), np.float32), np.ones((2, 1, 1, 5, 4), np.float32)
    where = np.array([[3, 4]])
    with pytest.raises(ArgumentError, match=r"rope_cache: positions holds 5, outside \[0, 5\)"):
        ops.rope_cache(q, q, q, cos, cos, where + 1, *cache)
    with pytest.raises(ArgumentError, match=r"v_cache of shape .* shares memory with k_cache"):
        ops.rope_cache(q, q, q, cos, cos, where, cache[0], cache[0])
    with pytest.raises(ArgumentError, match=r"cos turns 2 of 4 elements; it must turn the whole head"):
        ops.rope_cache(q, q, q, cos[:, :2], cos[:, :2], where, *cache)


def test_a_cache_of_eight_bits_takes_what_fits_in_it(generator):
    """Keys and values divided by the scales of their heads, rounded to nearest; what is too large ends at the top."""
    q, k, v = (torch.randn(2, 3, h, 8, generator=generator) for h in (4, 2, 2))
    v[0, 0, 0, 0], v[0, 0, 1, 1] = 1e5, -1e5
    angles = torch.rand(16, 4, generator=generator)
    tables = [torch.cat([x, x], 1) for x in (angles.cos(), angles.sin())]
    positions = torch.tensor([[0, 1, 2], [4, 5, 6]])
    scales = torch.tensor([0.25, 0.5]), torch.tensor([0.0625, 0.125])
    caches = [torch.zeros(2, 2, 10, 8, dtype=torch.float8_e4m3fn) for _ in range(2)]
    plain = [torch.zeros(2, 2, 10, 8) for _ in range(2)]
    ours = ops.rope_cache(q, k, v, *tables, positions, *caches, k_scale=scales[0], v_scale=scales[1])
    assert torch.equal(ours, ops.rope_cache(q, k, v, *tables, positions, *plain))
    for cache, whole, scale in zip(caches, plain, scales, strict=True):
        wanted = (whole / scale[:, None, None]).clamp(-448, 448).to(torch.float8_e4m3fn)
        assert torch.equal(cache.view(torch.uint8), wanted.view(torch.uint8))
