"""Every stage of the lowering to Hopper keeps the meaning of the program: the interpreter judges each."""

import pytest
from products import DESIGNS, PRODUCTS, design, facts, result, traced

from tilewright.design.design import Design
from tilewright.design.legality import legal
from tilewright.language import ir
from tilewright.language.parser import parse
from tilewright.language.printer import show
from tilewright.language.verifier import verify
from tilewright.lower.gpu.stages import STAGES, lower_gpu


@pytest.mark.parametrize("decisions", DESIGNS.values(), ids=DESIGNS)
@pytest.mark.parametrize("product", PRODUCTS)
def test_a_scheduled_program_computes_what_was_written(product, decisions):
    kernel = traced(product)
    known, chosen = facts(kernel), design(kernel, decisions)
    assert legal(kernel, chosen, known) == []
    scheduled = lower_gpu(kernel, chosen, known)
    expected = result(kernel, known.sizes, kernel)
    assert (result(scheduled, known.sizes, kernel) == expected).all()


@pytest.mark.parametrize("decisions", DESIGNS.values(), ids=DESIGNS)
def test_each_stage_ends_in_a_good_program(decisions):
    kernel = program = traced("matmul")
    known, chosen = facts(kernel), design(kernel, decisions)
    expected = result(kernel, known.sizes, kernel)
    for name, stage in STAGES:
        program = stage(program, chosen, known)
        assert verify(program) == [], name
        assert parse(show(program)) == program, name
        assert (result(program, known.sizes, kernel) == expected).all(), name


@pytest.mark.parametrize("columns", [("a",), ("b",), ("a", "b")])
def test_operands_stored_by_columns_keep_their_unit_stride_last(columns):
    kernel = traced("matmul")
    known = facts(kernel, columns)
    scheduled = lower_gpu(kernel, design(kernel, DESIGNS["plain"]), known)
    rings = {s.name: s.dims for s in ir.walk(scheduled.body) if isinstance(s, ir.Alloc)}
    assert [rings[f"s_{t}"][-1] == "k" for t in "ab"] == [t not in columns for t in "ab"]
    assert (result(scheduled, known.sizes, kernel) == result(kernel, known.sizes, kernel)).all()


def listed(stage, decisions=DESIGNS["plain"], product="matmul"):
    """The text after a stage, without what is not about it."""
    kernel = program = traced(product)
    known, chosen = facts(kernel), design(kernel, decisions)
    for name, apply in STAGES:
        program = apply(program, chosen, known)
        if name == stage:
            break
    return [line.strip() for line in show(program).splitlines()]


def test_tile_deals_tiles_to_the_grid_and_rows_to_warpgroups():
    lines = listed("tile", DESIGNS["cluster of rows"])
    assert [x for x in lines if x.startswith("for")] == [
        "for m0 in M step 256, n0 in N step 256 parallel @bind=grid {",
        "for m1 in m0 step 128 parallel @bind=cluster {",
        "for m in m1 step 64 parallel @bind=warpgroup {",
        "for k in K step 64 {",
    ]


def test_split_cuts_the_sum_and_joins_the_parts():
    lines = listed("split", DESIGNS["two passes"])
    at = next(n for n, x in enumerate(lines) if "@how" in x)
    assert lines[at : at + 3] == [
        "for ks in K step 128 @bind=grid @how=two_pass {",
        "acc0_part = full 0.0 : f32[m, n0]",
        "for k in ks step 64 {",
    ]
    assert lines[-7:-4] == ["acc0_sum = add acc0 acc0_part : f32[m, n0]", "acc0 := acc0_sum", "}"]


def test_pipeline_hands_slots_from_the_producer_to_the_consumers():
    lines = [x.partition(" @count")[0] for x in listed("pipeline")]
    at = next(n for n, x in enumerate(lines) if x.startswith("role producer"))
    assert lines[at + 1 : at + 8] == [
        "sync empty wait",
        "sync full expect",
        "copy s_a[m0, k] <- a[m0, k] @engine=tma",
        "copy s_b[n0, k] <- b[n0, k] @engine=tma",
        "}",
        "role consumer @registers=232 @warps=8 {",
        "sync full wait",
    ]


