"""What statements see: axes of the loops around them, values of blocks around them, what values depend on."""

from __future__ import annotations

from tilewright.language import ir
from tilewright.language.parser import parse
from tilewright.language.scopes import scopes

TEXT = """
kernel k(x: f32[M, N], p: i64[M], s: f32) {
  zero = full 0.0 : f32[]
  for i0 in M step 8 parallel {
    alloc buf: f32[i0]
    for each i1 in i0 {
      at = load p[i1] : i64[]
      row = load x[at, N] : f32[N]
      sum = reduce sum row over N : f32[]
      zero := sum
      when first(i1) {
        store x[i1, N] = row
      }
    }
  }
}
"""


def test_blocks_see_what_is_around_them():
    scope = next(s for stmt, s in scopes(parse(TEXT)) if isinstance(stmt, ir.Store))
    assert set(scope.values) == {"zero", "at", "row", "sum"}
    assert set(scope.axes) == {"i0", "i1"}
    assert set(scope.buffers) == {"x", "p", "buf"}
    assert scope.buffers["buf"].depth == 1
    assert scope.values["row"].depth == 2
    assert scope.once == {"i1"}


def test_what_is_inside_ends_with_its_block():
    after = [set(scope.values) for stmt, scope in scopes(parse(TEXT)) if isinstance(stmt, ir.Loop)]
    assert after[0] == {"zero"}
    body = TEXT.rstrip().removesuffix("}") + "  end = full 1.0 : f32[]\n}"
    last = next(scope for stmt, scope in scopes(parse(body)) if isinstance(stmt, ir.Let) and stmt.name == "end")
    assert set(last.values) - {"end"} == {"zero"}
    assert not last.axes


def test_dependence_flows_through_values():
    scope = next(s for stmt, s in scopes(parse(TEXT)) if isinstance(stmt, ir.When))
    assert scope.values["sum"].deps == {"i0", "i1", "M"}
    assert scope.values["zero"].deps >= {"i0", "i1"}
    assert scope.deps(("N", 3)) == frozenset()


def test_lineage_and_ref_axes():
    scope = next(s for stmt, s in scopes(parse(TEXT)) if isinstance(stmt, ir.Store))
    assert scope.lineage("i1") == ("i1", "i0", "M")
    assert scope.ref_axes(ir.Ref("x", ("i0", "N"))) == ("i0", "N")
    assert scope.ref_axes(ir.Ref("x", ("i1", "row"))) == ("N",)
    assert scope.scalar_dtype("s") is not None
    assert scope.scalar_dtype("x") is None
