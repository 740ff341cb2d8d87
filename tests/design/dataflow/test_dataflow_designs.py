"""Designs for dataflow machines: which changes there are, what each leaves open, and what is well-formed."""

from __future__ import annotations

import random

import pytest

from tilewright import operators
from tilewright.design.dataflow.mutations import Carry, Cut, Deal, GiveUnits, Retile, SetDepth, SetUnits
from tilewright.design.default import Facts, default_design
from tilewright.design.design import Design
from tilewright.design.legality import legal
from tilewright.design.mutation import Illegal
from tilewright.design.mutations import steps, suggested
from tilewright.design.space import drawn_grid, random_design
from tilewright.machines import Machine

KERNEL = operators.matmul.kernel.trace("bf16")
SIZES = {"M": 64, "N": 96, "K": 40}
FACTS = Facts(SIZES, {"a": (1,), "b": (1,), "c": (1,)}, Machine.named("sn40l"))
PLACED = Design.of({
    "tile.m": 16, "tile.n": 32, "tile.k": 8, "par.m": 32, "buffer.dot0": True, "units.dot0": 8, "units.a": 4,
})  # fmt: skip


def test_the_default_leaves_all_to_the_placement():
    assert default_design(KERNEL, FACTS) == Design()
    assert legal(KERNEL, Design(), FACTS) == []


@pytest.mark.parametrize(
    ("mutation", "opened"),
    [
        (Retile("m", 32), ("par", "units")),
        (Deal("m", 16), ("units",)),
        (Cut("a0", True), ("units",)),
        (Cut("dot0", False), ("units",)),
        (Carry("acc0", "buffer"), ("units",)),
        (SetDepth("a0", 3), ()),
        (SetUnits("a", 5), ()),
        (GiveUnits("dot0", "a", 4), ()),
    ],
    ids=str,
)
def test_a_change_leaves_open_what_follows_from_it(mutation, opened):
    changed = mutation.apply(PLACED)
    assert isinstance(changed, Design) and changed != PLACED
    lost = {n.partition(".")[0] for n, _ in PLACED.decisions} - {n.partition(".")[0] for n, _ in changed.decisions}
    assert lost - {"buffer"} == set(opened)
    assert isinstance(mutation.apply(changed), Illegal) or isinstance(mutation, GiveUnits)


def test_units_that_are_given_are_taken_from_someone():
    given = GiveUnits("dot0", "a", 4).apply(PLACED)
    assert isinstance(given, Design)
    assert (given.number("units.dot0"), given.number("units.a")) == (4, 8)
    assert isinstance(GiveUnits("a", "dot0", 4).apply(PLACED), Illegal)  # one is always left
    assert isinstance(GiveUnits("a", "a", 1).apply(PLACED), Illegal)


def test_changes_that_make_nothing_are_refused():
    for change in (Retile("m", 0), SetDepth("a0", 0), SetUnits("a", 0)):
        assert isinstance(change.apply(PLACED), Illegal)


def test_every_kind_of_change_is_suggested_and_leads_to_a_well_formed_design():
    kinds = {type(m).__name__ for m in suggested(KERNEL, PLACED, FACTS)}
    assert kinds == {"Retile", "Deal", "Cut", "Carry", "SetDepth", "GiveUnits", "SetUnits"}
    found = [design for _, design in steps(KERNEL, PLACED, FACTS)]
    assert len(found) == len(set(found)) > 20
    assert not any(legal(KERNEL, design, FACTS) for design in found)


def test_draws_are_well_formed_and_many():
    drawn = [random_design(KERNEL, FACTS, random.Random(seed)) for seed in range(30)]
    assert len(set(drawn)) > 20
    assert not any(legal(KERNEL, design, FACTS) for design in drawn)
    tiles = {design.number("tile.m", 0) for design in drawn_grid(KERNEL, FACTS)}
    assert tiles == {16, 32, 64}


@pytest.mark.parametrize(
    ("decisions", "message"),
    [
        ({"tile.q": 4}, "matmul has no axis with tiles q; it has m, n, k"),
        ({"par.k": 4}, "no parallel axis k"),
        ({"tile.m": 0}, "takes a whole number, 1 or more"),
        ({"units.a": True}, "takes a whole number"),
        ({"carry.acc0": "both"}, "takes owner or buffer"),
        ({"buffer.dot0": 2}, "takes true"),
        ({"stage.a0": 2}, "did you mean stages.NAME"),
        ({"tile.m": 16, "par.m": 24}, "not whole tiles of tile.m=16"),
    ],
)
def test_what_nobody_would_read_is_refused_with_the_fix(decisions, message):
    assert message in str(legal(KERNEL, Design.of(decisions), FACTS)[0])