def test_a_cluster_reads_once_what_its_blocks_share():
    copies = [x for x in listed("annotate", DESIGNS["cluster of rows"]) if x.startswith("copy")]
    assert copies == [
        "copy s_a[m1, k] <- a[m1, k] @engine=tma",
        "copy s_b[n0, k] <- b[n0, k] @engine=tma @multicast=2",
    ]


def test_slots_are_free_when_every_warp_of_the_cluster_has_left_them():
    (line,) = {x for x in listed("annotate", DESIGNS["cluster of rows"]) if x.startswith("sync empty arrive")}
    assert "@count=16" in line and "@scope=cluster" in line


def test_results_leave_through_shared_memory_in_rows_of_128_bytes():
    lines = listed("annotate", DESIGNS["engine stores"])
    at = next(n for n, x in enumerate(lines) if x.startswith("for n in n0"))
    assert lines[at : at + 6] == [
        "for n in n0 step 64 {",
        "acc0_end = load acc0[m, n] : f32[m, n]",
        "alloc s_c: bf16[m, n] @layout=swizzle128 @place=shared @stages=2",
        "store s_c[m, n] = acc0_end",
        "sync ready fence @guards=s_c @scope=warpgroup",
        "copy c[m, n] <- s_c[m, n] @engine=tma",
    ]


def test_warpgroups_that_take_turns_wait_and_let_pass():
    turns = [x for x in listed("pipeline", DESIGNS["turns"]) if x.startswith("sync turn")]
    assert turns == ["sync turn wait @count=8 @scope=block", "sync turn arrive @count=8 @scope=block"]


def test_blocks_of_a_cluster_end_a_share_of_the_columns_each():
    lines = listed("annotate", DESIGNS["joined in a cluster"])
    assert "for m in m0 step 16 parallel @bind=cluster {" in lines
    alone = listed("annotate", DESIGNS["joined by one block"])
    assert not any(x.startswith("for m in m0") for x in alone)


def test_a_design_without_the_matrix_unit_takes_the_other_lowering():
    kernel = traced("matmul")
    plain = Design.of({"tile.m": 64, "tile.n": 64, "tile.k": 8, "lanes": ("n", "m"), "warps": 8, "atom.dot0": "fma"})
    scheduled = lower_gpu(kernel, plain, facts(kernel))
    assert not any(isinstance(s, ir.Role) for s in ir.walk(scheduled.body))


@pytest.mark.parametrize(
    "name", ["plain", "two tiles a warpgroup", "engine stores, half rows", "cluster of rows", "swapped"]
)
@pytest.mark.parametrize("early", [("residual",), ("bias",), ("bias", "residual")], ids=" and ".join)
def test_what_is_read_beside_the_sums_may_come_first(name, early):
    kernel = traced("epilogue")
    known = facts(kernel)
    decisions = {**DESIGNS[name], "tile.n": min(DESIGNS[name]["tile.n"], 192 // len(early))}
    chosen = design(kernel, decisions).with_(**{f"early__{tensor}": True for tensor in early})
    assert legal(kernel, chosen, known) == []
    scheduled = lower_gpu(kernel, chosen, known)
    assert verify(scheduled) == []
    lines = [x.strip() for x in show(scheduled).splitlines()]
    wanted = (f"{early[0]}0_early =", "for k in")
    first, main = (next(n for n, x in enumerate(lines) if x.startswith(s)) for s in wanted)
    assert first < main
    assert (result(scheduled, known.sizes, kernel) == result(kernel, known.sizes, kernel)).all()


def test_what_comes_first_needs_registers_and_one_whole_sum():
    kernel = traced("epilogue")
    known = facts(kernel)
    wide = design(kernel, {**DESIGNS["two tiles a warpgroup"], "tile.n": 256, "tile.m": 128}).with_(
        early__residual=True
    )
    assert legal(kernel, wide, known) == []
    three = {**DESIGNS["three warpgroups"], "tile.n": 192, "stages": 3}
    for decisions, word in ((DESIGNS["two passes"], "whole sum"), (three, "registers")):
        found = legal(kernel, design(kernel, decisions).with_(early__residual=True), known)
        assert len(found) == 1 and word in str(found[0])
    assert "drop it" in str(legal(kernel, design(kernel, DESIGNS["plain"]).with_(early__c=True), known)[0])
