import numpy as np
import torch
from cases import SIZES, SOME, STEPS, Case, element, memories, thorough
from hypothesis import given
from hypothesis import strategies as st

from tilewright import operators
from tilewright.language.dtypes import dtype
from tilewright.language.interpreter import run

Q_OUT = {"q_out": "f32"}

halves = st.sampled_from((1, 2, 5, 8))


@thorough
@given(memories, STEPS, element, SIZES, SIZES, SOME, halves, st.sampled_from((0, 1, 3)), st.booleans(), st.booleans())
def test_rope(memory, steps, kind, b, s, h, r, rest, ragged, inverse):
    rows = s + 3
    inputs = {"x": memory.normal((b, s, h, 2, r), kind)}
    inputs.update({name: memory.normal((rows, 2, r), np.float32) for name in ("cos", "sin")})
    outputs = {"y": ((b, s, h, 2, r), kind)}
    if ragged:
        inputs["positions"] = memory.integers(0, rows, (b, s))
    if rest:
        inputs["rest"] = memory.normal((b, s, h, rest), kind)
        outputs["rest_y"] = ((b, s, h, rest), kind)
    Case(operators.rope, inputs, outputs, options={"inverse": inverse}).check(memory, steps)


@thorough
@given(memories, STEPS, element, SOME, SOME, SOME, SOME, halves, st.booleans())
def test_rope_cache(memory, steps, kind, b, s, query_heads, heads, r, norm):
    room = s + 4
    first = memory.random.integers(0, 4, b)
    inputs = {
        "q": memory.normal((b, s, query_heads, 2, r), kind),
        "k": memory.normal((b, s, heads, 2, r), kind),
        "v": memory.normal((b, s, heads, 2 * r), kind),
        "cos": memory.normal((room, 2, r)),
        "sin": memory.normal((room, 2, r)),
        "positions": memory.laid_out((first[:, None] + np.arange(s)).astype(np.int32)),
        "k_cache": memory.normal((b, heads, room, 2, r), kind),
        "v_cache": memory.normal((b, heads, room, 2 * r), kind),
    }
    if norm:
        inputs.update({name: memory.normal((2, r), kind) for name in ("q_norm", "k_norm")})
    outputs = {name: (inputs[source].shape, kind) for name, source in _WRITTEN.items()}
    Case(operators.rope_cache, inputs, outputs, {"eps": 1e-6}).check(memory, steps)


@thorough
@given(memories, STEPS, element, SIZES, SOME, SOME, halves, st.booleans())
def test_paged_rope_cache(memory, steps, kind, tokens, query_heads, heads, r, norm):
    page_size, pages = 3, tokens // 2 + 1
    slots = memory.random.permutation(page_size * pages)[:tokens]
    inputs = {
        "q": memory.normal((tokens, query_heads, 2, r), kind),
        "k": memory.normal((tokens, heads, 2, r), kind),
        "v": memory.normal((tokens, heads, 2 * r), kind),
        "cos": memory.normal((9, 2, r)),
        "sin": memory.normal((9, 2, r)),
        "positions": memory.integers(0, 9, (tokens,)),
        "slots": memory.laid_out(slots.astype(np.int64)),
        "k_pages": memory.normal((pages, heads, page_size, 2, r), kind),
        "v_pages": memory.normal((pages, heads, page_size, 2 * r), kind),
    }
    if norm:
        inputs["k_norm"] = memory.normal((2, r), kind)
    outputs = {"q_out": (inputs["q"].shape, kind)}
    outputs.update({name: (inputs[name].shape, kind) for name in ("k_pages", "v_pages")})
    Case(operators.paged_rope_cache, inputs, outputs, {"eps": 1e-6}).check(memory, steps)


_WRITTEN = {"q_out": "q", "k_cache": "k_cache", "v_cache": "v_cache"}


def test_reference_is_the_formula_of_transformers():
    x, cos, sin = (torch.randn(*s, dtype=torch.float64) for s in ((2, 5, 3, 8), (5, 8), (5, 8)))
    turned = torch.cat([-x[..., 4:], x[..., :4]], -1)
    theirs = x * cos[:, None] + turned * sin[:, None]
    split = (x.view(2, 5, 3, 2, 4).numpy(), cos.view(5, 2, 4).numpy(), sin.view(5, 2, 4).numpy())
    ours = operators.rope.reference(*split)["y"].value
    np.testing.assert_allclose(ours.reshape(2, 5, 3, 8), theirs.numpy(), rtol=1e-12, atol=1e-14)


def test_a_position_that_does_not_exist_is_the_nearest_that_does():
    """Nothing outside of the cache is read or written, whatever positions and slots say."""
    random = np.random.default_rng(0)

    def drawn(*shape):
        return random.standard_normal(shape).astype(np.float32)

    tables = {"cos": drawn(4, 2, 2), "sin": drawn(4, 2, 2)}
    q, k, v = drawn(1, 2, 1, 2, 2), drawn(1, 2, 1, 2, 2), drawn(1, 2, 1, 4)
    found = []
    for positions in ([[0, 2]], [[-7, 99]]):  # three places in the cache, four rows of cos
        caches = {"k_cache": np.zeros((1, 1, 3, 2, 2), np.float32), "v_cache": np.zeros((1, 1, 3, 4), np.float32)}
        operands = {"q": q, "k": k, "v": v, **tables, "positions": np.array(positions), **caches}
        kernel = operators.rope_cache.kernel.trace({n: str(dtype(x.dtype)) for n, x in operands.items()} | Q_OUT)
        run(kernel, operands | {"q_out": np.empty_like(q)}, {"eps": 1e-6})
        found.append(caches)
    assert all(np.array_equal(found[0][name], found[1][name]) for name in found[0])
    paged = {"q": q[0], "k": k[0], "v": v[0], **tables}
    found = []
    for positions, slots in (([0, 3], [0, 5]), ([-2, 8], [-9, 77])):  # two pages of three places
        pages = {"k_pages": np.zeros((2, 1, 3, 2, 2), np.float32), "v_pages": np.zeros((2, 1, 3, 4), np.float32)}
        operands = {**paged, "positions": np.array(positions), "slots": np.array(slots), **pages}
        kernel = operators.paged_rope_cache.kernel.trace({n: str(dtype(x.dtype)) for n, x in operands.items()} | Q_OUT)
        run(kernel, operands | {"q_out": np.empty_like(q[0])}, {"eps": 1e-6})
        found.append(pages)
    assert all(np.array_equal(found[0][name], found[1][name]) for name in found[0])
