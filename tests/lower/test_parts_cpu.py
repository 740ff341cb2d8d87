"""Stage `parts`: a loop in order is dealt to threads; the program says how parts are joined, and means the same."""

from __future__ import annotations

import pytest
from cases import Case, Memory
from programs import traced

from tilewright import operators
from tilewright.design.design import Design
from tilewright.language.interpreter import run
from tilewright.language.printer import show
from tilewright.language.verifier import check
from tilewright.lower.stages import lower
from tilewright.runtime import tolerance

MATMUL = traced("matmul", activation=None)
ROWS = {"tile.m": 1, "tile.n": 4, "tile.k": 32, "lanes": ("k", "n")}


def test_golden():
    text = show(check(lower(MATMUL, Design.of({**ROWS, "part.k": 64}))))
    assert (
        text.split("\n", 1)[1]
        == """\
  for m in M step 1, n in N step 4 parallel @bind=thread {
    acc0 = full 0.0 : f32[m, n]
    for ks in K step 64 @bind=thread @how=two_pass {
      acc0_part = full 0.0 : f32[m, n]
      for k in ks step 32 {
        a0 = load a[m, k] : f32[m, k]
        b0 = load b[n, k] : f32[n, k]
        dot0 = dot a0 b0 over k : f32[m, n]
        add0 = add acc0_part dot0 : f32[m, n]
        acc0_part := add0
      }
      alloc acc0_parts: f32[m, n] @place=memory
      store acc0_parts[m, n] = acc0_part
      sync parts barrier @guards=(acc0_parts) @scope=team @stage=ks
      acc0_other = load acc0_parts[m, n] : f32[m, n]
      acc0_total = add acc0 acc0_other : f32[m, n]
      acc0 := acc0_total
    }
    store c[m, n] = acc0
  }
}
"""
    )


def test_what_lies_across_lanes_is_stored_along_rows():
    text = show(check(lower(MATMUL, Design.of({"tile.m": 16, "tile.n": 4, "lanes": ("m",), "part.k": 64}))))
    assert "alloc acc0_parts: f32[n, m] @place=memory" in text
    assert "acc0_other = permute acc0_other_rows : f32[m, n]" in text


@pytest.mark.parametrize("terms", [0, 1, 63, 64, 200])
def test_the_meaning_stays(terms):
    memory = Memory(terms)
    case = Case(
        operators.matmul, {"a": memory.normal((3, terms)), "b": memory.normal((7, terms))},
        {"c": ((3, 7), "float32")}, options={"activation": None},
    )  # fmt: skip
    tensors = {**case.inputs, "c": memory.poisoned((3, 7), "float32")}
    run(check(lower(MATMUL, Design.of({**ROWS, "part.k": 64}))), tensors, seed=terms)
    tolerance.check("c", tensors["c"], case.expected()["c"])
