"""Programs that are no plain products on GPUs: blocks, bytes and operations from the structure of the program."""

from __future__ import annotations

from dataclasses import replace

import pytest
from programs import facts, traced

from tilewright import operators
from tilewright.design.cost import estimate
from tilewright.design.cost.gpu_visited import uneven, visited
from tilewright.design.cost.program import program_of
from tilewright.design.default import default_design
from tilewright.design.design import Design
from tilewright.machines.machine import Machine

CAUSAL = traced("attention", "bf16", causal=True)
FULL = traced("attention", "bf16", causal=False)
RAGGED = operators.attention.kernel.trace({**dict.fromkeys("qkvo", "bf16"), "lengths": "i32"}, options={"causal": True})
HEADS = {"B": 2, "H": 8, "G": 4, "D": 128, "E": 128}
TILED = Design.of({"tile.g": 4, "tile.s": 16, "tile.t": 32, "atom.dot0": "fma", "atom.dot1": "fma"})


def test_a_gather_reads_the_rows_that_it_asks_for():
    kernel = traced("embedding", "bf16")
    found = estimate(kernel, Design.of({"tile.d": 4096}), facts(kernel, "h200", N=8, V=128256, D=4096))
    assert found.value("memory bytes") == 8 * (8 + 2 * 2 * 4096)  # i64 ids, rows read and written
    assert found.value("blocks") == 8


