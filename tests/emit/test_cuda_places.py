"""Addresses of tiles as C++: where a tile begins, the term of each axis, and how many neighbours an access takes."""

import pytest

from tilewright.emit.cuda_layouts import Layouts, Spread
from tilewright.emit.cuda_places import Address, Addresses, Place
from tilewright.emit.cuda_scope import Scope
from tilewright.language import dtype, ir

BF16, I32 = dtype("bf16"), dtype("i32")


def rows(length=4096, step=1024, fixed=True):
    """The scope inside of `for i in parallel(M), d in tiles(D)`, each thread with 8 neighbours along d."""
    m, d = ir.Axis("i", "M", each=True), ir.Axis("d", "D", step)
    nest = ir.Loop((m,), (ir.Loop((d,), ()),), True)
    kernel = ir.Kernel("rows", (ir.Param("x", BF16, ("M", "D")),), (nest,))
    scope = Scope(kernel, {"D": length} if fixed else {})
    scope.enter(m, "i", "0", "M")
    scope.enter(d, "d_at", "0", "D")
    return scope, Layouts({"d": Spread(1, 8, 0, 7), "i": Spread(1, 1, 0, 0)})


def addresses(types=None, **sizes):
    return Addresses(*rows(**sizes), types or {}, lambda name: f"{name}_")


def test_a_tile_begins_at_its_row_and_runs_along_what_has_stride_one():
    place = Place("x", BF16, ("x_stride0", "1"), align=16)
    at = addresses().of(place, ir.Ref("x", ("i", "d")), ("d",))
    assert at == Address("x", "i * x_stride0", ("tw::by(d, tw::unit)",), 8)
    assert at.point == "x + i * x_stride0"
    assert at.element == "x[i * x_stride0]"


def test_a_scalar_at_the_origin_is_the_pointer_itself():
    at = addresses().of(Place("x", BF16, ("1",)), ir.Ref("x", (0,)), ())
    assert (at.point, at.element) == ("x", "*x")


@pytest.mark.parametrize(("align", "most"), [(2, 1), (4, 2), (8, 4), (16, 8), (32, 8)])
def test_an_access_takes_no_more_neighbours_than_rows_are_aligned(align, most):
    at = addresses().of(Place("x", BF16, ("x_stride0", "1"), align), ir.Ref("x", ("i", "d")), ("d",))
    assert at.most == most


def test_a_tile_that_begins_anywhere_is_read_element_by_element():
    at = addresses(step=12).of(Place("x", BF16, ("x_stride0", "1"), 16), ir.Ref("x", ("i", "d")), ("d",))
    assert at.most == 4  # every tile begins at a multiple of 12 elements


def test_an_index_read_from_memory_is_a_name_and_a_tile_of_them_a_gather():
    types = {"one": ir.TileType(I32, ()), "many": ir.TileType(I32, ("d",))}
    place = Place("x", BF16, ("64", "1"), 16)
    assert addresses(types).of(place, ir.Ref("x", ("one", "d")), ("d",)).offset == "one_ * 64"
    assert addresses(types).of(place, ir.Ref("x", ("many", 0)), ("d",)).terms == (
        "tw::by(d, 0)", "tw::picked(many_, 64)",
    )  # fmt: skip


def test_a_place_with_an_origin_counts_from_there():
    place = Place("x", BF16, ("64", "1"), 16, origin=("low", None))
    assert addresses().of(place, ir.Ref("x", ("i", "d")), ("d",)).offset == "i * 64 - low * 64"


def test_positions_past_an_edge_are_those_of_the_last_one_where_they_are_held():
    scope, layouts = rows()
    many = Addresses(scope, layouts, {}, str)
    place = Place("x", BF16, ("64", "1"), 16)
    assert many.of(place, ir.Ref("x", ("i", "d")), ("i", "d"), frozenset({"i", "d"})).terms == (
        "tw::held(i, 64)", "tw::by(d, tw::unit)",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("length", "step", "fixed", "edge"), [(4096, 1024, True, 0), (4095, 1024, True, 1), (4092, 1024, True, 4)]
)
def test_an_edge_is_what_every_short_tile_is_a_multiple_of(length, step, fixed, edge):
    some = addresses(length=length, step=step, fixed=fixed)
    assert some.edge("d") == edge
    place, ref = Place("x", BF16, ("x_stride0", "1"), 16), ir.Ref("x", ("i", "d"))
    assert some.reaches_past(place, ref, 8) == (edge % 8 != 0)
    assert some.whole_words(place, ref, ("d",))
