"""Blocks of a program that is no plain product: how many, what each moves, how many an SM holds."""

from __future__ import annotations

from dataclasses import replace

import pytest
from programs import facts, traced

from tilewright.design.cost.gpu_grid import grids, resident
from tilewright.design.cost.program import program_of
from tilewright.design.cost.usage import Usage
from tilewright.design.cost.waves import Waves
from tilewright.design.design import Design

RMSNORM, TOPK = traced("rmsnorm", "bf16"), traced("topk", "bf16")
KEPT = {"keep.x1": True, "tile.d": 1024, "tile.d1": 1024, "tile.m": 1, "warps": 4}


def grid(kernel, design, **sizes):
    known = replace(facts(kernel, "h200", **sizes), fixed=frozenset({"D"}))
    return grids(program_of(kernel, design), design, known, 1.0)[0]


def test_a_row_that_stays_is_loaded_once_and_weights_once_an_sm():
    found = grid(RMSNORM, Design.of(KEPT), M=8192, D=4096)
    assert (found.blocks, found.stored) == (8192, 2 * 4096)
    assert found.bytes == pytest.approx(2 * 2 * 4096 + 2 * 4096 * 132 / 8192)


def test_blocks_of_a_cluster_share_a_row():
    design = Design.of({**KEPT, "split.d": 8, "split.d1": 8})
    found = grid(RMSNORM, design, M=16, D=65536)
    assert (found.blocks, found.cluster) == (16 * 8, 8)
    assert found.stored == 2 * 65536 / 8


def test_rounds_read_a_row_again_unless_it_is_held():
    tiles = {"tile.d": 2048, "tile.d1": 2048, "tile.m": 1, "warps": 8}
    again, held = (grid(TOPK, Design.of(tiles | more), M=4, D=32768, K=8) for more in ({}, {"hold.x": True}))
    assert again.bytes - again.stored == 2 * 8 * 2 * 32768
    assert held.bytes - held.stored == 2 * 32768


def test_what_a_thread_holds_of_a_row_takes_the_place_of_blocks():
    known = replace(facts(RMSNORM, "h200", M=64, D=16384), fixed=frozenset({"D"}))
    short = replace(known, sizes={**known.sizes, "D": 1024})
    long, few = (resident(program_of(RMSNORM, Design.of(KEPT)), Design.of(KEPT), f, None) for f in (known, short))
    assert long < few
    assert resident(program_of(RMSNORM), Design.of(KEPT), known, Usage(128, 255)) == 2  # the assembler's word counts


def test_the_fullest_place_decides():
    assert Waves(128, 124).fullness == pytest.approx(128 / (2 * 124))
    assert Waves(248, 124).fullness == 1.0
    assert Waves(8, 124).fullness == 1.0
    assert Waves(0, 124).fullness == 1.0