def test_attention_walks_its_keys_once_for_each_tile_of_queries():
    known = facts(FULL, "h200", S=64, T=1024, **HEADS)
    found = estimate(FULL, TILED, known)
    blocks = 2 * 8 * (64 // 16)
    assert found.value("blocks") == blocks
    queries, keys = 4 * 16 * 128, 1024 * 128
    assert found.value("L2 bytes") == blocks * 2 * (2 * queries + 2 * keys)
    assert found.value("memory bytes") == 2 * 2 * 8 * (2 * 4 * 64 * 128 + 2 * 1024 * 128)


def test_a_causal_mask_saves_half_of_a_square_prompt():
    known = facts(CAUSAL, "h200", S=1024, T=1024, **HEADS)
    assert visited(program_of(CAUSAL), TILED, known) == pytest.approx((1024 + 16) / 2 / 1024)
    assert visited(program_of(FULL), TILED, facts(FULL, "h200", S=1024, T=1024, **HEADS)) == 1.0


def test_sequences_walk_as_far_as_they_are_filled():
    known = replace(facts(RAGGED, "h200", S=1024, T=1024, **HEADS), filled=(1.0, 0.25))
    whole, quarter = (1024 + 16) / 2 / 1024, 0.25 * (256 + 16) / 2 / 1024
    assert visited(program_of(RAGGED), TILED, known) == pytest.approx((whole + quarter) / 2)


def test_parts_of_half_the_length_leave_less_of_a_walk_behind_the_others():
    known = replace(facts(RAGGED, "h200", S=1, T=1024, **HEADS), filled=(1.0, 0.5))
    left = [uneven(program_of(RAGGED), Design.of({"part.t": part}), known) for part in (2048, 1024, 512, 256)]
    assert left == pytest.approx([0.25, 0.25, 0.0, 0.0])
    assert uneven(program_of(RAGGED), Design.of({"part.t": 768}), known) == pytest.approx(1 - 1.5 / 3 / 0.75)
    assert uneven(program_of(RAGGED), Design.of({"part.t": 256}), replace(known, filled=())) == 0.0


def test_one_query_at_the_end_sees_every_key():
    known = facts(CAUSAL, "h200", S=1, T=1024, **HEADS)
    assert visited(program_of(CAUSAL), Design.of({"tile.s": 1}), known) == 1.0


def test_few_blocks_draw_less_than_the_memory_gives():
    machine = replace(Machine.named("h200"), ceilings=(("l2_bytes_per_cycle", 10.0),))
    one, many = (facts(FULL, machine, S=1, T=4096, **{**HEADS, "B": b}) for b in (1, 64))
    design = Design.of({"tile.g": 4, "tile.s": 1, "tile.t": 32, "atom.dot0": "fma", "atom.dot1": "fma"})
    few = estimate(FULL, design, one)
    left = 8 * 4 * 128 * 2  # bytes of results, which stay in L2
    assert few.value("memory") == pytest.approx((few.value("memory bytes") - left) / (8 * 10.0 * 1.83e9))  # 8 SMs
    full = estimate(FULL, design, many)
    moved = full.value("memory bytes") - 64 * left
    assert full.value("memory") == pytest.approx(moved / min(4.26e12, 132 * 10.0 * 1.83e9))


def rows(kernel, machine="h200", **sizes):
    known = facts(kernel, machine, **sizes)
    tensors = frozenset(p.name for p in kernel.params if p.dims)
    known = replace(known, aligned=tensors, fixed=frozenset({"D"}))
    return estimate(kernel, default_design(kernel, known), known)


def test_rows_cost_the_launch_and_their_bytes():
    found = rows(traced("rmsnorm", "bf16"), M=8192, D=4096)
    assert found.bound == "memory"
    stored = 2 * 8192 * 4096
    assert found.value("memory bytes") == 2 * stored + 2 * 4096
    left = 52428800 / 5  # L2 holds so much more of results at the end than of others at the start
    written = (stored - left) / (1 / (2 / 4.26e12 - 1 / 4.42e12))
    assert found.value("memory") == pytest.approx((stored + 2 * 4096) / 4.42e12 + written)
    assert found.seconds > found.value("launch") + found.value("fill") + found.value("memory")


def test_reading_alone_is_as_fast_as_memory_reads():
    found = rows(traced("argmax", "bf16"), M=8192, D=4096)
    assert found.value("memory") == pytest.approx(2 * 8192 * 4096 / 4.42e12, rel=0.01)


def test_a_row_of_its_own_is_shared_by_a_cluster():
    kernel = traced("softmax", "bf16")
    one, many = (rows(kernel, M=m, D=131072) for m in (1, 64))
    assert one.value("cluster") == one.value("blocks") > 1
    assert many.value("blocks") == 64 * many.value("cluster")
    assert one.seconds < 12e-6  # in one block the row alone would take 3 us each way, and its functions 10


def test_the_gpu_starts_one_block_after_another():
    kernel = traced("gelu", "bf16", activation="gelu")
    known = replace(facts(kernel, "h200", M=8192, D=4096), aligned=frozenset({"x", "y"}))
    base = {"tile.m": 1, "vec.x": 8, "vec.y": 8, "lanes": ("d", "m")}
    few, many = (estimate(kernel, Design.of({**base, "tile.d": d, "warps": d // 256}), known) for d in (2048, 512))
    assert many.value("dispatch") == pytest.approx(8192 * 8 * 1.2e-9)
    assert many.seconds == pytest.approx(many.value("launch") + many.value("dispatch"))
    assert few.seconds < many.seconds / 2  # measured: 34 and 84 us


def test_rows_at_odd_places_cost_a_request_for_every_element():
    kernel = traced("silu", "bf16")
    even, odd = rows(kernel, M=8192, D=4096), rows(kernel, M=8192, D=4095)
    assert (even.value("beside"), odd.seconds > even.seconds + odd.value("beside")) == (0.0, True)
    assert odd.value("beside") == pytest.approx(2 * 8192 * 4096 / 32 * 0.8 / (132 * 1.83e9), rel=0.01)


def test_few_queries_take_the_time_of_a_whole_tile():
    design = Design.of({"atom.dot0": "wgmma", "atom.dot1": "wgmma", "tile.s": 128, "tile.t": 128, "warpgroups": 2})
    few, whole = (estimate(FULL, design, facts(FULL, "h200", T=4096, S=s, **HEADS)) for s in (16, 128))
    assert few.value("arithmetic") == pytest.approx(whole.value("arithmetic"))
    assert few.value("elements") == pytest.approx(whole.value("elements"), rel=0.01)


def test_half_of_a_walk_shows_where_an_sm_has_one_block_and_less_where_it_has_more():
    design = Design.of({"part.t": 256, "tile.g": 4, "tile.s": 1, "tile.t": 16, "warps": 4, "vec.k": 8, "vec.v": 8})
    one, eight = (estimate(FULL, design, facts(FULL, "h200", S=1, T=4096, **{**HEADS, "B": b})) for b in (1, 8))
    for found, blocks_of_an_sm in ((one, 1), (eight, 8 * 128 / 132)):
        alone = sum(found.value(t) for t in ("launch", "fill", "meets", "join"))
        moved = (found.value("memory") ** 4 + found.value("L2") ** 4) ** 0.25
        assert found.seconds == pytest.approx(alone + moved + 0.5 * found.value("walk") / blocks_of_an_sm)


def test_short_sequences_save_time_and_the_longest_walks_on_alone():
    known = facts(RAGGED, "h200", S=1, T=4096, **{**HEADS, "B": 64})
    design = Design.of({"part.t": 4096, "tile.g": 4, "tile.s": 1, "tile.t": 16, "warps": 4, "vec.k": 8, "vec.v": 8})
    whole = estimate(RAGGED, design, known)
    half = estimate(RAGGED, design, replace(known, filled=(0.5,) * 64))
    uneven = estimate(RAGGED, design, replace(known, filled=(1.0,) * 32 + (0.0,) * 32))
    assert half.value("memory bytes") == pytest.approx(whole.value("memory bytes") / 2)
    assert half.seconds < uneven.seconds < whole.seconds


def test_a_row_written_into_a_large_cache_leaves_no_more_in_l2_than_the_row():
    kernel = traced("rope_cache", "bf16")
    sizes = {"B": 1, "S": 1, "Q": 32, "H": 8, "R": 64, "D": 128, "P": 1024, "T": 1024}
    known = facts(kernel, "h200", **{d: sizes[d] for d in kernel.dims})
    found = estimate(kernel, default_design(kernel, known), known)
    assert 0 <= found.value("memory") < 1e-6
    assert found.seconds - found.value("launch") < 4e-6


def test_a_softmax_takes_instructions_and_the_special_unit_beside_the_products():
    """Narrow heads are bound by it: half the products for as many exponentials."""
    design = Design.of({"atom.dot0": "wgmma", "atom.dot1": "wgmma", "tile.s": 128, "tile.t": 128, "warpgroups": 2})
    wide, narrow = (
        estimate(FULL, design, facts(FULL, "h200", **{**HEADS, "B": 2, "S": 8192, "T": 8192, "D": d, "E": d}))
        for d in (128, 64)
    )
    scores = wide.value("elements") * 132 * 1.83e9
    assert scores > 2 * 32 * 8192**2 / 16  # cycles of one SM: each score has its exponential, and more
    assert narrow.value("elements") > 0.9 * wide.value("elements")
    assert narrow.value("arithmetic") == pytest.approx(wide.value("arithmetic") / 2, rel=0.05)
    assert (narrow.bound, wide.bound) == ("elements", "arithmetic")
    assert wide.value("turns") == pytest.approx(1.79e-6 * (wide.value("blocks") / 132 - 1), rel=0.02)
