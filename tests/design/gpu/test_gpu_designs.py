"""Designs of products for Hopper: defaults that are legal, rules that give reasons, mutations that keep the meaning."""

import random
import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[2] / "lower" / "gpu"))
from products import BASE, DESIGNS, FEW, PRODUCTS, design, facts, result, traced

from tilewright.design.default import default_design
from tilewright.design.design import Design
from tilewright.design.gpu import mutations
from tilewright.design.gpu.draw import draw_product
from tilewright.design.gpu.mutations import suggested_gpu
from tilewright.design.gpu.product import product
from tilewright.design.legality import legal
from tilewright.design.mutations import Illegal, neighbours
from tilewright.language.verifier import verify
from tilewright.lower.gpu.stages import lower_gpu
from tilewright.operators import OPERATORS

PAIRS = ((3072, 2048), (2048, 8192), (6144, 4096), (28672, 4096), (128256, 4096), (64, 64), (200, 72))


def broken(decisions, product_name="matmul", columns=(), machine="h200", **sizes):
    """The messages of a design, by rule."""
    kernel = traced(product_name)
    sizes = {"M": 4096, "N": 4096, "K": 4096, **sizes}
    found = legal(kernel, design(kernel, decisions), facts(kernel, columns, machine, **sizes))
    return {r.rule: r.message for r in found}


# --------------------------------------------------------------------------------------------- defaults
@pytest.mark.parametrize("m", [9, 16, 64, 100, 128, 300, 512, 2048, 8192])
@pytest.mark.parametrize("name", PRODUCTS)
def test_the_default_design_is_legal_and_for_the_matrix_unit(name, m):
    kernel = traced(name)
    for n, k in PAIRS:
        known = facts(kernel, M=m, N=n, K=k)
        chosen = default_design(kernel, known)
        assert legal(kernel, chosen, known) == []
        assert {atom for _, atom in chosen.prefixed("atom")} == {"wgmma"}


