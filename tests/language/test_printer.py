"""The printed form is part of the language: small golden listings."""

from __future__ import annotations

import tile_programs as programs

from tilewright.language import ir
from tilewright.language.dtypes import f32
from tilewright.language.printer import head, show

MATMUL = """\
kernel matmul(a: bf16[M, K], b: bf16[N, K], c: bf16[M, N]) {
  for m in M, n in N parallel {
    acc0 = full 0.0 : f32[m, n]
    for k in K {
      a0 = load a[m, k] : bf16[m, k]
      b0 = load b[n, k] : bf16[n, k]
      dot0 = dot a0 b0 over k : f32[m, n]
      add0 = add acc0 dot0 : f32[m, n]
      acc0 := add0
    }
    store c[m, n] = acc0
  }
}
"""


def test_matmul():
    assert show(programs.EXAMPLES["matmul"]) == MATMUL


def test_transpose_permutes():
    assert "t0 = permute x0 : f8e4m3[n, m]" in show(programs.EXAMPLES["transpose"])


def test_head_is_the_first_line_alone():
    loop = programs.EXAMPLES["matmul"].body[0]
    assert head(loop) == "for m in M, n in N parallel"
    assert head(loop.body[-1]) == "store c[m, n] = acc0"


def test_notes():
    notes = (("a", "wgmma"), ("b", ("x", 2, True)), ("c", "two words"), ("d", False), ("e", "true"), ("f", ()))
    alloc = ir.Alloc("p", f32, ("M", 2), notes)
    assert show(alloc) == 'alloc p: f32[M, 2] @a=wgmma @b=(x,2,true) @c="two words" @d=false @e="true" @f=()'


def test_axes():
    axes = (ir.Axis("i", "M", 64, 0, "n"), ir.Axis("b", "B", each=True))
    assert show(ir.Loop(axes, (), True)) == "for i in M from 0 to n step 64, each b in B parallel {\n}"
