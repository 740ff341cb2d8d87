"""Operands that are packed first: when, what legality sees of them, and what changes it back."""

from __future__ import annotations

import pytest

from tilewright import operators
from tilewright.design.default import Facts, default_design
from tilewright.design.design import Design
from tilewright.design.gpu.mutations import PackRows
from tilewright.design.gpu.packing import as_packed, packed, with_packs, without_packs
from tilewright.design.legality import legal
from tilewright.design.mutation import Illegal
from tilewright.machines.machine import Machine

H200 = Machine.named("h200")
MATMUL = operators.matmul.kernel.trace("bf16", options={"activation": None})
ROWS = dict.fromkeys(("a", "b", "c"), (1,))


def facts(m: int, n: int, k: int, aligned: frozenset[str]) -> Facts:
    return Facts({"M": m, "N": n, "K": k}, ROWS, H200, aligned, frozenset({"M", "N", "K"}))


ODD = facts(1000, 777, 333, frozenset())


def test_the_default_packs_what_the_copy_engine_cannot_read():
    design = default_design(MATMUL, ODD)
    assert packed(design) == ("a", "b")
    assert design.get("atom.dot0") == "wgmma"
    assert not legal(MATMUL, design, ODD)


def test_aligned_operands_stay_where_they_are():
    whole = facts(1024, 1024, 1024, frozenset(ROWS))
    assert packed(default_design(MATMUL, whole)) == ()
    half = facts(1000, 777, 1024, frozenset({"a"}))
    assert packed(default_design(MATMUL, half)) == ("b",)


def test_one_row_is_not_worth_a_copy_of_the_weights():
    design = default_design(MATMUL, facts(1, 4097, 4095, frozenset()))
    assert packed(design) == ()
    assert design.get("atom.dot0") != "wgmma"


def test_without_its_packs_the_design_is_illegal_and_says_so():
    design = default_design(MATMUL, ODD)
    reasons = legal(MATMUL, without_packs(design), ODD)
    assert any("engine.a" in r.message and "16 bytes" in r.message for r in reasons)


@pytest.mark.parametrize(
    ("decisions", "words"),
    [
        ({"pack.c": "row"}, "reads no such tensor"),
        ({"pack.a": "panel"}, "rows are the only order"),
        ({"pack.a": "row", "atom.dot0": "fma"}, "only wgmma"),
    ],
)
def test_packs_that_mean_nothing_are_refused(decisions, words):
    design = Design.of({**dict(default_design(MATMUL, ODD).decisions), **decisions})
    assert any(words in r.message for r in legal(MATMUL, design, ODD))


def test_facts_of_a_packed_operand():
    seen = as_packed(MATMUL, ODD, ("a",))
    assert seen.aligned == {"a"}
    assert seen.unit["a"] == (1,)
    assert as_packed(MATMUL, ODD, ()) is ODD


def test_packing_is_an_edge_of_the_graph_and_back():
    design = without_packs(default_design(MATMUL, ODD))
    there = PackRows("a", True).apply(design)
    assert there == with_packs(design, ("a",))
    assert PackRows("a", False).apply(there) == design
    assert isinstance(PackRows("a", False).apply(design), Illegal)
