"""Trip counts and shares of threads, by hand."""

from __future__ import annotations

import pytest
from programs import facts, traced

from tilewright.design.cost.nodes import Leaf, count, share
from tilewright.design.cost.program import program_of
from tilewright.design.cost.schedule import Schedule
from tilewright.design.cost.tiling import Tiling
from tilewright.design.design import Design

MATMUL = traced("matmul", activation=None)


def shares(threads: int = 1, sizes: dict[str, int] | None = None, **decisions):
    tiling = Tiling(program_of(MATMUL), Design.of({k.replace("__", "."): v for k, v in decisions.items()}),
                    facts(MATMUL, **(sizes or {"M": 100, "N": 96, "K": 64})))  # fmt: skip
    return [share(p, tiling, threads) for p in Schedule(tiling).phases]


def test_steps_that_are_cut_again():
    assert count(10, (4,)) == 3
    assert count(10, (4, 3)) == 5  # 4 = 3 + 1, 4 = 3 + 1, 2
    assert count(777, (192, 48)) == 17
    assert count(0, (4,)) == 0


def test_ragged_tiles_count_whole():
    (only,) = shares(tile__m=8, tile__n=32, tile__k=1, lanes=("n",))
    trips = {n.axis: n.trips for n in only.root.walk() if not isinstance(n, Leaf)}
    assert trips == {"m": 13, "n": 3, "k": 64}


def test_blocks_visit_tiles_inside_and_slabs_between():
    design = {"tile__m": 8, "tile__n": 32, "tile__k": 1, "block__m": 48, "block__n": 96, "block__k": 32}
    (only,) = shares(**design, lanes=("n",), inner=("n", "m"))
    nodes = [n for n in only.root.walk() if not isinstance(n, Leaf)]
    assert [n.axis for n in nodes] == ["m", "n", "k", "n", "m", "k"]
    # 100 rows: 48 + 48 + 4 are 6 + 6 + 1 tiles in 3 blocks.
    assert [round(n.trips, 3) for n in nodes] == [3, 1, 2, 3, round(13 / 3, 3), 32]


def test_packing_is_a_phase_before_or_a_loop_inside():
    design = {"tile__m": 8, "tile__n": 32, "tile__k": 1, "block__n": 96, "lanes": ("n",), "pack__b": "panel"}
    first, second = shares(**design)
    assert [n.axis for n in first.root.walk() if not isinstance(n, Leaf)] == ["n", "k"]
    (inside,) = shares(**design, local__b=True)
    assert "b" in {a.buffer for a in inside.root.accesses}
    assert "b panel" in {a.buffer for a in second.root.accesses}


def test_serial_loops_of_a_tile_take_turns():
    kernel = traced("softmax")
    design = Design.of({**dict.fromkeys(("tile.d", "tile.d1", "tile.d2"), 64), "lanes": ("d2", "d1", "d")})
    tiling = Tiling(program_of(kernel), design, facts(kernel, M=8, D=256))
    (only,) = (share(p, tiling, 1) for p in Schedule(tiling).phases)
    found = {n.axis: n.turn for n in only.root.walk() if not isinstance(n, Leaf)}
    assert found == {"m": 0, "d": 0, "d1": 1, "d2": 2}
    assert only.root.turns == {"x": 0, "y": 2}  # x comes in the first of them, whoever reads it again


def test_threads_share_tiles_and_the_busiest_has_more():
    (two,) = shares(2, {"M": 24, "N": 96, "K": 64}, tile__m=8, tile__n=96, tile__k=1, lanes=("n",))
    assert two.threads == 2
    assert two.excess == pytest.approx(2 / 1.5)  # 3 tiles: one thread has 2, the average 1.5
    (more,) = shares(8, {"M": 24, "N": 96, "K": 64}, tile__m=8, tile__n=96, tile__k=1, lanes=("n",))
    assert more.threads == 3  # no more threads than tiles
