"""Decision 0007: the program that it shows is what the lowering writes, and computes what it says."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from tilewright.design.default import Facts
from tilewright.design.design import Design
from tilewright.language import ir
from tilewright.language.interpreter import run
from tilewright.language.parser import parse
from tilewright.language.verifier import verify
from tilewright.lower.gpu.simt import lower_simt
from tilewright.machines.machine import Machine

TEXT = (Path(__file__).parents[2] / "docs" / "decisions" / "0007-parts-of-a-range.md").read_text("utf-8")
(LISTING,) = re.findall(r"^```tile\n(.*?)^```$", TEXT, re.M | re.S)
AUTHORED = """kernel sums(x: f32[M, N], y: f32[M]) {
  for m in M parallel {
    acc = full 0.0 : f32[m]
    for n in N {
      v = load x[m, n] : f32[m, n]
      s = reduce sum v over n : f32[m]
      t = add acc s : f32[m]
      acc := t
    }
    store y[m] = acc
  }
}"""


def kinds(kernel: ir.Kernel) -> list[tuple[str, ir.Notes]]:
    """Statements in order with what is noted of them, whatever names they give, caches aside."""
    return [
        (type(s).__name__, tuple(n for n in getattr(s, "notes", ()) if n[0] in ("bind", "how", "place", "scope")))
        for s in ir.walk(kernel.body)
    ]


def test_the_listing_is_what_the_lowering_writes():
    design = Design.of({"tile.m": 1, "tile.n": 128, "part.n": 512, "warps": 2})
    lowered = lower_simt(parse(AUTHORED), design, Facts({"M": 3, "N": 1000}, {"x": (1,)}, Machine.named("h200")))
    shown = parse(LISTING)
    assert verify(shown) == []
    assert kinds(shown) == kinds(lowered)
    steps = [[a.step for s in ir.walk(k.body) if isinstance(s, ir.Loop) for a in s.axes] for k in (shown, lowered)]
    assert steps[0] == steps[1]


@pytest.mark.parametrize("size", [0, 1, 511, 512, 1300])
def test_the_listing_sums_rows(size):
    x, y = np.random.default_rng(size).standard_normal((3, size), np.float32), np.full(3, np.nan, np.float32)
    run(parse(LISTING), {"x": x, "y": y})
    np.testing.assert_allclose(y, x.sum(1, dtype=np.float64), rtol=1e-5, atol=1e-4)
