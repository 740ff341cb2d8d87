"""The whole model of a CPU: exact where it can be, and right in direction where not."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from programs import SHIPPED, facts, traced

from tilewright.design.cost import estimate, features
from tilewright.design.cost.cpu import chains, overlap
from tilewright.design.default import default_design
from tilewright.design.design import Design
from tilewright.operators import OPERATORS

MATMUL = traced("matmul", activation=None)


def tiled(**more) -> Design:
    base = {"tile.m": 8, "tile.n": 32, "tile.k": 1, "lanes": ("n",), "pack.a": "panel", "pack.b": "panel", "threads": 1}
    return Design.of({**base, **{k.replace("__", "."): v for k, v in more.items()}})


def test_every_product_is_counted_once():
    known = facts(MATMUL, "zen5", M=64, N=64, K=100)
    found = estimate(MATMUL, tiled(), known)
    # 8 tiles by 2 tiles by 100 steps of 8 by 2 vectors, two multiplications a cycle; and nothing in the copies.
    assert found.value("multiply") == 8 * 2 * 100 * 8 * 2 / 2


def test_half_empty_tiles_cost_as_much_as_full_ones():
    whole = estimate(MATMUL, tiled(), facts(MATMUL, "zen5", M=64, N=64, K=100)).value("multiply")
    assert estimate(MATMUL, tiled(), facts(MATMUL, "zen5", M=57, N=33, K=100)).value("multiply") == whole


def test_bytes_of_memory_are_those_of_the_operands_where_each_is_read_once():
    # Vectors of one row against 256 MiB of weights, which no cache holds: each byte comes once.
    design = Design.of({"tile.m": 1, "tile.n": 4, "tile.k": 64, "lanes": ("k",), "threads": 1})
    found = estimate(MATMUL, design, facts(MATMUL, "zen5", M=1, N=8192, K=8192))
    assert found.value("memory bytes") == pytest.approx(4 * (8192 * 8192 + 8192 + 8192), rel=1e-3)
    assert found.bound == "memory"


def test_the_memory_of_one_pass_does_not_hide_behind_the_arithmetic_of_another():
    # 16 MiB of rows of 16 KiB: they come from memory in the first pass; exponentials are in the second and third.
    kernel = traced("softmax")
    known = facts(kernel, "zen5", M=4096, D=4096)
    design = Design.of(
        {**dict.fromkeys(("tile.d", "tile.d1", "tile.d2"), 64), "lanes": ("d2", "d1", "d"), "threads": 1}
    )
    found = estimate(kernel, design, known)
    assert found.seconds > found.value("issue") + found.value("memory") / 2


def test_a_kept_exponential_is_computed_once_and_read_once():
    kernel = traced("softmax")
    known = facts(kernel, "zen5", M=64, D=1024)
    again = Design.of({**dict.fromkeys(("tile.d", "tile.d1", "tile.d2"), 64), "lanes": ("d2", "d1", "d"), "threads": 1})
    one, two = (estimate(kernel, d, known) for d in (again.with_(keep__exp1=True), again))
    vectors = 64 * 1024 / 16
    # 15 instructions, of which 0.6 go to the units that multiply: two vectors a cycle; and the subtraction before them.
    assert two.value("multiply") - one.value("multiply") == pytest.approx(vectors * (15 * 0.6 + 1) / 2)
    assert one.value("store") - two.value("store") == pytest.approx(vectors)  # one vector a cycle
    assert one.value("load") == pytest.approx(two.value("load"))  # the kept value in place of x


def test_what_the_caches_hold_comes_from_no_memory():
    assert estimate(MATMUL, tiled(), facts(MATMUL, "zen5", M=64, N=64, K=64)).value("memory bytes") == 0


def test_imbalance_and_threads():
    known = facts(MATMUL, "zen5", M=24, N=32, K=64)
    two = estimate(MATMUL, tiled().with_(threads=2), known)
    assert two.value("threads") == 2
    assert two.value("imbalance") == pytest.approx(2 / 1.5)


def test_overlap_is_a_little_more_than_the_longest():
    assert overlap(1.0, 0.0) == 1.0
    assert overlap(1.0, 1.0) == pytest.approx(2 ** (1 / 3))
    assert overlap(0.0, 0.0) == 0.0


@pytest.mark.parametrize("machine", SHIPPED)
@pytest.mark.parametrize("name", sorted(OPERATORS))
def test_every_operator_has_an_estimate_on_every_machine(name, machine):
    kernel = traced(name)
    known = facts(kernel, machine)
    design = default_design(kernel, known)
    found = estimate(kernel, design, known)
    assert 0 < found.seconds < 100
    assert found.bound in {t.name for t in found.terms}
    assert len(features(kernel, design, known)) == len(features(MATMUL, tiled(), facts(MATMUL)))
    assert found == estimate(kernel, design, known)


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 9), st.integers(1, 9), st.integers(1, 9))
def test_more_rows_never_take_less_time(m, n, k):
    small = estimate(MATMUL, tiled(), facts(MATMUL, "zen5", M=16 * m, N=64 * n, K=64 * k))
    large = estimate(MATMUL, tiled(), facts(MATMUL, "zen5", M=32 * m, N=64 * n, K=64 * k))
    assert large.seconds >= small.seconds


def test_a_search_for_one_thread_asks_about_one_thread():
    known = facts(MATMUL, "zen5", M=512, N=512, K=512)
    design = default_design(MATMUL, known)
    (one, two) = (estimate(MATMUL, design, replace(known, threads=n)) for n in (1, 2))
    assert (one.value("threads"), two.value("threads")) == (1, min(2, known.machine.cores))
    assert one.value("issue") == pytest.approx(2 * two.value("issue"), rel=0.2)


def test_chains_of_sums_overlap_as_far_as_the_window_of_instructions_reaches():
    assert chains(64, 5.0) == 2.0  # as many instructions as the window holds: the next tile's chain beside it
    assert chains(1, 320.0) == 2.0
    assert chains(128, 25.0) == 1.1
    assert chains(0, 0.0) == 321.0


def test_kept_values_that_the_first_level_loses_are_stored_one_line_at_a_time():
    """Two rows and what is kept of them fit the first level, or they do not: 16 and 64 KB of 48 here."""
    program = traced("softmax")
    tiles = {"tile.d": 64, "tile.d1": 64, "tile.d2": 64, "lanes": ("d", "d1", "d2"), "keep.exp1": True}

    def seconds(rows, columns):
        known = facts(program, M=256, D=columns)
        return estimate(program, Design.of({**tiles, "tile.m": rows}), known).seconds

    assert seconds(2, 1024) < 1.1 * seconds(1, 1024)
    assert seconds(2, 4096) > 1.2 * seconds(1, 4096)


ROWS = {"tile.d": 64, "tile.d1": 64, "lanes": ("d1", "d"), "threads": 1}
SOFT = {**dict.fromkeys(("tile.d", "tile.d1", "tile.d2"), 64), "lanes": ("d2", "d1", "d"), "threads": 1}


def test_several_streams_wait_at_each_page_that_a_row_comes_to():
    """1024 rows of two pages: where prefetchers follow one stream alone, rows side by side wait once in each row."""
    kernel, design = traced("rmsnorm"), Design.of(ROWS)
    known = facts(kernel, "zen5", M=1024, D=2048)
    alone, beside = (estimate(kernel, design.with_(tile__m=m), known) for m in (1, 2))
    assert alone.value("pages") == 0.0
    assert beside.value("pages") == pytest.approx(1024 * 80e-9)
    short = facts(kernel, "zen5", M=2048, D=1024)  # rows of one page end where it does
    assert estimate(kernel, design.with_(tile__m=2), short).value("pages") == 0.0


def test_a_stream_that_pauses_begins_anew_with_each_page():
    """Where prefetchers follow nothing: two pages a row, while another turn runs; of two rows both wait at once."""
    kernel, design = traced("rmsnorm"), Design.of(ROWS)
    known = facts(kernel, "sapphire-rapids", M=1024, D=2048)
    alone, beside = (estimate(kernel, design.with_(tile__m=m), known) for m in (1, 2))
    assert alone.value("pages") == pytest.approx((2048 + 2) * 25e-9)  # of rows, and of the weights
    assert beside.value("pages") == pytest.approx((1024 + 2) * 25e-9)
    product = Design.of({"tile.m": 1, "tile.n": 4, "tile.k": 64, "lanes": ("k",), "threads": 1})  # one turn: no pause
    assert estimate(MATMUL, product, facts(MATMUL, "sapphire-rapids", M=1, N=4096, K=4096)).value("pages") == 0.0


def test_what_a_later_turn_fetches_ahead_comes_beside_its_arithmetic():
    kernel = traced("softmax")
    known = facts(kernel, "sapphire-rapids", M=1024, D=2048)
    plain = estimate(kernel, Design.of(SOFT), known)
    ahead = estimate(kernel, Design.of({**SOFT, "prefetch.x1": 1}), known)
    assert ahead.value("pages") == plain.value("pages") == pytest.approx(2048 * 25e-9)
    assert ahead.value("L3 bytes") == plain.value("L3 bytes")
    assert ahead.seconds < plain.seconds - plain.value("pages")


def test_what_is_fetched_in_the_turn_that_reads_it_is_only_asked_for_twice():
    kernel = traced("rmsnorm")
    known = facts(kernel, "zen5", M=1024, D=2048)
    plain, ahead = (estimate(kernel, Design.of({**ROWS, **more}), known) for more in ({}, {"prefetch.x0": 1}))
    assert ahead.value("L2 bytes") == pytest.approx(plain.value("L2 bytes") + 4 * 1024 * 2048)
    assert ahead.seconds > plain.seconds


def test_stores_around_the_caches_go_no_further_than_the_level_that_holds_their_lines():
    kernel = traced("rmsnorm")
    design = Design.of({**ROWS, "nontemporal.y": True})
    near = estimate(kernel, design, facts(kernel, "zen5", M=256, D=1024))
    plain = estimate(kernel, Design.of(ROWS), facts(kernel, "zen5", M=65536, D=1024))
    far = estimate(kernel, design, facts(kernel, "zen5", M=65536, D=1024))
    assert near.value("bytes around caches") == plain.value("bytes around caches") == 0.0
    assert far.value("bytes around caches") == 4 * 65536 * 1024


def test_stores_around_the_caches_leave_the_second_level_first_where_memory_takes_them():
    """512 KB that L2 holds: 9.8 ns for each of 8192 lines. Of 256 MB nothing is held, and memory takes all of it."""
    kernel = traced("rmsnorm")
    design = Design.of({**ROWS, "nontemporal.y": True})
    near, plain = (
        estimate(kernel, d, facts(kernel, "sapphire-rapids", M=128, D=1024)) for d in (design, Design.of(ROWS))
    )
    assert near.value("memory") - plain.value("memory") == pytest.approx(8192 * 9.8e-9)
    assert near.value("bytes around caches") == 0.0
    far = estimate(kernel, design, facts(kernel, "sapphire-rapids", M=65536, D=1024))
    assert far.value("bytes around caches") == 4 * 65536 * 1024


def test_rows_of_several_are_stored_around_the_caches_as_single_ones_are():
    """A row of a tile may not exist: that is asked by a branch, since a masked store would go through the caches."""
    kernel = traced("rmsnorm")
    known = facts(kernel, "zen5", M=65536, D=1024)
    one, two = (
        estimate(kernel, Design.of({**ROWS, "tile.m": m, "nontemporal.y": True}), known).value("bytes around caches")
        for m in (1, 2)
    )
    assert one == two == 4 * 65536 * 1024


def test_the_counter_of_a_loop_takes_slots_and_no_time_of_its_own():
    """Unrolled or not, a loop that multiplies all the time takes as long; three instructions of a counter are fewer."""
    known = facts(MATMUL, "zen5", M=64, N=64, K=100)
    once, four = (estimate(MATMUL, tiled(unroll__k=n), known) for n in (1, 4))
    loops = 8 * 2 * 100
    assert once.value("instructions") - four.value("instructions") == pytest.approx(loops * 3 * 3 / 4)
    assert once.value("loops") == four.value("loops")


def test_tile_registers_that_are_loaded_where_rows_lie_wait_for_lines_from_beyond_the_second_cache():
    """The rows of a come once, 65,536 lines of 4 MB that L2 does not hold; a copy into panels reads them in streams."""
    kernel = traced("matmul", "bf16", activation=None)
    known = facts(kernel, "sapphire-rapids", M=512, N=32, K=4096)
    tiles = {"tile.m": 32, "tile.n": 32, "tile.k": 32, "lanes": ("n",), "threads": 1, "atom.dot0": "amx_bf16"}
    packed = estimate(kernel, Design.of({**tiles, "pack.a": "tile", "pack.b": "pair"}), known)
    there = estimate(kernel, Design.of({**tiles, "pack.b": "pair"}), known)
    assert packed.value("pages") == 0.0
    assert there.value("pages") == pytest.approx(512 * 4096 * 2 / 64 * 1.2e-9)
    assert there.value("copies") < packed.value("copies")


def test_parts_of_a_sum_give_every_thread_something_to_do():
    """One tile is one thread's work; halves of its sum take half the time, and many parts cost their joins."""
    known = replace(facts(MATMUL, "zen5", M=1, N=1, K=1 << 22), threads=2)
    rows = Design.of({"tile.m": 1, "tile.n": 1, "tile.k": 64, "lanes": ("k",), "split.k": 4})
    whole, halves, many = (estimate(MATMUL, rows.with_(**more), known) for more in
                           ({}, {"part__k": 1 << 21}, {"part__k": 64}))  # fmt: skip
    assert halves.value("issue") == pytest.approx(whole.value("issue") / 2, rel=0.01)
    assert halves.seconds < 0.6 * whole.seconds
    assert halves.value("phases") == 2
    assert many.value("issue") > 1.5 * halves.value("issue")
