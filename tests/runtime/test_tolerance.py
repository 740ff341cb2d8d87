import ml_dtypes
import numpy as np
import pytest

from tilewright.errors import VerificationError
from tilewright.language.dtypes import bf16, f16, f32
from tilewright.operators import Exact
from tilewright.runtime.tolerance import bound, check

DTYPES = (np.float32, ml_dtypes.bfloat16, np.float16)


def product(terms, kind, seed=0):
    """64 sums of `terms` products: the factors in `kind`, and the exact sums."""
    random = np.random.default_rng(seed)
    a, b = (random.standard_normal((64, terms)).astype(kind) for _ in range(2))
    exact = a.astype(np.float64) * b.astype(np.float64)
    return a, b, Exact(exact.sum(1), np.abs(exact).sum(1), terms)


@pytest.mark.parametrize("kind", DTYPES)
@pytest.mark.parametrize("terms", [1, 64, 4096])
def test_sums_in_any_order_are_inside(kind, terms):
    a, b, exact = product(terms, kind)
    products = a.astype(np.float32) * b.astype(np.float32)
    in_order, backwards = np.cumsum(products, 1)[:, -1], np.cumsum(products[:, ::-1], 1)[:, -1]
    for total in (in_order, backwards, products.sum(1)):
        check("sum", total.astype(kind), exact)


@pytest.mark.parametrize("terms", [64, 4096])
def test_a_term_left_out_is_outside(terms):
    a, b, exact = product(terms, np.float32)
    for left_out in (0, terms // 2, terms - 1):
        kept = np.delete(a * b, left_out, 1).sum(1, dtype=np.float64).astype(np.float32)
        with pytest.raises(VerificationError, match=r"times the bound"):
            check("sum", kept, exact)


def test_accumulating_in_bf16_is_outside():
    a, b, exact = product(1024, ml_dtypes.bfloat16)
    total = np.zeros(64, ml_dtypes.bfloat16)
    for t in range(1024):
        total += a[:, t] * b[:, t]
    with pytest.raises(VerificationError, match=r"times the bound for bfloat16"):
        check("sum", total, exact)


@pytest.mark.parametrize("kind", DTYPES)
def test_one_rounding_is_inside_and_two_gaps_are_outside(kind):
    value = np.random.default_rng(0).uniform(1, 2, 1000)
    check("copy", value.astype(kind), Exact.copied(value))
    wrong = value.astype(kind) + np.asarray(4 * ml_dtypes.finfo(kind).eps, kind) * (64 if kind == np.float32 else 1)
    with pytest.raises(VerificationError, match=r"1000 of 1000 elements are outside"):
        check("copy", wrong, Exact.copied(value))


def test_infinities_and_nan_must_be_in_their_places():
    value = np.array([1.0, np.inf, -np.inf, np.nan])
    exact = Exact(value, np.abs(value), 1)
    assert check("x", value.astype(np.float32), exact) == 0
    for place in range(4):
        wrong = value.astype(np.float32)
        wrong[place] = 5.0 if place else np.nan
        with pytest.raises(VerificationError, match=rf"x\[{place}\] is "):
            check("x", wrong, exact)


def test_integers_and_shapes_must_be_equal():
    exact = Exact.copied(np.array([1, 2]))
    check("index", np.array([1, 2], np.int32), exact)
    with pytest.raises(VerificationError, match=r"index\[1\] is 3, the reference is 2"):
        check("index", np.array([1, 3]), exact)
    with pytest.raises(VerificationError, match=r"shape \[1\], the reference has \[2\]"):
        check("index", np.array([1]), exact)


def test_the_bound_grows_with_what_it_is_made_of():
    assert bound(f32, 10, 1.0) < bound(f32, 1000, 1.0) < bound(f16, 1000, 1.0) < bound(bf16, 1000, 1.0)
    assert bound(bf16, 10, 1.0, value=0.0) < bound(bf16, 10, 1.0)
    assert bound(f32, 10, 1.0, narrowing=0.5) > 0.5
    assert bound(f16, 0, 0.0) == 2.0**-24  # the smallest f16, which half-way values round to
    np.testing.assert_array_equal(bound(f32, 3, np.zeros((2, 2))), np.full((2, 2), np.finfo(np.float32).tiny))
