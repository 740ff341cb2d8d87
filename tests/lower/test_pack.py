"""Stage `pack`: operands of dots are copied in the order in which tiles read them; the meaning stays."""

from __future__ import annotations

import pytest
from cases import Case, Memory
from programs import traced

from tilewright import operators
from tilewright.design.design import Design
from tilewright.language import ir
from tilewright.language.dtypes import dtype
from tilewright.language.interpreter import run
from tilewright.language.printer import show
from tilewright.language.verifier import check
from tilewright.lower.pack import operand_axes, pack
from tilewright.lower.stages import lower
from tilewright.lower.tile import tile
from tilewright.runtime import tolerance

MATMUL = traced("matmul", activation=None)
TILED = {"tile.m": 8, "tile.n": 16, "lanes": ("n",)}


def packed(program, decisions):
    design = Design.of(decisions)
    return pack(tile(program, design), design)


def test_golden():
    text = show(packed(MATMUL, {**TILED, "pack.b": "panel"})).splitlines()
    assert [line for line in text if "a0" not in line and "dot0" not in line and "acc0" not in line][1:9] == [
        "  alloc b_packed: f32[N, K] @layout=panel @place=panel",
        "  for n_ in N step 16, k_ in K step 16 parallel @bind=thread {",
        "    copy b_packed[n_, k_] <- b[n_, k_] @lanes=n_",
        "  }",
        "  sync b_packed barrier @scope=team",
        "  for m in M step 8, n in N step 16 parallel @bind=thread {",
        "    for k in K step 1 {",
        "      b0 = load b_packed[n, k] : f32[n, k]",
    ]


def test_a_wide_panel_is_filled_in_parts():
    text = show(packed(MATMUL, {**TILED, "tile.n": 32, "pack.b": "panel"}))
    assert "for n_r in n_ step 16 parallel {" in text
    assert "copy b_packed[n_r, k_] <- b[n_r, k_] @lanes=n_r" in text


def test_both_operands_and_an_axis_of_single_positions():
    program = traced("batched_matmul")
    text = show(check(packed(program, {**TILED, "pack.a": "panel", "pack.b": "panel"})))
    assert text.count("barrier @scope=team") == 2
    assert "for each ib_ in B, m_ in M step 8, k_ in K step 16 parallel" in text


def test_elements_are_widened_while_they_are_packed():
    program = traced("matmul", "bf16", activation=None)
    widened = {**TILED, "pack.a": "panel", "pack.b": "panel", "unpack.a": True, "unpack.b": True}
    scheduled = check(packed(program, widened))
    allocs = [s for s in ir.walk(scheduled.body) if isinstance(s, ir.Alloc)]
    assert {a.dtype.name for a in allocs} == {"f32"}
    assert "b0 = load b_packed[n, k] : f32[n, k]" in show(scheduled)


def test_operand_axes():
    loads = {s.name: s for s in ir.walk(MATMUL.body) if isinstance(s, ir.Let) and isinstance(s.expr, ir.Load)}
    assert operand_axes(MATMUL, loads["a0"]) == ("m", "k")
    assert operand_axes(MATMUL, loads["b0"]) == ("n", "k")


@pytest.mark.parametrize("m, n, k", [(0, 3, 5), (1, 1, 1), (7, 33, 5), (9, 70, 0), (16, 64, 40)])
@pytest.mark.parametrize("element", ["f32", "bf16"])
def test_the_meaning_stays(m, n, k, element):
    memory, kind = Memory(m + n + k), dtype(element).numpy
    program = traced("matmul", element, activation=None)
    inputs = {"a": memory.normal((m, k), kind), "b": memory.normal((n, k), kind)}
    expected = Case(operators.matmul, inputs, {}).expected()["c"]
    for layout in ("panel",) if element == "f32" else ("panel", "pair"):
        atoms = {"atom.dot0": "bf16x2", "tile.k": 2} if layout == "pair" else {}
        c = memory.poisoned((m, n), kind)
        scheduled = lower(program, Design.of({**TILED, **atoms, "pack.a": layout, "pack.b": layout}))
        run(check(scheduled), {**inputs, "c": c}, seed=1)
        tolerance.check("c", c, expected)
