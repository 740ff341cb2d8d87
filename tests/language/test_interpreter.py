"""The interpreter against plain float64, and its promises: steps and the order of parallel tiles do not matter."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
import tile_programs as programs
from hypothesis import given, settings
from hypothesis import strategies as st

from tilewright.errors import ArgumentError
from tilewright.language.interpreter import bind_sizes, run
from tilewright.language.parser import parse

F32_EPS = float(np.finfo(np.float32).eps)
F64_EPS = float(np.finfo(np.float64).eps)


def draw(seed, *shape, dtype=np.float32):
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def poisoned(*shape, dtype=np.float32):
    return np.full(shape, np.nan, dtype)


@pytest.mark.parametrize("steps", [1, 4, 16, {"K": 3, "m": 2}])
@pytest.mark.parametrize("shape", [(9, 11, 37), (1, 1, 1), (16, 32, 16), (3, 5, 0), (0, 2, 4)])
def test_matmul(shape, steps):
    m, n, k = shape
    a, b, c = draw(1, m, k), draw(2, n, k), poisoned(m, n)
    run(programs.matmul.trace("f32"), {"a": a, "b": b, "c": c}, steps=steps)
    wide_a, wide_b = a.astype(float), b.astype(float)
    bound = (k + 1) * F32_EPS * (np.abs(wide_a) @ np.abs(wide_b).T)
    assert (np.abs(c - wide_a @ wide_b.T) <= bound).all()


def test_matmul_with_epilogue():
    a, b, c, bias = draw(1, 4, 6), draw(2, 5, 6), poisoned(4, 5), draw(3, 5)
    kernel = programs.EXAMPLES["matmul_epilogue"]
    c = c.astype(float)
    run(kernel, {"a": a, "b": b, "c": c, "bias": bias}, {"alpha": 0.5}, exact=True)
    x = 0.5 * (a.astype(float) @ b.astype(float).T) + bias
    np.testing.assert_allclose(c, x / (1 + np.exp(-x)), rtol=64 * F64_EPS, atol=64 * F64_EPS)


@pytest.mark.parametrize("steps", [2, 5, 16])
def test_attention_is_exact_over_ragged_lengths(steps):
    shape_q, shape_k = (2, 4, 3, 8), (2, 2, 13, 8)
    q, k, v, o = draw(1, *shape_q), draw(2, *shape_k), draw(3, *shape_k), poisoned(*shape_q, dtype=float)
    lengths = np.array([13, 7], np.int32)
    k[1, :, 7:] = np.nan
    v[1, :, 7:] = np.nan
    operands = {"q": q, "k": k, "v": v, "o": o, "lengths": lengths}
    run(programs.EXAMPLES["attention"], operands, {"scale": 0.25}, steps=steps, exact=True)
    for b, length in enumerate(lengths):
        for h in range(4):
            keys, values = k[b, h // 2, :length].astype(float), v[b, h // 2, :length].astype(float)
            scores = q[b, h].astype(float) @ keys.T * 0.25
            scores[np.arange(length)[None] > np.arange(3)[:, None] + length - 3] = -np.inf
            p = np.exp(scores - scores.max(1, keepdims=True))
            want = p / p.sum(1, keepdims=True) @ values
            np.testing.assert_allclose(o[b, h], want, rtol=1e-13, atol=1e-13)


def test_gather_through_a_page_table():
    pages, table, y = (
        draw(1, 6, 4, 3, dtype=np.float16),
        np.array([5, 0, 3], np.int32),
        poisoned(10, 3, dtype=np.float16),
    )
    run(programs.EXAMPLES["paged_gather"], {"pages": pages, "table": table, "y": y}, steps=4)
    np.testing.assert_array_equal(y, pages[table[np.arange(10) // 4], np.arange(10) % 4])


def test_scatter_and_transpose():
    x, y, slots = draw(1, 3, 5), poisoned(7, 5), np.array([6, 0, 2])
    run(programs.EXAMPLES["scatter"], {"x": x, "slots": slots, "y": y}, steps=2)
    np.testing.assert_array_equal(y[slots], x)
    assert np.isnan(np.delete(y, slots, 0)).all()
    x, y = draw(1, 3, 5, dtype=ml_dtypes.float8_e4m3fn), poisoned(5, 3, dtype=ml_dtypes.float8_e4m3fn)
    run(programs.EXAMPLES["transpose"], {"x": x, "y": y}, steps=2)
    np.testing.assert_array_equal(y.astype(float), x.T.astype(float))


def test_stores_round_to_the_element_type():
    kernel = parse("kernel k(x: f32[N], y: bf16[N]) { v = load x[N] : f32[N] store y[N] = v }")
    x, y = draw(1, 100), poisoned(100, dtype=ml_dtypes.bfloat16)
    run(kernel, {"x": x, "y": y})
    np.testing.assert_array_equal(y, x.astype(ml_dtypes.bfloat16))


def test_a_value_read_before_an_update_keeps_what_it_had():
    text = """kernel k(x: f32[N], y: f32[N]) {
        v = load x[N] : f32[N]
        store y[N] = v
        w = load y[N] : f32[N]
        one = full 1.0 : f32[]
        acc = full 0.0 : f32[N]
        old = add acc w : f32[N]
        acc := v
        z = add old one : f32[N]
        store y[N] = z
        u = add w acc : f32[N]
        store x[N] = u
    }"""
    x, y = np.array([1.0, 2.0], np.float32), poisoned(2)
    run(parse(text), {"x": x, "y": y})
    np.testing.assert_array_equal(y, [2, 3])
    np.testing.assert_array_equal(x, [2, 4])


@settings(deadline=None, max_examples=20)
@given(m=st.integers(1, 13), n=st.integers(1, 15), k=st.integers(1, 20), seed=st.integers(0, 99))
def test_a_scheduled_program_means_the_same(m, n, k, seed):
    a, b, c = draw(1, m, k).astype(float), draw(2, n, k).astype(float), poisoned(m, n, dtype=float)
    run(parse(programs.SCHEDULED), {"a": a, "b": b, "c": c}, seed=seed, exact=True)
    np.testing.assert_allclose(c, a @ b.T, rtol=0, atol=8 * k * F64_EPS * (np.abs(a) @ np.abs(b).T).max())


def test_a_ring_of_slots_addressed_by_an_integer():
    text = """kernel k(x: f32[N], y: f32[N]) {
        alloc ring: f32[2, i] @stages=2
        two = full 2 : i64[]
        for i in N step 3 {
            at = coord i : i64[i]
            low = reduce min at over i : i64[]
            slot = mod low two : i64[]
            copy ring[slot, i] <- x[i]
            copy y[i] <- ring[slot, i]
        }
    }"""
    x, y = draw(1, 8), poisoned(8)
    run(parse(text), {"x": x, "y": y})
    np.testing.assert_array_equal(y, x)


def test_last_and_not_last():
    text = """kernel k(x: f32[N], y: f32[]) {
        acc = full 0.0 : f32[]
        for i in N step 4 {
            v = load x[i] : f32[i]
            s = reduce sum v over i : f32[]
            when not_last(i) { t = add acc s : f32[] acc := t }
            when last(i) { u = sub acc s : f32[] store y[] = u }
        }
    }"""
    x, y = np.arange(10, dtype=np.float32), np.array(np.nan, np.float32)
    run(parse(text), {"x": x, "y": y})
    assert y == sum(range(8)) - 8 - 9


def operands_of_random(m, n, k):
    shapes = {"a": (m, k), "b": (n, k), "x": (m, n), "v": (n,)}
    tensors = {name: draw(i, *shape).astype(float) for i, (name, shape) in enumerate(shapes.items())}
    return tensors | {"y": poisoned(m, n, dtype=float), "row": poisoned(m, dtype=float)}


@settings(deadline=None, max_examples=40)
@given(
    kernel=programs.random_programs(),
    sizes=st.tuples(st.integers(0, 9), st.integers(0, 9), st.integers(0, 9)),
    steps=st.dictionaries(st.sampled_from("MNK"), st.integers(1, 10)),
    seed=st.integers(0, 1000),
)
def test_steps_and_order_do_not_change_the_meaning(kernel, sizes, steps, seed):
    plain, other = operands_of_random(*sizes), operands_of_random(*sizes)
    run(kernel, plain, exact=True)
    run(kernel, other, steps=steps, seed=seed, exact=True)
    for name in ("y", "row"):
        # Sums of at most 9 terms under 30 in another order, through steps of slope at most 4.
        np.testing.assert_allclose(other[name], plain[name], rtol=1e-11, atol=1e-11)
    if 0 not in sizes:
        assert not np.isnan(plain["y"]).any()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"a": None}, "no operand 'a' was given"),
        ({"a": np.zeros((2, 3), np.float64)}, "a is float64, but matmul was traced for f32"),
        ({"a": np.zeros(2, np.float32)}, r"a has shape \(2,\), but matmul takes \['M', 'K'\]"),
        ({"a": np.zeros((2, 4), np.float32)}, r"b has shape \(5, 3\), but dimension K is 4 elsewhere"),
    ],
)
def test_operands_that_do_not_fit(change, message):
    operands = {"a": np.zeros((2, 3), np.float32), "b": np.zeros((5, 3), np.float32), "c": np.zeros((2, 5), np.float32)}
    operands = {name: array for name, array in (operands | change).items() if array is not None}
    with pytest.raises(ArgumentError, match=message):
        run(programs.matmul.trace("f32"), operands)


def test_an_index_outside_its_dimension():
    operands = {"x": draw(1, 2, 3), "slots": np.array([0, 7]), "y": poisoned(7, 3)}
    with pytest.raises(ArgumentError, match="index slots0 of y is 7, outside dimension R of size 7"):
        run(programs.EXAMPLES["scatter"], operands)


def test_bind_sizes_checks_literal_dimensions():
    kernel = parse("kernel k(x: f32[S, 2]) { v = load x[S, 0] : f32[S] store x[S, 1] = v }")
    assert bind_sizes(kernel, {"x": np.zeros((3, 2), np.float32)}) == {"S": 3}
    with pytest.raises(ArgumentError, match="dimension 2 is 2 elsewhere"):
        bind_sizes(kernel, {"x": np.zeros((3, 4), np.float32)})


@pytest.mark.parametrize(
    ("size", "tiles"), [(7, [[0, 4], [1, 5], [2, 6], [3]]), (2, [[0], [1]]), (9, [[0, 4], [1, 5], [2, 6], [3, 7], [8]])]
)
def test_positions_that_lie_apart_are_visited_in_tiles_that_hold_some(size, tiles):
    """Each tile is counted, an empty one too, and the last of them is the last that there is."""
    kernel = parse(
        """kernel k(at: i64[M], count: i64[], last: i64[M]) {
          one = full 1 : i64[]
          acc = full 0 : i64[]
          for i in M step 2 apart 4 {
            n = add acc one : i64[] acc := n
            store at[i] = acc
            when last(i) { store last[i] = acc } }
          store count[] = acc }"""
    )
    at, count, last = np.zeros(size, np.int64), np.zeros((), np.int64), np.zeros(size, np.int64)
    run(kernel, {"at": at, "count": count, "last": last}, steps=2)
    assert int(count) == len(tiles)
    assert [np.flatnonzero(at == n + 1).tolist() for n in range(len(tiles))] == tiles
    assert np.flatnonzero(last).tolist() == tiles[-1]


def test_what_nobody_has_written_is_not_a_number():
    kernel = parse(
        """kernel k(x: f32[M], y: f32[M]) {
          alloc kept: f32[M]
          for i in M { when first(i) { v = load x[i] : f32[i] store kept[i] = v } }
          for i in M { w = load kept[i] : f32[i] store y[i] = w } }"""
    )
    y = np.zeros(5, np.float32)
    run(kernel, {"x": np.arange(5, dtype=np.float32), "y": y}, steps=2)
    np.testing.assert_array_equal(y, [0, 1, np.nan, np.nan, np.nan])
