"""Stage `tile`: steps, order and notes; the meaning stays, for sizes that no tile divides."""

from __future__ import annotations

import pytest
from cases import Case, Memory
from programs import traced

from tilewright import operators
from tilewright.design.design import Design
from tilewright.language.interpreter import run
from tilewright.language.printer import show
from tilewright.language.verifier import check
from tilewright.lower.tile import tile
from tilewright.runtime import tolerance

MATMUL = traced("matmul", activation=None)
FULL = {"tile.m": 8, "tile.n": 32, "lanes": ("n",), "order": ("n", "m"), "unroll.k": 4, "atom.dot0": "fma"}


def test_golden():
    text = show(tile(MATMUL, Design.of({**FULL, "nontemporal.c": True})))
    assert (
        text.split("\n", 1)[1]
        == """\
  for n in N step 32, m in M step 8 parallel @bind=thread {
    acc0 = full 0.0 : f32[m, n]
    for k in K step 1 @unroll=4 {
      a0 = load a[m, k] : f32[m, k]
      b0 = load b[n, k] : f32[n, k]
      dot0 = dot a0 b0 over k : f32[m, n] @atom=fma
      add0 = add acc0 dot0 : f32[m, n]
      acc0 := add0
    }
    store c[m, n] = acc0 @nontemporal=true
  }
}
"""
    )


def test_no_decisions_are_tiles_of_one_point():
    text = show(tile(MATMUL, Design.of({})))
    assert "for m in M step 1, n in N step 1 parallel @bind=thread {" in text
    assert "lanes" not in text


def test_positions_of_a_tile_may_lie_apart():
    text = show(tile(MATMUL, Design.of({"tile.n": 4, "apart.n": 16})))
    assert "for m in M step 1, n in N step 4 apart 16 parallel @bind=thread {" in text


def test_single_positions_have_no_step():
    text = show(tile(traced("embedding"), Design.of({"tile.d": 16})))
    assert "for each n in N, d in D step 16 parallel" in text


def test_the_kernel_names_its_design_and_its_lanes():
    design = Design.of(FULL)
    notes = dict(tile(MATMUL, design).notes)
    assert notes == {"design": design.hash, "lanes": ("n",)}


def test_a_load_that_is_fetched_ahead_along_its_loop():
    text = show(tile(MATMUL, Design.of({"ahead.b0": 16})))
    assert "b0 = load b[n, k] : f32[n, k] @ahead=16" in text


def test_a_load_that_is_fetched_ahead():
    text = show(tile(traced("rmsnorm"), Design.of({"prefetch.x1": 1})))
    assert text.count("@prefetch=1") == 1


@pytest.mark.parametrize("m, n, k", [(0, 3, 5), (1, 1, 1), (7, 33, 5), (13, 70, 0), (16, 64, 9)])
def test_the_meaning_stays(m, n, k):
    memory = Memory(m + n + k)
    inputs = {"a": memory.normal((m, k)), "b": memory.normal((n, k))}
    expected = Case(operators.matmul, inputs, {}).expected()["c"]
    for decisions in ({}, FULL, {"tile.m": 3, "tile.n": 5, "tile.k": 2}):
        c = memory.poisoned((m, n), "float32")
        run(check(tile(MATMUL, Design.of(decisions))), {**inputs, "c": c}, seed=1)
        tolerance.check("c", c, expected)