def test_tiles_of_few_rows_are_as_high_as_x_and_come_out_even():
    kernel = traced("matmul")
    for m, n, height, down in ((12, 4096, 16, 1), (16, 6144, 16, 1), (64, 6144, 64, 1), (128, 6144, 64, 2)):
        known = facts(kernel, M=m, N=n, K=4096)
        chosen = default_design(kernel, known)
        assert chosen.number("tile.m") == height
        tiles = -(-n // chosen.number("tile.n")) * down * chosen.number("split.k", 1)
        assert 0.9 * known.machine.cores < tiles <= known.machine.cores


def test_blocks_with_other_rows_of_x_share_the_weights():
    chosen = default_design(traced("matmul"), facts(traced("matmul"), M=128, N=6144, K=4096))
    assert (chosen.number("tile.m"), chosen.number("cluster.m")) == (64, 2)


def test_blocks_that_stay_share_what_they_read_and_store_by_the_engine():
    chosen = default_design(traced("matmul"), facts(traced("matmul"), M=2048, N=4096, K=4096))
    assert chosen.get("persistent") and chosen.get("store.c") == "tma"
    assert sum(n for _, n in chosen.prefixed("cluster")) == 2


def test_a_sum_of_unknown_length_is_not_split():
    kernel = traced("matmul")
    known = facts(kernel, M=16, N=256, K=8192)
    free = type(known)(known.sizes, known.unit, known.machine, known.aligned, frozenset())
    assert default_design(kernel, known).number("split.k", 1) > 1
    assert default_design(kernel, free).get("split.k") is None


def test_what_the_copy_engine_cannot_read_goes_another_way():
    kernel = traced("matmul")
    known = facts(kernel, M=100, N=77, K=33)
    unaligned = type(known)(known.sizes, known.unit, known.machine, frozenset(), known.fixed)
    found = default_design(kernel, unaligned)
    assert legal(kernel, found, unaligned) == []


# --------------------------------------------------------------------------------------------- legality
@pytest.mark.parametrize("decisions", DESIGNS.values(), ids=DESIGNS)
def test_the_designs_of_the_tests_are_legal(decisions):
    assert broken(decisions) == {}


@pytest.mark.parametrize(
    ("change", "rule", "message"),
    [
        ({"tile.m": 100}, "atom", "not a multiple of 128"),
        ({"tile.n": 264}, "atom", "8, 16, ... 256"),
        ({"tile.k": 48}, "atom", "whole rows of 128 bytes"),
        ({"stages": 5}, "ring", "take 4"),
        ({"stages": 1}, "ring", "take 2"),
        ({"tile.m": 256}, "registers", "hold sums"),
        ({"cluster.m": 16}, "clusters", "8 is the most"),
        ({"split.k": 3, "how.k": "cluster", "cluster.m": 2}, "clusters", "take two_pass"),
        ({"split.k": 60}, "splits", "fall in fewer parts"),
        ({"schedule": "pingpong", "tile.m": 64, "warpgroups": 3}, "turns", "two warpgroups take turns"),
        ({"store.OUT": "tma", "tile.n": 80}, "stores", "64 columns"),
        ({"engine.a": "plain"}, "copies", "copy engine alone"),
        ({"grid.order": "spiral"}, "form", "takes one of row, grouped, hilbert"),
        ({"tile.q": 3}, "form", "no decision of this product is called so"),
        ({"stages": 0}, "form", "1 or more"),
    ],
)
def test_an_illegal_design_is_told_why(change, rule, message):
    assert message in broken({**BASE, **change})[rule]


def test_other_machines_have_no_wgmma():
    assert "has no wgmma" in broken(BASE, machine="a100")["unit"]


def test_rows_that_start_anywhere_are_refused_with_the_reason():
    kernel = traced("matmul")
    known = facts(kernel)
    unaligned = type(known)(known.sizes, known.unit, known.machine, frozenset("ac"), known.fixed)
    (reason,) = legal(kernel, design(kernel, BASE), unaligned)
    assert reason.rule == "copies" and "multiples of 16 bytes" in reason.message


def test_operands_by_columns_want_whole_rows_of_128_bytes():
    assert "b has its rows along n" in broken({**BASE, "tile.n": 96}, columns=("b",))["atom"]


def test_a_program_that_is_no_product_is_refused_with_the_reason():
    kernel = OPERATORS["softmax"].kernel.trace("bf16")
    assert isinstance(product(kernel), str)


def test_what_is_computed_before_it_is_multiplied_is_no_product():
    kernel = OPERATORS["attention"].kernel.trace("bf16")
    assert isinstance(product(kernel), str)


# -------------------------------------------------------------------------------------------- mutations
def test_every_mutation_shows_before_and_after():
    for name in mutations.__all__:
        found = getattr(mutations, name)
        if isinstance(found, type):
            assert "before:" in found.__doc__ and "after:" in found.__doc__, name
            assert found.apply.__doc__


def test_a_mutation_that_changes_nothing_says_so():
    chosen = Design.of({**BASE, "atom.dot0": "wgmma"})
    assert isinstance(mutations.Deepen(4).apply(chosen), Illegal)
    assert isinstance(mutations.Spread("m", 1).apply(chosen), Illegal)
    assert isinstance(mutations.Overlap(1).apply(chosen), Illegal)


@pytest.mark.parametrize("start", [{**BASE, "tile.n": 128}, FEW], ids=["many rows", "few rows"])
def test_neighbours_are_legal_and_reach_every_decision(start):
    kernel = traced("matmul")
    known = facts(kernel, M=4096, N=4096, K=4096)
    chosen = design(kernel, start)
    found = list(neighbours(kernel, chosen, known))
    assert all(legal(kernel, m.apply(chosen), known) == [] for m in found)
    kinds = {type(m).__name__ for m in found}
    assert {"Reshape", "Deepen", "SplitSum", "OrderTiles", "Persist", "Cache", "Overlap", "StoreBy"} <= kinds


@pytest.mark.parametrize("seed", range(8))
def test_a_chain_of_mutations_keeps_the_meaning(seed):
    random_ = random.Random(seed)
    kernel = traced("matmul" if seed % 2 else "gate_up")
    known = facts(kernel, M=(24, 200)[seed % 2], N=136, K=520)
    chosen = default_design(kernel, known)
    expected = result(kernel, known.sizes, kernel)
    for _ in range(6):
        steps = [m.apply(chosen) for m in suggested_gpu(kernel, chosen, known)]
        options = [d for d in steps if isinstance(d, Design) and not legal(kernel, d, known)]
        chosen = random_.choice(options)
        scheduled = lower_gpu(kernel, chosen, known)
        assert verify(scheduled) == []
        assert (result(scheduled, known.sizes, kernel) == expected).all(), chosen.to_json()


def test_drawn_designs_are_often_legal_and_mean_the_same():
    random_ = random.Random(1)
    kernel = traced("matmul")
    known = facts(kernel, M=136, N=200, K=1100)
    expected = result(kernel, known.sizes, kernel)
    drawn = [draw_product(product(kernel), known, lambda _, options: random_.choice(options)) for _ in range(60)]
    good = {d for d in drawn if not legal(kernel, d, known)}
    assert len(good) >= 10
    for chosen in sorted(good, key=Design.to_json)[:6]:
        assert (result(lower_gpu(kernel, chosen, known), known.sizes, kernel) == expected).all()
