"""What follows a product in its tile: instructions, special functions and requests, counted by hand."""

from __future__ import annotations

import pytest
from programs import traced

from tilewright.design.cost.gpu_epilogue import Tile, epilogue, stores
from tilewright.design.cost.gpu_rates import GpuRates, joined
from tilewright.design.cost.program import program_of

RATES = GpuRates(1e9, 1e12, 1e12, latency_s=5e-7, partial_stores_per_s=1e10)
POINTS = 128 * 256


def tile(odd: bool = False, swapped: bool = False) -> Tile:
    return Tile({"m": 128, "n": 256}, 2, odd, swapped)


def test_nothing_follows_a_plain_product_but_its_stores():
    assert epilogue(program_of(traced("matmul", "bf16", activation=None)), tile(), RATES) == 0


def test_gelu_is_bound_by_instructions_and_not_by_the_special_unit():
    """8 instructions of erf and 4 around it, one of the special unit: 0.09 and 0.06 cycles an element."""
    program = program_of(traced("matmul", "bf16", activation="gelu"))
    low, high = (joined(POINTS * n / 128, POINTS / 16) / 1e9 for n in (11, 13))
    assert low <= epilogue(program, tile(), RATES) <= high


def test_a_residual_is_awaited_and_passes_l1_line_by_line():
    program = program_of(traced("matmul", "bf16", full=True, activation=None))
    took = epilogue(program, tile(), RATES)
    assert took == pytest.approx(5e-7 + POINTS / 8 / 1e9, rel=0.02)
    assert epilogue(program, tile(odd=True), RATES) == pytest.approx(took + POINTS / 8 / 1e9, rel=0.02)


@pytest.mark.parametrize(("odd", "swapped", "elements"), [(False, False, 8), (True, True, 8), (True, False, 4)])
def test_requests_of_a_store(odd, swapped, elements):
    requests = POINTS / elements
    shared = requests * 132 / 1e10 if elements == 4 else 0.0
    assert stores(tile(odd, swapped), 132, False, RATES) == pytest.approx(joined(requests / 1e9, shared))


def test_the_copy_engine_is_handed_a_tile_through_shared_memory():
    assert stores(tile(), 132, True, RATES) == pytest.approx(POINTS * 2 / 128 / 1e9)
