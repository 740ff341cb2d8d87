"""Designs of chained products: defaults that are legal, rules that give reasons, mutations that keep the meaning."""

import random
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.append(str(Path(__file__).parents[2] / "lower" / "gpu"))
from chains import BASE, DESIGNS, PROGRAMS, attention, design, facts, inputs, results

from tilewright.design.default import default_design
from tilewright.design.design import Design
from tilewright.design.gpu import chain_mutations
from tilewright.design.gpu.chain import chain
from tilewright.design.gpu.chain_design import draw_chain
from tilewright.design.gpu.mutations import suggested_gpu
from tilewright.design.legality import legal
from tilewright.design.mutations import Illegal, neighbours
from tilewright.language import ir
from tilewright.language.verifier import verify
from tilewright.lower.gpu.stages import lower_gpu

TURNS = {**BASE, "overlap": True, "schedule": "pingpong"}


def broken(decisions, name="causal", machine="h200", **sizes):
    """The messages of a design, by rule."""
    kernel = PROGRAMS[name]
    found = legal(kernel, design(kernel, decisions), facts(kernel, machine, **sizes))
    return {r.rule: r.message for r in found}


@pytest.mark.parametrize("width", [16, 64, 80, 96, 112, 128, 192, 256])
@pytest.mark.parametrize("name", ["full", "causal", "ragged window"])
def test_the_default_design_is_legal_and_for_the_matrix_unit(name, width):
    kernel = PROGRAMS[name]
    for rows in (16, 100, 512, 8192):
        known = facts(kernel, S=rows, T=rows, D=width, E=width)
        chosen = default_design(kernel, known)
        assert legal(kernel, chosen, known) == []
        assert {atom for _, atom in chosen.prefixed("atom")} == {"wgmma"}


def atoms(kernel, known):
    """The atoms of a default design, which is legal."""
    found = default_design(kernel, known)
    assert legal(kernel, found, known) == []
    return {atom for _, atom in found.prefixed("atom")}


def test_few_rows_and_other_types_go_another_way():
    kernel, wide = PROGRAMS["causal"], attention(dtype="f32")
    for program, known in ((kernel, facts(kernel, S=1)), (wide, facts(wide)), (kernel, facts(kernel, "a100"))):
        assert "wgmma" not in atoms(program, known)


def test_rows_that_start_anywhere_go_another_way():
    kernel = PROGRAMS["full"]
    known = facts(kernel)
    assert "wgmma" not in atoms(kernel, type(known)(known.sizes, known.unit, known.machine, frozenset(), known.fixed))


def test_rows_that_see_more_come_first():
    kernel = PROGRAMS["causal"]
    assert default_design(kernel, facts(kernel, S=4096, T=4096)).get("grid.descending")
    full = PROGRAMS["full"]
    assert not default_design(full, facts(full, S=4096, T=4096)).get("grid.descending")


def test_where_ranges_are_data_tiles_hold_fewer_rows_of_more_heads():
    """A tile that holds the end of a sequence and the beginning of the next reads the keys of both."""
    kernel, causal = PROGRAMS["packed"], PROGRAMS["causal"]
    assert [chain(PROGRAMS[n]).ranged for n in ("packed", "causal", "ragged window", "full")] == [True] + [False] * 3
    for heads, many in ((8, 4), (4, 4), (6, 2), (2, 2), (7, None), (1, None)):
        known = facts(kernel, N=18992, T=18992, H=8, G=heads, D=128, E=128)
        chosen = default_design(kernel, known)
        assert legal(kernel, chosen, known) == []
        assert chosen.get("tile.g") == many and chosen.number("tile.n") * (many or 1) == 128
        assert chosen.get("store.o") == "tma"
        known = facts(causal, S=2048, T=2048, H=8, G=heads, D=128, E=128)
        assert default_design(causal, known).get("tile.g") is None
    narrow = facts(kernel, N=18992, T=18992, H=32, G=1, D=64, E=64)
    assert default_design(kernel, narrow).get("own")


@pytest.mark.parametrize(("rows", "heads", "tile", "groups"), [
    (16, 4, (4, 16), 1), (17, 8, (2, 32), 1), (32, 4, (2, 32), 1), (64, 4, (2, 64), 2), (65, 4, None, 2),
    (16, 1, None, 2), (16, 8, (4, 16), 1),
])  # fmt: skip
@pytest.mark.parametrize("width", [64, 128])
def test_few_rows_of_heads_that_share_their_keys_lie_side_by_side(rows, heads, tile, groups, width):
    """Else each head would read all keys again, by a tile that is empty but for those rows."""
    for name in ("full", "causal", "ragged"):
        kernel = PROGRAMS[name]
        known = facts(kernel, B=8, H=8, G=heads, S=rows, T=4096, D=width, E=width)
        chosen = default_design(kernel, known)
        assert legal(kernel, chosen, known) == []
        if tile is None:
            assert chosen.get("tile.g") is None
        else:
            assert (chosen.get("tile.g"), chosen.get("tile.s")) == tile
            assert chosen.get("warpgroups") == groups and chosen.get("store.o") == "tma"


@pytest.mark.parametrize("decisions", DESIGNS.values(), ids=DESIGNS)
@pytest.mark.parametrize("name", PROGRAMS)
def test_the_designs_of_the_tests_are_legal(name, decisions):
    assert broken(decisions, name) == {}


