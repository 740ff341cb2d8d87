"""Stage `keep`: a later loop over a row reads what an earlier one has computed; the meaning stays."""

from __future__ import annotations

import numpy as np
import pytest
from programs import traced

from tilewright.design.design import Design
from tilewright.design.twins import twins
from tilewright.language import Tensor, exp, f32, kernel, parallel, tiles, zeros
from tilewright.language.interpreter import run
from tilewright.language.printer import show
from tilewright.language.verifier import check
from tilewright.lower.stages import lower

SOFTMAX = traced("softmax")
TILES = {"tile.m": 1, "tile.d": 8, "tile.d1": 8, "tile.d2": 8}


def test_golden_row_in_scratch():
    text = show(check(lower(SOFTMAX, Design.of({**TILES, "keep.exp1": True})))).splitlines()
    assert "    alloc exp0_kept: f32[m, D] @place=scratch" in text
    assert text[text.index("      exp0 = exp sub0 : f32[m, d1]") + 1] == "      store exp0_kept[m, d1] = exp0"
    start = text.index("    for d2 in D step 8 {")
    assert text[start + 1 : start + 4] == [
        "      exp1 = load exp0_kept[m, d2] : f32[m, d2]",
        "      mul0 = mul exp1 div0 : f32[m, d2]",
        "      store y[m, d2] = mul0",
    ]


@pytest.mark.parametrize("columns", [1, 8, 13])
def test_the_meaning_stays(columns):
    x = np.random.default_rng(0).standard_normal((3, columns), np.float32)
    results = []
    for more in ({}, {"keep.exp1": True}, {"keep.x1": True, "keep.sub1": True}):
        y = np.full_like(x, np.nan)
        run(lower(SOFTMAX, Design.of({**TILES, **more})), {"x": x, "y": y}, {})
        results.append(y)
    np.testing.assert_array_equal(results[0], results[1])
    np.testing.assert_array_equal(results[0], results[2])


@kernel
def twice(x: Tensor["M", "D"], y: Tensor["M", "D"]):
    for i in parallel("M"):
        total = zeros(i, dtype=f32)
        for d in tiles("D"):
            total += (exp(x[i, d]) * (x[i, d] + 1.0)).sum(d)
        for d in tiles("D"):
            y[i, d] = exp(x[i, d]) - (x[i, d] + 1.0) * total


def test_values_that_do_not_need_each_other_are_kept_together():
    program = twice.trace("f32")
    known = [name for name, twin in twins(program).items() if twin.is_computed]
    assert len(known) == 2
    x = np.random.default_rng(0).standard_normal((3, 13), np.float32)
    results = []
    for kept in ({}, {f"keep.{name}": True for name in known}):
        y = np.full_like(x, np.nan)
        run(check(lower(program, Design.of({"tile.d": 8, "tile.d1": 8, **kept}))), {"x": x, "y": y}, {})
        results.append(y)
    np.testing.assert_array_equal(*results)


def test_twins_are_equal_values_of_things_that_do_not_change():
    assert {n: t.earlier.name for n, t in twins(SOFTMAX).items() if n.startswith(("exp", "sub"))} == {
        "sub1": "sub0",
        "exp1": "exp0",
    }
    assert twins(traced("matmul", activation=None)) == {}
    assert twins(traced("scale_add")) == {}


@kernel
def changing(x: Tensor["M", "D"], y: Tensor["M", "D"], z: Tensor["M", "D"]):
    for i in parallel("M"):
        total = zeros(i, dtype=f32)
        for d in tiles("D"):
            total += exp(x[i, d] - total).sum(d)
        for d in tiles("D"):
            y[i, d] = exp(x[i, d] - total)
        for d in tiles("D"):
            z[i, d] = exp(x[i, d] - total)


def test_what_a_loop_changes_and_what_lies_behind_a_store_is_no_twin():
    """The first loop's exponentials are of another total; a store may have changed x before the third."""
    kernel_ = changing.trace("f32")
    assert not any(name.startswith("exp") for name in twins(kernel_))
