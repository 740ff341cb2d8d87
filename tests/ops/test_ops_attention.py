import numpy as np
import pytest
import torch

from tilewright import operators, ops
from tilewright.errors import ArgumentError, DTypeError
from tilewright.operators.attention import FAR
from tilewright.ops.attention import options_of
from tilewright.runtime import tolerance


def draw(generator, batch=2, query_heads=4, heads=2, s=3, t=7, d=8):
    shapes = ((query_heads, s), (heads, t), (heads, t))
    return [torch.randn(batch, h, n, d, generator=generator) for h, n in shapes]


def test_a_window_beyond_all_positions_is_one_option():
    """Sums of positions and a window stay in 32 bits, and one kernel serves all of them."""
    found = [options_of("attention", True, n)["window"] for n in (FAR - 1, FAR, FAR + 1, 2**40)]
    assert found == [FAR - 1, FAR, FAR, FAR]


@pytest.mark.parametrize("heads", [1, 2, 4])
@pytest.mark.parametrize(("causal", "window"), [(False, None), (True, None), (True, 2), (False, 3)])
def test_attention_is_torch(generator, heads, causal, window):
    q, k, v = draw(generator, heads=heads)
    position, key = torch.arange(4, 7)[:, None], torch.arange(7)[None]
    seen = (key <= position) if causal else torch.ones(3, 7, dtype=torch.bool)
    if window is not None:
        seen = seen & (key > position - window)
    theirs = torch.nn.functional.scaled_dot_product_attention(
        q.double(), k.double(), v.double(), seen, enable_gqa=heads != 4
    )
    ours = ops.attention(q, k, v, causal=causal, window=window)
    np.testing.assert_allclose(ours.numpy(), theirs.numpy(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("causal", "window"), [(False, None), (True, None), (True, 2)])
def test_logarithms_of_sums_are_torchs(generator, causal, window):
    q, k, v = draw(generator)
    position, key = torch.arange(4, 7)[:, None], torch.arange(7)[None]
    seen = (key <= position) if causal else torch.ones(3, 7, dtype=torch.bool)
    if window is not None:
        seen = seen & (key > position - window)
    scores = q.double() @ k.double().repeat_interleave(2, 1).transpose(-1, -2) * 8**-0.5
    theirs = torch.logsumexp(scores.masked_fill(~seen, -torch.inf), -1)
    o, lse = ops.attention(q, k, v, causal=causal, window=window, return_lse=True)
    assert lse.dtype == torch.float32 and lse.shape == (2, 4, 3)
    np.testing.assert_allclose(lse.numpy(), theirs.numpy(), rtol=1e-5, atol=1e-6)
    assert torch.equal(o, ops.attention(q, k, v, causal=causal, window=window))


def test_ranges_of_keys_are_joined_by_their_logarithms(generator):
    q, k, v = draw(generator)
    halves = [ops.attention(q, k[:, :, part], v[:, :, part], return_lse=True) for part in (slice(0, 3), slice(3, 7))]
    outs, sums = (torch.stack(x) for x in zip(*halves, strict=True))
    joined = (torch.softmax(sums, 0)[..., None] * outs).sum(0)
    torch.testing.assert_close(joined, ops.attention(q, k, v), rtol=1e-5, atol=1e-6)


def test_a_query_that_sees_no_key_has_no_sum(generator):
    q, k, v = draw(generator)
    out = torch.full((2, 4, 3, 8), torch.nan), torch.full((2, 4, 3), torch.nan)
    found = ops.attention(q, k, v, lengths=torch.tensor([0, 7]), return_lse=True, out=out)
    assert found == out and (out[0][0] == 0).all() and (out[1][0] == -torch.inf).all()
    assert torch.isfinite(out[1][1]).all()


def test_where_logarithms_go_is_checked(generator):
    q, k, v = draw(generator)
    with pytest.raises(ArgumentError, match=r"out=\(o, lse\)"):
        ops.attention(q, k, v, return_lse=True, out=torch.empty(2, 4, 3, 8))
    with pytest.raises(ArgumentError, match=r"out\[1\]"):
        ops.attention(q, k, v, return_lse=True, out=(torch.empty(2, 4, 3, 8), torch.empty(2, 4, 2)))
    with pytest.raises(DTypeError, match=r"out\[1\]"):
        ops.attention(q, k, v, return_lse=True, out=(torch.empty(2, 4, 3, 8), torch.empty(2, 4, 3).bfloat16()))


def test_layouts_of_a_model(generator):
    q = torch.randn(2, 3, 4, 8, generator=generator).transpose(1, 2)
    cache = torch.randn(2, 2, 2, 10, 8, generator=generator)
    lengths = torch.tensor([10, 5], dtype=torch.int32)
    place = torch.full((2, 3, 4, 8), torch.nan).transpose(1, 2)
    assert ops.attention(q, *cache, causal=True, lengths=lengths, scale=0.5, out=place) is place
    grouped = q.reshape(2, 2, 2, 3, 8).numpy()
    exact = operators.attention.reference(grouped, *cache.numpy(), 0.5, lengths.numpy(), causal=True)["o"]
    tolerance.check("attention", place.numpy().reshape(2, 2, 2, 3, 8), exact)


def test_a_sequence_alone_and_in_a_batch_agree(generator):
    q, k, v = draw(generator)
    lengths = torch.tensor([4, 7])
    both = ops.attention(q, k, v, causal=True, lengths=lengths)
    for b, length in enumerate(lengths):
        alone = ops.attention(q[b : b + 1], k[b : b + 1, :, :length], v[b : b + 1, :, :length], causal=True)
        assert torch.equal(both[b : b + 1], alone)


def test_paged_attention_is_attention(generator):
    q, k, v = draw(generator, t=8)
    lengths = torch.tensor([8, 5])
    page_table = torch.tensor([[5, 0, 3, 1], [2, 4, 6, -1]], dtype=torch.int32)
    pages = torch.full((2, 7, 2, 2, 8), torch.nan)
    for b in range(2):
        for t in range(int(lengths[b])):
            for stored, source in zip(pages, (k, v), strict=True):
                stored[page_table[b, t // 2], :, t % 2] = source[b, :, t]
    theirs = ops.attention(q, k, v, causal=True, lengths=lengths)
    ours = ops.paged_attention(q, *pages, page_table, lengths)
    np.testing.assert_allclose(ours.numpy(), theirs.numpy(), rtol=1e-5, atol=1e-6)
    by_place = pages.transpose(2, 3).contiguous().transpose(2, 3)
    assert torch.equal(ops.paged_attention(q, *by_place, page_table, lengths), ours)
    with pytest.raises(ArgumentError, match=r"page_table\[0\] holds 7, outside \[0, 7\): the pages that exist"):
        ops.paged_attention(q, *pages, page_table + 2, lengths)
    with pytest.raises(ArgumentError, match=r"lengths holds 9, outside \[0, 9\): the room in page_table"):
        ops.paged_attention(q, *pages, page_table, lengths + 1)


def test_no_keys_give_zeros(generator):
    q, k, v = draw(generator, t=0)
    np.testing.assert_array_equal(ops.attention(q, k, v).numpy(), np.zeros(q.shape))
    q, k, v = draw(generator)
    lengths = np.array([0, 2])
    y = ops.attention(q.numpy(), k.numpy(), v.numpy(), causal=True, lengths=lengths)
    assert not y[0].any() and not y[1, :, 0].any() and y[1, :, 1:].all()


def test_nothing_to_write_returns_at_once(generator):
    q, k, v = draw(generator, s=0)
    assert ops.attention(q, k, v).shape == (2, 4, 0, 8)


def test_wrong_calls(generator):
    q, k, v = draw(generator)
    with pytest.raises(ArgumentError, match=r"q of shape .* has 4 heads, not a multiple of the 3 heads of k"):
        ops.attention(q, k[:, :1].expand(2, 3, 7, 8), v[:, :1].expand(2, 3, 7, 8))
    with pytest.raises(ArgumentError, match=r"k of shape \[1, 2, 7, 8\] does not fit \[2, Hkv, T, 8\]"):
        ops.attention(q, k[:1], v)
    with pytest.raises(ArgumentError, match=r"v of shape \[2, 2, 6, 8\] does not fit \[2, 2, 7, E\]"):
        ops.attention(q, k, v[:, :, :6])
    with pytest.raises(DTypeError, match=r"k of shape .* is bf16 but q is f32"):
        ops.attention(q, k.bfloat16(), v)
    with pytest.raises(ArgumentError, match=r"attention: lengths holds 8, outside \[0, 8\): k has 7 positions"):
        ops.attention(q, k, v, lengths=torch.tensor([8, 1]))
    with pytest.raises(ArgumentError, match=r"attention: window=0 sees no key"):
        ops.attention(q, k, v, window=0)


def narrowed(x, scale):
    return (x / scale[:, None, None]).to(torch.float8_e4m3fn)


def test_a_cache_of_eight_bits(generator):
    q, k, v = draw(generator, t=40, d=16)
    scales = torch.tensor([0.25, 0.5]), torch.tensor([0.0625, 0.125])
    lengths = torch.tensor([40, 17])
    cached = [narrowed(x, s) for x, s in zip((k, v), scales, strict=True)]
    ours = ops.attention(q, *cached, causal=True, lengths=lengths, k_scale=scales[0], v_scale=scales[1])
    held = [c.float() * s[:, None, None] for c, s in zip(cached, scales, strict=True)]
    theirs = ops.attention(q, *held, causal=True, lengths=lengths)
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)
    assert (ours - ops.attention(q, k, v, causal=True, lengths=lengths)).abs().max() < 0.2  # and not what it was


def test_scales_go_with_eight_bits_and_with_nothing_else(generator):
    q, k, v = draw(generator)
    scale = torch.ones(2)
    k8, v8 = (narrowed(x, scale) for x in (k, v))
    with pytest.raises(ArgumentError, match=r"needs k_scale\[2\] of f32"):
        ops.attention(q, k8, v8)
    with pytest.raises(ArgumentError, match="goes without v_scale"):
        ops.attention(q, k, v, v_scale=scale)
    with pytest.raises(DTypeError, match="store both alike"):
        ops.attention(q, k8, v, k_scale=scale, v_scale=scale)
    with pytest.raises(ArgumentError, match="does not fit"):
        ops.attention(q, k8, v8, k_scale=torch.ones(3), v_scale=scale)
    with pytest.raises(DTypeError, match="k_scale"):
        ops.attention(q, k8, v8, k_scale=scale.bfloat16(), v_scale=scale)
