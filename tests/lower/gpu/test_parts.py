"""Ranges dealt to blocks and warps mean what was written: the interpreter gives both programs the same results."""

import random
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.append(str(Path(__file__).parents[2] / "gpu"))

from operator_cases import draw

from tilewright.design.default import Facts
from tilewright.design.design import Design
from tilewright.language import ir
from tilewright.language.dtypes import dtype
from tilewright.language.interpreter import bind_sizes, run
from tilewright.language.parser import parse
from tilewright.language.printer import show
from tilewright.language.verifier import check, verify
from tilewright.lower.gpu.simt import lower_simt
from tilewright.machines.machine import Machine
from tilewright.runtime import tolerance

H200 = Machine.named("h200")
SUMS = """kernel sums(x: f32[M, N], w: f32[M], y: f32[M]) {
  for m in M parallel {
    acc = full 0.0 : f32[m]
    scale = load w[m] : f32[m]
    for n in N {
      v = load x[m, n] : f32[m, n]
      u = mul v scale : f32[m, n]
      s = reduce sum u over n : f32[m]
      t = add acc s : f32[m]
      acc := t
    }
    store y[m] = acc
  }
}"""


def lowered(kernel, decisions, sizes):
    unit = {p.name: (len(p.dims) - 1,) for p in kernel.params if p.dims}
    return lower_simt(kernel, Design.of(decisions), Facts(sizes, unit, H200))


def attention(name, seed, decisions):
    """(scheduled program, operands, call) of drawn attention."""
    call = draw(name, seed, ("f32", "bf16")[seed % 2])
    tensors = dict(call.inputs)
    for n, (shape, kind) in call.outputs.items():
        tensors[n] = np.full(shape, np.nan, kind)
    kernel = call.operator.kernel.trace({n: dtype(x.dtype) for n, x in tensors.items()}, options=call.options)
    return lowered(kernel, decisions, bind_sizes(kernel, tensors)), tensors, call


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize(("name", "axis"), [("attention", "t"), ("paged_attention", "l")])
def test_attention_in_parts_is_attention(name, axis, seed):
    dice = random.Random(seed)
    warps, step = dice.choice([(1, 4), (2, 4), (4, 2), (4, 16)])
    decisions = {"tile.g": dice.choice([1, 4]), "tile.s": dice.choice([1, 4]), "warps": warps}
    decisions |= {"tile.t" if axis == "t" else "tile.p": step, "stages": dice.choice([1, 2])}
    decisions[f"part.{axis}"] = warps * (step if axis == "t" else 1) * dice.choice([1, 2, 8])
    program, tensors, call = attention(name, seed, decisions)
    assert verify(program) == []
    assert parse(show(program)) == program
    run(program, tensors, call.scalars, seed=seed)
    for output, exact in call.expected().items():
        tolerance.check(output, tensors[output], exact)


def test_blocks_and_warps_meet_at_barriers_of_their_own():
    program, _, _ = attention("attention", 1, {"tile.g": 4, "tile.t": 4, "part.t": 32, "warps": 2, "stages": 2})
    loops = {ir.note(s.notes, "bind"): s for s in ir.walk(program.body) if isinstance(s, ir.Loop)}
    assert loops["grid"].axes[0].step == 32 and loops["warp"].axes[0].step == 16
    assert {ir.note(loops[b].notes, "how") for b in ("grid", "warp")} == {"two_pass"}
    places = {s.name: ir.note(s.notes, "place") for s in ir.walk(program.body) if isinstance(s, ir.Alloc)}
    syncs = {ir.note(s.notes, "scope"): s for s in ir.walk(program.body) if isinstance(s, ir.Sync)}
    assert {places[b] for b in ir.note(syncs["block"].notes, "guards")} == {"shared"}
    assert {places[b] for b in ir.note(syncs["grid"].notes, "guards")} == {"memory"}
    inner = loops[None]
    loads = [s for s in inner.body[:2] if isinstance(s, ir.Let)]
    assert [s.expr.ref.buffer for s in loads] == ["k", "v"]  # nothing of a step stands before its loads
    assert all(ir.note(s.notes, "prefetch") == 2 for s in loads)


def test_tiles_that_a_warp_reads_are_made_by_the_warp():
    program, _, _ = attention("attention", 1, {"tile.g": 4, "tile.t": 4, "part.t": 32, "warps": 2})
    (nest,) = program.body
    assert not [
        s for s in nest.body if isinstance(s, ir.Let) and isinstance(s.expr, ir.Load) and s.expr.ref.buffer == "q"
    ]
    warp = next(s for s in ir.walk(program.body) if isinstance(s, ir.Loop) and ir.note(s.notes, "bind") == "warp")
    assert next(s.expr.ref.buffer for s in warp.body if isinstance(getattr(s, "expr", None), ir.Load)) == "q"


@pytest.mark.parametrize("size", [1, 63, 64, 200])
@pytest.mark.parametrize("part", [16, 64])
def test_a_sum_that_a_user_wrote_is_dealt_out_too(part, size):
    kernel = check(parse(SUMS))
    program = lowered(kernel, {"tile.m": 2, "tile.n": 4, "part.n": part, "warps": 4}, {"M": 3, "N": size})
    assert verify(program) == []
    random_ = np.random.default_rng(size)
    x, w, y = (
        random_.standard_normal((3, size), np.float32),
        random_.standard_normal(3, np.float32),
        np.empty(3, np.float32),
    )
    run(program, {"x": x, "w": w, "y": y})
    np.testing.assert_allclose(y, (x * w[:, None]).sum(1), rtol=1e-5, atol=1e-5)