@pytest.mark.parametrize(
    ("change", "rule", "message"),
    [
        ({"rows": 64}, "atom", "take 128"),
        ({"columns": 24}, "atom", "sums 16"),
        ({"columns": 272}, "atom", "up to 256 columns"),
        ({"stages": 9}, "ring", "take 6"),
        ({"stages": 1, "overlap": True}, "ring", "two steps are held"),
        ({"columns": 256, "overlap": True}, "registers", "take fewer columns"),
        ({"schedule": "pingpong"}, "turns", "add overlap=True"),
        ({"schedule": "pingpong", "overlap": True, "warpgroups": 1, "rows": 64}, "turns", "nobody to take turns with"),
        ({"tile.g": 16, "rows": 8}, "packed", "take 16, 32 or 64"),
        ({"tile.g": 2}, "atom", "take 64"),
        ({"own": True, "warpgroups": 1, "rows": 64}, "own", "drop it"),
        ({"drawn": True}, "drawn", "add persistent=True"),
        ({"grid.order": "hilbert"}, "form", "takes one of row, grouped"),
        ({"tile.h": 3}, "form", "no decision of this chain is called so"),
        ({"stages": 0}, "form", "1 or more"),
    ],
)
def test_an_illegal_design_is_told_why(change, rule, message):
    assert message in broken({**BASE, **change})[rule]


@pytest.mark.parametrize(
    ("sizes", "machine", "rule", "message"),
    [
        ({"D": 72}, "h200", "atom", "no multiple of 16"),
        ({"E": 288}, "h200", "atom", "not 8, 16 ... 256"),
        ({}, "a100", "unit", "has no wgmma"),
        ({"E": 80}, "h200", "stores", "take direct"),
    ],
)
def test_sizes_and_machines_that_do_not_fit_are_told_why(sizes, machine, rule, message):
    assert message in broken({**BASE, "store": "tma"}, machine=machine, **sizes)[rule]


def test_keys_stored_by_columns_and_values_by_rows_alone():
    kernel = PROGRAMS["ragged"]
    known = facts(kernel)
    unit = {**known.unit, "v": (2,)}
    turned = type(known)(known.sizes, unit, known.machine, known.aligned, known.fixed)
    (reason,) = legal(kernel, design(kernel, BASE), turned)
    assert reason.rule == "copies" and "cannot be cleared" in reason.message


def test_every_mutation_shows_before_and_after():
    for name in chain_mutations.__all__:
        found = getattr(chain_mutations, name)
        if isinstance(found, type):
            assert "before:" in found.__doc__ and "after:" in found.__doc__, name
            assert found.apply.__doc__


def test_a_mutation_that_changes_nothing_says_so():
    chosen = design(PROGRAMS["causal"], TURNS)
    assert isinstance(chain_mutations.Lag(True).apply(chosen), Illegal)
    assert isinstance(chain_mutations.TakeTurns(True).apply(chosen), Illegal)
    assert isinstance(chain_mutations.Descend(False).apply(chosen), Illegal)


def test_neighbours_are_legal_and_reach_every_decision():
    kernel = PROGRAMS["causal"]
    known = facts(kernel, S=4096, T=4096, D=64, E=64, G=4)
    chosen = design(kernel, {**TURNS, "persistent": True})
    found = list(neighbours(kernel, chosen, known))
    assert all(legal(kernel, m.apply(chosen), known) == [] for m in found)
    reached = {name for m in found for name, _ in set(m.apply(chosen).decisions) ^ set(chosen.decisions)}
    assert {"tile.s", "tile.t", "warpgroups", "overlap", "schedule", "persistent", "drawn", "grid.descending",
            "grid.order", "store.o", "cache.k", "tile.g", "own"} <= reached  # fmt: skip


@pytest.mark.parametrize("seed", range(4))
def test_a_chain_of_mutations_keeps_the_meaning(seed):
    random_ = random.Random(seed)
    kernel = list(PROGRAMS.values())[seed + 1]
    known = facts(kernel)
    chosen = default_design(kernel, known)
    tensors = inputs(kernel, dict(known.sizes))
    expected = results(kernel, tensors)
    for _ in range(4):
        steps = [m.apply(chosen) for m in suggested_gpu(kernel, chosen, known)]
        chosen = random_.choice([d for d in steps if isinstance(d, Design) and not legal(kernel, d, known)])
        scheduled = lower_gpu(kernel, chosen, known)
        assert verify(scheduled) == []
        for name, x in results(scheduled, tensors).items():
            assert np.abs(x - expected[name]).max() <= 2.0**-6 * max(1.0, np.abs(x).max()), chosen.to_json()


def test_drawn_designs_are_often_legal():
    random_ = random.Random(1)
    kernel = PROGRAMS["causal"]
    known = facts(kernel, S=2048, T=2048, D=128, E=128)
    found = chain(kernel)
    drawn = [draw_chain(found, known, lambda _, options: random_.choice(options)) for _ in range(60)]
    assert len({d for d in drawn if not legal(kernel, d, known)}) >= 15


@pytest.mark.parametrize(
    ("op", "why"), [("max", "is not added to a sum"), ("sub", "is not added to a sum")]
)  # fmt: skip
def test_a_second_product_that_is_not_added_up_makes_no_chain(op, why):
    from dataclasses import replace

    from tilewright.language.structure import rewrite

    kernel = PROGRAMS["two layers"]
    dots = {s.name for s in ir.walk(kernel.body) if isinstance(s, ir.Let) and isinstance(s.expr, ir.Dot)}
    body = rewrite(
        kernel.body,
        lambda s: replace(s, expr=ir.Map(op, s.expr.args)) if isinstance(s, ir.Let) and isinstance(s.expr, ir.Map)
        and s.expr.op == "add" and dots & set(s.expr.args) else s,
    )  # fmt: skip
    assert why in chain(replace(kernel, body=body))
