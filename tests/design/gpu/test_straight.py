"""Products of few rows, operands straight to registers: what is legal, what can be changed, what stays the same."""

import random
import sys
from dataclasses import replace
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[2] / "lower" / "gpu"))
from products import PRODUCTS, facts, result, traced

from tilewright.design.cost.model import estimate
from tilewright.design.default import default_design
from tilewright.design.design import Design
from tilewright.design.draw import draw
from tilewright.design.gpu import straight_mutations
from tilewright.design.gpu.default import default_product
from tilewright.design.gpu.product import product
from tilewright.design.gpu.straight import Straight, is_straight, straight
from tilewright.design.gpu.straight_default import default_straight
from tilewright.design.gpu.straight_mutations import Through, straightened, suggested_straight
from tilewright.design.legality import legal
from tilewright.design.mutations import Illegal, neighbours
from tilewright.language import ir
from tilewright.language.parser import parse
from tilewright.language.printer import show
from tilewright.language.verifier import verify
from tilewright.lower.gpu.stages import lower_gpu

# Fragments of columns of a warp, warps along the sum and across, chunks of the sum at once; what multiplies.
DEALS = [
    (1, 8, 1, 4), (2, 3, 2, 2), (4, 1, 4, 1), (1, 4, 1, 3), (1, 11, 1, 1), (1, 1, 2, 4, "fma"), (2, 2, 4, 1, "fma"),
    (1, 1, 1, 2, "fma"),
]  # fmt: skip


def chosen(name="matmul", deal=(1, 8, 1, 4), machine="h200", **sizes):
    """(program, design, facts) of a product."""
    kernel = traced(name)
    known = facts(kernel, machine=machine, **{"M": 3, "N": 200, "K": 1000, **sizes})
    found = product(kernel)
    return kernel, straight(found, known, *deal), known


@pytest.mark.parametrize("deal", DEALS)
@pytest.mark.parametrize("name", PRODUCTS)
def test_the_scheduled_program_means_what_was_written(name, deal):
    kernel, design, known = chosen(name, deal, M=19, N=72, K=328, B=2)
    assert legal(kernel, design, known) == []
    program = lower_gpu(kernel, design, known)
    assert verify(program) == []
    assert parse(show(program)) == program
    assert (result(program, known.sizes, kernel) == result(kernel, known.sizes, kernel)).all()


@pytest.mark.parametrize("deal", DEALS)
@pytest.mark.parametrize("stages", [1, 3])
def test_steps_ahead_change_when_weights_are_asked_for_and_nothing_else(deal, stages):
    kernel, design, known = chosen("matmul", deal, M=19, N=72, K=328)
    ahead = Design.of({**dict(design.decisions), "stages": stages})
    if stages == 1 and "fma" in dict(design.decisions).values():
        assert "stages=1" in str(legal(kernel, ahead, known))
        return
    assert legal(kernel, ahead, known) == []
    program = lower_gpu(kernel, ahead, known)
    assert verify(program) == []
    noted = [s.expr.ref.buffer for s in ir.walk(program.body) if isinstance(s, ir.Let) and ir.note(s.notes, "prefetch")]
    assert noted == ["b"]
    assert (result(program, known.sizes, kernel) == result(kernel, known.sizes, kernel)).all()


def test_weights_are_asked_for_before_all_else():
    kernel, design, known = chosen("gate_up")
    parts, steps = (
        s for s in ir.walk(lower_gpu(kernel, design, known).body) if isinstance(s, ir.Loop) and not s.parallel
    )
    loads = [s.expr.ref.buffer for s in steps.body if isinstance(s, ir.Let) and isinstance(s.expr, ir.Load)]
    assert loads == ["gate", "up", "x"]
    assert ir.note(parts.notes, "bind") == "warp"
    assert (parts.axes[0].step, steps.axes[0].step) == (128, 128)  # 1000 in eight parts


