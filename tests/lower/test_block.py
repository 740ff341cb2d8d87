"""Stage `block`: tiles are visited block by block, unfinished ones wait in scratch; the meaning stays."""

from __future__ import annotations

import pytest
from cases import Case, Memory
from programs import traced

from tilewright import operators
from tilewright.design.design import Design
from tilewright.language.interpreter import run
from tilewright.language.printer import show
from tilewright.language.verifier import check
from tilewright.lower.stages import STAGES, lower
from tilewright.runtime import tolerance

MATMUL = traced("matmul", activation=None)
BLOCKS = {"tile.m": 4, "tile.n": 8, "block.m": 8, "block.n": 16, "inner": ("n", "m")}
CUT = {**BLOCKS, "block.k": 6}


def outline(decisions):
    """The program without what the tiles compute."""
    text = show(check(lower(MATMUL, Design.of(decisions)))).splitlines()[1:]
    return [line for line in text if not any(word in line for word in ("load a", "load b", "permute", "dot", "add"))]


def test_stages_in_order():
    assert [name for name, _ in STAGES] == ["tile", "keep", "parts", "pack", "block", "local"]


def test_golden_blocks_of_tiles():
    assert outline(BLOCKS)[:5] == [
        "  for m0 in M step 8, n0 in N step 16 parallel @bind=thread {",
        "    for n in n0 step 8, m in m0 step 4 parallel {",
        "      acc0 = full 0.0 : f32[m, n]",
        "      for k in K step 1 {",
        "      }",
    ]


def test_golden_blocks_of_the_sum():
    assert outline(CUT)[1:] == [
        "    alloc part_acc0: f32[m0, n0] @place=scratch",
        "    for k0 in K step 6 {",
        "      for n in n0 step 8, m in m0 step 4 parallel {",
        "        acc0 = full 0.0 : f32[m, n]",
        "        when not_first(k0) {",
        "          saved_acc0 = load part_acc0[m, n] : f32[m, n]",
        "          acc0 := saved_acc0",
        "        }",
        "        for k in k0 step 1 {",
        "        }",
        "        when last(k0) {",
        "          store c[m, n] = acc0",
        "        }",
        "        when not_last(k0) {",
        "          store part_acc0[m, n] = acc0",
        "        }",
        "      }",
        "    }",
        "  }",
        "}",
    ]


def test_an_axis_that_is_not_blocked_stays_outside():
    assert outline({"block.m": 4})[0] == "  for m0 in M step 4, n in N step 1 parallel @bind=thread {"


@pytest.mark.parametrize("m, n, k", [(0, 3, 5), (1, 1, 1), (7, 33, 5), (9, 17, 6), (16, 64, 13), (5, 9, 40)])
def test_the_meaning_stays(m, n, k):
    memory = Memory(m + n + k)
    inputs = {"a": memory.normal((m, k)), "b": memory.normal((n, k)), "bias": memory.normal((n,))}
    names = ("a", "b", "bias", "c")
    program = operators.matmul.kernel.trace(dict.fromkeys(names, "f32"), options={"activation": "silu"})
    expected = Case(operators.matmul, inputs, {}, options={"activation": "silu"}).expected()["c"]
    for decisions in (BLOCKS, CUT, {**CUT, "block.m": 4, "block.n": 8}, {"block.n": 3, "block.k": 2, "inner": ("n",)}):
        c = memory.poisoned((m, n), "float32")
        run(check(lower(program, Design.of(decisions))), {**inputs, "c": c}, seed=2)
        tolerance.check("c", c, expected)


def test_two_sums_wait_in_two_buffers():
    program = traced("gate_up")
    text = show(check(lower(program, Design.of(CUT))))
    assert text.count("@place=scratch") == 2
