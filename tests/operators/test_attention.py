import ml_dtypes
import numpy as np
import pytest
import torch
from cases import SIZES, SOME, STEPS, Case, Memory, element, memories, thorough
from hypothesis import given
from hypothesis import strategies as st

from tilewright import operators

windows = st.sampled_from((None, 1, 2, 5))
heads = st.sampled_from((1, 2))
head_sizes = st.sampled_from((1, 4, 7))


@thorough
@given(
    memories,
    STEPS,
    element,
    SOME,
    heads,
    SOME,
    SIZES,
    SIZES,
    head_sizes,
    st.booleans(),
    st.booleans(),
    windows,
    st.booleans(),
)
def test_attention(memory, steps, kind, b, h, g, s, t, d, ragged, causal, window, sums):
    e = d + 1
    inputs = {
        "q": memory.normal((b, h, g, s, d), kind),
        "k": memory.normal((b, h, t, d), kind),
        "v": memory.normal((b, h, t, e), kind),
    }
    if ragged:
        lengths = inputs["lengths"] = memory.integers(0, t + 1, (b,))
        for i, length in enumerate(lengths):  # what lies behind a sequence must not matter
            inputs["k"][i, :, length:], inputs["v"][i, :, length:] = np.nan, np.nan
    outputs = {"o": ((b, h, g, s, e), kind)} | ({"lse": ((b, h, g, s), np.float32)} if sums else {})
    case = Case(operators.attention, inputs, outputs, {"scale": 0.4})
    case.options = {"causal": causal, "window": window}
    case.check(memory, steps)


@thorough
@given(
    memories,
    STEPS,
    element,
    SOME,
    heads,
    SOME,
    SIZES,
    st.sampled_from((1, 3, 4)),
    SOME,
    st.booleans(),
    windows,
    st.booleans(),
)
def test_paged_attention(memory, steps, kind, b, h, g, s, page_size, row, causal, window, sums):
    pages, d = b * row + 2, 4
    table = memory.random.permutation(pages)[: b * row].reshape(b, row).astype(np.int32)
    lengths = memory.integers(0, row * page_size + 1, (b,))
    inputs = {
        "q": memory.normal((b, h, g, s, d), kind),
        "k_pages": memory.normal((pages, h, page_size, d), kind),
        "v_pages": memory.normal((pages, h, page_size, d), kind),
        "page_table": memory.laid_out(table),
        "lengths": lengths,
    }
    for i, length in enumerate(lengths):
        for place in range(int(length), row * page_size):
            page = table[i, place // page_size]
            inputs["k_pages"][page, :, place % page_size] = np.nan
            inputs["v_pages"][page, :, place % page_size] = np.nan
        table[i, -(-int(length) // page_size) :] = -1  # entries without keys are never followed
    inputs["page_table"][...] = table
    outputs = {"o": ((b, h, g, s, d), kind)} | ({"lse": ((b, h, g, s), np.float32)} if sums else {})
    case = Case(operators.paged_attention, inputs, outputs, {"scale": 0.4})
    case.options = {"causal": causal, "window": window}
    case.check(memory, steps)


@thorough
@given(memories, STEPS, element, heads, SOME, SIZES, SIZES, head_sizes, st.booleans(), st.booleans())
def test_packed_attention(memory, steps, kind, h, g, n, t, d, single, sums):
    """Any ranges at all, empty and reversed ones too; what no query sees may be anything."""
    first, past = (memory.laid_out(memory.random.integers(0, t + 1, (n,)).astype(np.int32)) for _ in range(2))
    inputs = {
        "q": memory.normal((h, g, n, d), kind),
        "k": memory.normal((h, t, d), kind),
        "v": memory.normal((h, t, d + 1), kind),
        "first": first,
        "past": past,
    }
    low, high = first.min(initial=t), past.max(initial=0)
    for name in ("k", "v"):
        inputs[name][:, :low], inputs[name][:, max(low, high) :] = np.nan, np.nan
    outputs = {"o": ((h, g, n, d + 1), kind)} | ({"lse": ((h, g, n), np.float32)} if sums else {})
    case = Case(operators.packed_attention, inputs, outputs, {"scale": 0.4}, {"single": single})
    case.check(memory, steps)


@thorough
@given(memories, STEPS, st.lists(st.tuples(SIZES, SIZES), max_size=5), st.booleans(), windows)
def test_key_ranges(memory, steps, lengths, causal, window):
    ends = [np.concatenate([[0], np.cumsum([pair[side] for pair in lengths])]).astype(int) for side in (0, 1)]
    inputs = {f"{x}_{word}": memory.laid_out(at) for x, found in zip("qk", ends, strict=True)
              for word, at in (("from", found[:-1]), ("to", found[1:]))}  # fmt: skip
    outputs = {name: ((int(ends[0][-1]),), np.int32) for name in ("first", "past")}
    Case(operators.key_ranges, inputs, outputs, options={"causal": causal, "window": window}).check(memory, steps)


@thorough
@given(memories, STEPS, element, SOME, heads, SOME, SIZES, SIZES, st.booleans())
def test_keys_and_values_of_eight_bits_stand_for_multiples_of_their_scales(memory, steps, kind, b, h, g, s, t, causal):
    narrow, d = ml_dtypes.float8_e4m3fn, 4
    inputs = {
        "q": memory.normal((b, h, g, s, d), kind),
        "k": memory.normal((b, h, t, d), narrow),
        "v": memory.normal((b, h, t, d), narrow),
        "k_scale": memory.laid_out(np.exp2(memory.integers(-3, 3, (h,)).astype(np.float32))),
        "v_scale": memory.laid_out(np.exp2(memory.integers(-3, 3, (h,)).astype(np.float32))),
    }
    case = Case(operators.attention, inputs, {"o": ((b, h, g, s, d), kind)}, {"scale": 0.4}, {"causal": causal})
    case.check(memory, steps)


@pytest.mark.parametrize("spread", [1.0, 60.0])
def test_large_scores_do_not_overflow(spread):
    random = np.random.default_rng(0)
    q, k, v = (random.standard_normal((1, 1, *shape, 8)).astype(np.float32) for shape in ((2, 5), (9,), (9,)))
    case = Case(operators.attention, {"q": q * spread, "k": k, "v": v}, {"o": (q.shape, np.float32)}, {"scale": 1.0})
    case.check(Memory(0), 4)


@pytest.mark.parametrize(("s", "t"), [(6, 6), (1, 9), (4, 9)])
@pytest.mark.parametrize("window", [None, 3])
def test_reference_is_torch(s, t, window):
    torch.manual_seed(0)
    q, k, v = (torch.randn(2, h, n, 8, dtype=torch.float64) for h, n in ((6, s), (2, t), (2, t)))
    position = torch.arange(t - s, t)[:, None]
    mask = torch.arange(t)[None] <= position
    if window is not None:
        mask &= torch.arange(t)[None] > position - window
    theirs = torch.nn.functional.scaled_dot_product_attention(q, k, v, mask, scale=0.3, enable_gqa=True)
    grouped = q.view(2, 2, 3, s, 8).numpy()
    exact = operators.attention.reference(grouped, k.numpy(), v.numpy(), 0.3, causal=True, window=window)["o"]
    np.testing.assert_allclose(exact.value.reshape(2, 6, s, 8), theirs.numpy(), rtol=1e-11, atol=1e-13)