@pytest.mark.parametrize(
    ("change", "rule", "message"),
    [
        ({"tile.m": 24}, "tiles", "16 rows each"),
        ({"tile.m": 80}, "tiles", "up to 64"),
        ({"tile.n": 12}, "tiles", "take 8"),
        ({"tile.k": 100}, "tiles", "a warp takes 32 at a time"),
        ({"tile.k": 512}, "tiles", "2 steps fall in fewer parts; take 2"),
        ({"warps": 12}, "tiles", "a multiple of warps.k=8"),
        ({"tile.n": 512}, "registers", "hold sums and operands"),
        ({"resident": 9}, "registers", "takes 1 to 8 blocks"),
        ({"store.c": "tma"}, "form", "no decision of operands in registers is called so"),
        ({"atom.dot0": "fma", "tile.k": 256, "stages": 1}, "ring", "behind products of mma; take 2, or drop it"),
        ({"stages": 16, "resident": 2}, "ring", "bytes of shared memory in each of 2 blocks"),
        ({"tile.k": 0}, "form", "1 or more"),
        ({"cache.b": "evict_last"}, "form", "takes one of"),
        ({"atom.dot0": "fma", "tile.k": 256, "warps.k": 4, "warps": 4, "tile.n": 4}, "tiles", "up to 8"),
        ({"grid.order": "hilbert"}, "form", "takes one of row, grouped"),
    ],
)
def test_an_illegal_design_is_told_why(change, rule, message):
    kernel, design, known = chosen()
    found = {r.rule: r.message for r in legal(kernel, Design.of({**dict(design.decisions), **change}), known)}
    assert message in found[rule]


def test_chunks_need_rows_along_a_sum_of_known_length_that_holds_them_whole():
    kernel, design, known = chosen()
    free = replace(known, fixed=frozenset({"M", "N"}))
    assert "no fixed multiple" in legal(kernel, design, free)[0].message
    assert "no fixed multiple" in legal(kernel, design, replace(known, sizes={**known.sizes, "K": 1001}))[0].message
    assert "multiples of 16" in legal(kernel, design, replace(known, aligned=frozenset("bc")))[0].message
    assert "does not run along" in legal(kernel, design, replace(known, unit={**known.unit, "b": (0,)}))[0].message


@pytest.mark.parametrize("name", ["Ahead", "Deal", "Through"])
def test_a_mutation_shows_what_it_changes(name):
    text = getattr(straight_mutations, name).__doc__
    assert "before:" in text
    assert "after:" in text


def test_chains_of_mutations_keep_the_meaning_and_lead_to_the_ring_and_back():
    kernel, design, known = chosen(M=5, N=136, K=264)
    sizes = {"M": 5, "N": 136, "K": 264}
    wanted = result(kernel, sizes, kernel)
    dice, families = random.Random(7), set()
    for _ in range(24):
        found = list(neighbours(kernel, design, known))
        through = [m for m in found if isinstance(m, Through)]
        step = dice.choice(through if through and dice.random() < 0.3 else found)
        design = step.apply(design)
        assert legal(kernel, design, known) == []
        families.add(is_straight(design))
        program = lower_gpu(kernel, design, known)
        assert verify(program) == []
        assert (result(program, sizes, kernel) == wanted).all()
    assert families == {True, False}


def test_a_design_of_many_rows_is_not_led_to_registers():
    kernel, _, known = chosen()
    assert list(straightened(product(kernel), known))
    assert not list(straightened(product(kernel), replace(known, sizes={**known.sizes, "M": 512})))


def test_every_mutation_of_a_design_changes_it_or_says_that_it_does_not():
    kernel, design, known = chosen()
    for mutation in suggested_straight(product(kernel), design, known):
        after = mutation.apply(design)
        assert isinstance(after, Illegal) or after != design


def test_few_rows_are_drawn_both_ways():
    kernel, _, known = chosen(M=4, N=4096, K=4096)
    dice = random.Random(0)
    drawn = [draw(kernel, known, lambda what, options: options[dice.randrange(len(options))]) for _ in range(40)]
    assert {is_straight(d) for d in drawn} == {True, False}
    assert any(not legal(kernel, d, known) for d in drawn if is_straight(d))


