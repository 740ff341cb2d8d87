"""A small dataflow array that tests of its parts share: round numbers, so that counts can be made by hand."""

from __future__ import annotations

from dataclasses import replace

from tilewright.design.design import Design
from tilewright.language import ir
from tilewright.language.parser import parse
from tilewright.lower.dataflow.stages import lower_dataflow
from tilewright.machines.dataflow import DataflowArray

ARRAY = DataflowArray(
    "small", compute_units=16, memory_units=8, unit_bytes=1024, lanes=4, simd_stages=2, port_bytes=16,
    clock_hz=1e9, bandwidth=8e9, memory_bytes=1 << 20,
)  # fmt: skip
"""8 multiplications with addition a cycle and unit; main memory moves 8 bytes a cycle and answers at once."""

SLOW = replace(ARRAY, latency=100)

SCALED = """kernel scaled(x: f32[M, N], y: f32[M, N]) {
  for m in M, n in N parallel {
    a = load x[m, n] : f32[m, n]
    e = exp a : f32[m, n]
    store y[m, n] = e
  }
}"""

SUMMED = """kernel summed(x: f32[M, N], y: f32[M]) {
  for m in M parallel {
    acc = full 0.0 : f32[m]
    for n in N {
      a = load x[m, n] : f32[m, n]
      s = reduce sum a over n : f32[m]
      t = add acc s : f32[m]
      acc := t
    }
    store y[m] = acc
  }
}"""


def lowered(text: str, **decisions: int) -> ir.Kernel:
    """A program under the decisions; `tile__m=4` is tile.m=4."""
    return lower_dataflow(parse(text), Design.of({n.replace("__", "."): v for n, v in decisions.items()}), "small")
