"""Buckets: every size lies in one range, ranges nest in those of batches, and programs are bucketed by their rows."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from programs import traced

from tilewright.runtime.buckets import EDGES, Range, nearest_of, place_of, range_of, roles, shape_of


@given(st.integers(0, 10**9))
def test_every_size_lies_in_its_range_and_in_no_other(size):
    found = range_of(size)
    assert size in found
    assert {range_of(found.low), range_of(found.high)} == {found}
    assert range_of(found.high + 1) != found
    assert found.low == 0 or range_of(found.low - 1) != found


@pytest.mark.parametrize(("low", "high"), [(1, 16), (17, 64), (65, 256), (257, 1024)])
def test_ranges_nest_in_those_of_batches(low, high):
    inside = {range_of(n) for n in range(low, high + 1)}
    assert min(r.low for r in inside) == low
    assert max(r.high for r in inside) == high


def test_ranges_are_written_as_people_do():
    assert [str(range_of(n)) for n in (1, 3, 16, 17, 65)] == ["1", "2-4", "5-16", "17-64", "65-256"]
    assert len(EDGES) == len(set(EDGES))


def test_rows_of_a_product_are_its_batch_and_weights_have_no_range():
    kernel = traced("matmul", activation=None)
    assert roles(kernel).batch == "M"
    place = place_of(kernel, {"M": 20, "K": 4096, "N": 64})
    assert dict(place) == {"M": Range(17, 64), "K": 4096, "N": 64}


def test_attention_is_bucketed_by_sequences_and_keys():
    kernel = traced("attention", full=True, causal=False, window=None)
    assert roles(kernel) == ("B", "T")
    sizes = dict.fromkeys(kernel.dims, 16) | {"B": 3, "T": 100, "S": 1}
    shape = shape_of(kernel, sizes)
    assert (shape.batch, shape.length, shape.dtype) == (Range(2, 4), Range(65, 256), "f32")
    assert dict(place_of(kernel, sizes, whole=("D", "E")))["D"] == 16


def test_of_known_sizes_those_in_the_place_serve_the_nearest_first():
    place = (("M", Range(17, 64)), ("K", 8))
    known = [(("M", 17), ("K", 8)), (("M", 60), ("K", 8)), (("M", 16), ("K", 8)), (("M", 20), ("K", 9))]
    assert nearest_of(place, {"M": 50, "K": 8}, known) == [known[1], known[0]]