def test_bytes_in_flight_and_registers_follow_from_the_deal():
    kernel, design, known = chosen(deal=(2, 8, 1, 4), K=4096)
    s = Straight(product(kernel), design, known)
    assert s.fragments == (1, 2, 4)
    assert s.flying == 8 * 32 * 16 * 2 * 4
    assert s.registers == 4 * 2 + 4 * 2 * 4 + 4 * 2  # sums, weights, and two chunks of x
    ahead = Straight(product(kernel), Design.of({**dict(design.decisions), "stages": 4}), known)
    assert ahead.flying == 4 * s.flying
    assert ahead.ring_bytes == 4 * 8 * 16 * (256 + 64)  # rows of 256 bytes, and what keeps them in other banks
    assert ahead.shared_bytes == ahead.ring_bytes + 4 * 8 * 256  # and eight sums of each thread
    kernel, design, known = chosen(deal=(2, 4, 2, 4, "fma"), K=4096)
    s = Straight(product(kernel), design, known)
    assert s.fragments == (3, 2, 4)
    assert s.flying == 8 * 32 * 16 * 2 * 4
    assert s.registers == 3 * 2 + 4 * 2 * 4 + 4 * 3 + 8
    assert not is_straight(default_design(kernel, replace(known, sizes={**known.sizes, "M": 512})))


@pytest.mark.parametrize("machine", ["h200", "a100"])
@pytest.mark.parametrize("name", PRODUCTS)
def test_few_rows_go_straight_to_registers_by_default(name, machine):
    kernel = traced(name)
    for m in (1, 2, 4, 5, 8):
        for n, k in ((2048, 2048), (4096, 14336), (128256, 4096), (1001, 1000)):
            known = facts(kernel, machine=machine, M=m, N=n, K=k)
            design = default_design(kernel, known)
            assert legal(kernel, design, known) == []
            assert is_straight(design)
            assert {a for _, a in design.prefixed("atom")} == {"fma" if m <= 2 else "mma"}


@pytest.mark.parametrize(
    ("n", "k", "deal"),
    [
        (2048, 2048, (16, 8, 64, 2, 1)), (3072, 2048, (8, 8, 128, 3, 1)), (16384, 2048, (16, 8, 128, 2, 0)),
        (4096, 4096, (8, 16, 128, 2, 1)), (6144, 4096, (8, 16, 128, 3, 1)), (28672, 4096, (8, 8, 64, 3, 0)),
        (2048, 8192, (32, 16, 64, 1, 0)), (57344, 8192, (16, 8, 64, 2, 1)), (8192, 28672, (8, 8, 128, 4, 1)),
    ],
)  # fmt: skip
def test_four_rows_by_mma_are_dealt_by_columns_and_length_of_the_sum(n, k, deal):
    """Warps, columns, depth of a step, blocks on an SM, and whether weights flow."""
    kernel = traced("matmul")
    known = facts(kernel, machine="h200", M=4, N=n, K=k)
    design = default_straight(kernel, product(kernel), known)
    numbers = [design.number(x) for x in ("warps", "tile.n", "tile.k", "resident")]
    assert (*numbers, design.number("stages", 0)) == deal
    blocks = -(-n // design.number("tile.n"))
    assert design.number("stages", 0) == 0 or blocks <= 132 * deal[3] or k > 4096


@pytest.mark.parametrize("k", [200, 1000, 1336, 3000, 5120, 11008])
def test_sums_of_any_length_have_a_legal_default(k):
    kernel = traced("matmul")
    for m, n in ((3, 520), (8, 4096), (4, 5120), (5, 40000)):
        known = facts(kernel, machine="h200", M=m, N=n, K=k)
        design = default_straight(kernel, product(kernel), known)
        assert design is None or legal(kernel, design, known) == []


def test_sums_of_unknown_length_pass_through_shared_memory_by_default():
    kernel, _, known = chosen(M=1, N=2048, K=2048)
    design = default_design(kernel, replace(known, fixed=frozenset({"M"})))
    assert not is_straight(design)
    assert legal(kernel, design, replace(known, fixed=frozenset({"M"}))) == []


def test_the_model_prefers_wide_accesses_full_machines_and_one_step():
    kernel = traced("matmul")
    known = facts(kernel, M=1, N=4096, K=4096)

    def seconds(*deal, **more):
        design = straight(product(kernel), known, *deal)
        return estimate(kernel, Design.of({**dict(design.decisions), **more}), known).seconds

    best = seconds(1, 4, 2, 4, "fma", resident=4)
    assert 12e-6 < best < 13.5e-6  # 12.6 on an H200
    assert best < seconds(1, 8, 1, 4, resident=4)
    assert best < seconds(1, 1, 8, 4, "fma", resident=4)
    assert best < seconds(1, 4, 4, 1, "fma", resident=1)
    assert best < estimate(kernel, default_product(product(kernel), known), known).seconds
