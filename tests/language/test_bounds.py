"""Bounds: what is proved, which tiles may be short, which integers need a check."""

from __future__ import annotations

import pytest
import tile_programs as programs

from tilewright.language.bounds import prove
from tilewright.language.parser import parse


def unproved(access):
    return [(u.index, u.dim, u.why) for u in access.unproved]


def accesses(body, signature="x: f32[M, 4], y: f32[N], p: i64[M]", **sizes):
    return prove(parse(f"kernel k({signature}) {{ {body} }}"), sizes)


def test_matmul_is_in_bounds_and_ragged_without_steps():
    found = prove(programs.EXAMPLES["matmul"])
    assert [a.ragged for a in found] == [("m", "k"), ("n", "k"), ("m", "n")]
    assert not any(a.unproved for a in found)


@pytest.mark.parametrize(
    ("loop", "sizes", "ragged"),
    [
        ("for i in M step 8", {"M": 64}, False),
        ("for i in M step 8", {"M": 60}, True),
        ("for i in M step 8", {"M": 65}, True),
        ("for i in M step 8", {}, True),
        ("for i in M", {"M": 64}, True),
        ("for i in M from 8 to 24 step 8", {"M": 64}, False),
        ("for i in M from 8 to 24 step 8", {"M": 20}, True),
        ("for i in M from 4 step 8", {"M": 64}, True),
        ("for h in M step 16, i in h step 8", {"M": 64}, False),
        ("for h in M step 12, i in h step 8", {"M": 60}, True),
        ("for h in M step 16, i in h step 8", {"M": 60}, True),
        ("for each h in M, i in h step 1", {}, False),
        ("n = full M : i64[] for i in M to n step 8", {"M": 64}, True),
    ],
)
def test_ragged(loop, sizes, ragged):
    (access,) = accesses(loop + " { v = load x[i, 0] : f32[i] }", **sizes)
    assert access.ragged == (("i",) if ragged else ())
    assert access.safe is not ragged


def test_whole_dims_and_points_are_never_ragged():
    (access,) = accesses("for each i in M { v = load x[i, 3] : f32[] w = exp v : f32[] }")
    assert access.safe
    (access,) = accesses("v = load y[N] : f32[N]")
    assert access.safe


@pytest.mark.parametrize(
    ("index", "sizes", "why"),
    [
        ("at = coord i : i64[i]", {}, "sizes"),
        ("c = coord i : i64[i] at = add c one : i64[i]", {}, "sizes"),
        ("c = coord i : i64[i] at = add c one : i64[i]", {"M": 8, "N": 9}, None),
        ("c = coord i : i64[i] at = add c one : i64[i]", {"M": 8, "N": 8}, "sizes"),
        ("c = coord i : i64[i] at = div c four : i64[i]", {"M": 32, "N": 8}, None),
        ("c = coord i : i64[i] at = mul c four : i64[i]", {"M": 2, "N": 5}, None),
        ("c = coord i : i64[i] d = sub c four : i64[i] at = max d zero : i64[i]", {"M": 12, "N": 8}, None),
        ("c = coord i : i64[i] d = neg c : i64[i] at = min d zero : i64[i]", {"M": 8, "N": 9}, "sizes"),
        ("at = load p[i] : i64[i]", {"M": 8, "N": 9}, "data"),
        ("q = load p[i] : i64[i] at = mod q four : i64[i]", {"N": 4}, None),
        ("q = load p[i] : i64[i] r = max q zero : i64[i] at = min r four : i64[i]", {"N": 5}, None),
    ],
)
def test_integer_indices(index, sizes, why):
    constants = "one = full 1 : i64[] four = full 4 : i64[] zero = full 0 : i64[] "
    body = f"{constants} for i in M {{ {index} v = load y[at] : f32[i] }}"
    access = accesses(body, **sizes)[-1]
    assert [u.why for u in access.unproved] == ([] if why is None else [why])


def test_the_position_along_an_axis_is_inside_its_dimension():
    (access,) = accesses("for i in M { at = coord i : i64[i] v = load x[at, 0] : f32[i] }")
    assert not access.unproved


def test_positions():
    (access,) = accesses("v = load x[M, 3] : f32[M]")
    assert access.safe
    (access,) = accesses("v = load y[0] : f32[]")
    assert unproved(access) == [(0, "N", "sizes")]
    assert accesses("v = load y[0] : f32[]", N=1)[0].safe


def test_a_carried_index_is_not_proved():
    body = "n = full 0 : i64[] o = full 1 : i64[] for i in M { v = load y[n] : f32[] m = add n o : i64[] n := m }"
    assert unproved(accesses(body, N=100)[0]) == [("n", "N", "data")]


def test_the_page_table_is_data():
    (table, pages, _) = prove(programs.EXAMPLES["paged_gather"], {"P": 4, "T": 12, "L": 3})
    assert not table.unproved
    assert unproved(pages) == [("table0", "N", "data")]
    assert pages.ragged == ("t",)
