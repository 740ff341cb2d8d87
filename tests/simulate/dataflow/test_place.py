"""Designs made at once: tiles that fit, copies that leave units free, and units for the stages that need them."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tilewright import operators
from tilewright.errors import IllegalDesign
from tilewright.language.parser import parse
from tilewright.lower.dataflow.fit import check_fit, footprint
from tilewright.lower.dataflow.stages import lower_dataflow
from tilewright.machines import Machine
from tilewright.machines.dataflow import DataflowArray
from tilewright.simulate.dataflow.place import LARGEST_TILE, default_dataflow, with_units
from tilewright.simulate.dataflow.timing import Timing

from .machine import ARRAY, SCALED, lowered

SN40L = DataflowArray.of(Machine.named("sn40l"))
MATMUL = operators.matmul.kernel.trace("bf16")
SIZES = {"M": 512, "N": 512, "K": 512}


@pytest.mark.parametrize("name, sizes", [
    ("matmul", SIZES), ("softmax", {"M": 300, "D": 1000}), ("rmsnorm", {"M": 64, "D": 4096}),
    ("attention", {"B": 1, "H": 8, "G": 4, "S": 64, "T": 1024, "D": 128, "E": 128}),
])  # fmt: skip
def test_the_default_of_an_operator_fits_and_is_used(name, sizes):
    kernel = getattr(operators, name).kernel.trace("bf16")
    design = default_dataflow(kernel, sizes, SN40L)
    fit = check_fit(lower_dataflow(kernel, design, SN40L.name), sizes, SN40L)
    assert fit.compute_units() > SN40L.compute_units // 8


def test_tiles_shrink_until_they_fit():
    large, small = (default_dataflow(MATMUL, SIZES, replace(SN40L, unit_bytes=size, memory_units=16))
                    for size in (1 << 19, 1 << 12))  # fmt: skip
    assert large.number("tile.m") == LARGEST_TILE
    assert small.number("tile.m") < LARGEST_TILE


def test_where_no_tile_fits_the_reason_names_the_buffer():
    with pytest.raises(IllegalDesign, match=r"memory units of 1"):
        default_dataflow(parse(SCALED), {"M": 64, "N": 64}, replace(ARRAY, memory_units=1, unit_bytes=4))


def test_copies_are_no_more_than_there_are_tiles_and_leave_half_of_the_units():
    design = default_dataflow(MATMUL, {"M": 4096, "N": 4096, "K": 64}, SN40L)
    few = default_dataflow(MATMUL, {"M": 128, "N": 128, "K": 64}, SN40L)
    copies = footprint(lower_dataflow(MATMUL, design, SN40L.name), {"M": 4096, "N": 4096, "K": 64}).copies
    assert 1 < copies <= 32 * 32
    assert "par.m" not in dict(few.decisions) and "par.n" not in dict(few.decisions)


def test_units_go_to_the_stages_that_take_longest():
    sizes = {"M": 256, "N": 64}
    tiles = {"tile.m": 4, "tile.n": 8}
    few, many = (with_units(parse(SCALED), sizes, replace(ARRAY, compute_units=n), tiles) for n in (3, 64))
    assert not [n for n, _ in few.decisions if n.startswith("units.")]
    given = {n: v for n, v in many.decisions if n.startswith("units.")}
    assert given and sum(given.values()) <= 64
    lower = lower_dataflow(parse(SCALED), many, "small")
    fast, slow = (
        Timing(lower, sizes, ARRAY).whole(),
        Timing(lowered(SCALED, tile__m=4, tile__n=8), sizes, ARRAY).whole(),
    )
    assert fast.cycles <= slow.cycles
