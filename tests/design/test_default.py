"""Default designs: legal everywhere, the same for sizes of one class, and of the shape that each nest calls for."""

from __future__ import annotations

import itertools

import pytest
from programs import SHIPPED, SIZES, facts, traced

import tilewright as tw
from tilewright import Tensor
from tilewright.design.default import Facts, default_design
from tilewright.design.legality import legal
from tilewright.machines.machine import Machine
from tilewright.operators import OPERATORS

OPTIONS = {
    "matmul": {"activation": None}, "gelu": {"activation": "gelu"}, "attention": {"causal": True, "window": 64},
    "paged_attention": {"causal": True, "window": None},
}  # fmt: skip
SHAPES = (
    SIZES,
    dict.fromkeys(SIZES, 1),
    {"M": 0, "K": 0, "T": 0},
    {"M": 1, "K": 4096, "N": 4096, "D": 128, "E": 128, "R": 64},
    {"M": 7, "N": 17, "K": 33, "D": 80, "E": 80, "R": 40, "S": 3},
    {"D": 4096, "E": 4096, "R": 100, "S": 1, "T": 1000},
    {"M": 100_000, "N": 50_000, "K": 10_000, "D": 256, "E": 256, "R": 128, "T": 100_000},
)


@pytest.mark.parametrize("machine", SHIPPED)
@pytest.mark.parametrize("name", OPERATORS)
def test_every_default_design_is_legal(name, machine):
    for element, full, unit, sizes in itertools.product(("f32", "bf16", "f16"), (False, True), (-1, 0, None), SHAPES):
        program = traced(name, element, full, **OPTIONS.get(name, {}))
        known = facts(program, machine, unit, **{d: n for d, n in sizes.items() if d in program.dims})
        tensors = frozenset(p.name for p in program.params if p.dims is not None)
        for variant in (
            known,
            Facts(known.sizes, known.unit, known.machine, tensors, known.fixed),
            Facts(known.sizes, known.unit, known.machine, frozenset(), frozenset(known.sizes)),
        ):
            design = default_design(program, variant)
            reasons = legal(program, design, variant)
            assert not reasons, f"{element} {full} {unit} {sizes} {design.to_json()}: {'; '.join(map(str, reasons))}"


def test_products_of_many_rows_are_packed_and_blocked():
    program = traced("matmul", activation=None)
    design = default_design(program, facts(program, M=1024, N=1024, K=4096))
    assert design.names("lanes") == ("n",)
    assert dict(design.prefixed("pack")) == {"a": "panel", "b": "panel"}
    assert set(dict(design.prefixed("block"))) == {"m", "n", "k"}


def test_products_of_few_rows_read_each_weight_once():
    program = traced("matmul", activation=None)
    design = default_design(program, facts(program, M=1, N=4096, K=4096))
    assert design.names("lanes")[0] == "k"
    assert not dict(design.prefixed("pack"))


def test_instructions_are_those_of_the_machine():
    program = traced("matmul", "bf16", activation=None)
    atoms = {m: dict(default_design(program, facts(program, m)).prefixed("atom")) for m in SHIPPED}
    assert atoms["sapphire-rapids"] == {"dot0": "amx_bf16"}
    assert atoms["zen5"] == {"dot0": "bf16x2"}
    assert atoms["x86-avx512"] == atoms["x86-avx2"] == atoms["arm-neon"] == {}


@pytest.mark.parametrize(
    ("sizes", "packed", "tiles"),
    [
        ({"M": 16, "N": 3072, "K": 2048}, {"a": "pair"}, (16, 32)),
        ({"M": 128, "N": 3072, "K": 2048}, {"a": "pair"}, (32, 32)),
        ({"M": 128, "N": 2048, "K": 16384}, {"a": "pair"}, (64, 16)),  # the rows are more than L2 holds
        ({"M": 512, "N": 512, "K": 512}, {"a": "pair"}, (32, 32)),  # rows of weights are shorter than a page
        ({"M": 512, "N": 3072, "K": 2048}, {"a": "pair", "b": "tile"}, (32, 32)),
        ({"M": 8192, "N": 64, "K": 512}, {"b": "pair"}, (32, 32)),  # each row is read twice only
    ],
)
def test_tile_registers_take_words_of_the_rows_and_weights_where_they_lie(sizes, packed, tiles):
    program = traced("matmul", "bf16", activation=None)
    design = default_design(program, facts(program, "sapphire-rapids", **sizes))
    assert dict(design.prefixed("pack")) == packed
    assert (design.number("tile.m"), design.number("tile.n")) == tiles


def test_weights_that_lie_along_the_result_are_the_words():
    program = traced("matmul", "bf16", activation=None)
    design = default_design(program, facts(program, "sapphire-rapids", 0, M=512, N=512, K=512))
    assert design.names("lanes") == ("n",)


def test_a_slab_leaves_l1_room_for_the_rows_that_its_panel_meets():
    program = traced("matmul", activation=None)
    for name in ("sapphire-rapids", "zen5"):
        known = facts(program, name, M=2048, N=2048, K=2048)
        design = default_design(program, known)
        step = 4 * (design.number("tile.m") + design.number("tile.n"))
        assert design.number("block.k") * step <= (known.machine.l1_bytes or 0)


def test_bytes_are_multiplied_by_tile_registers_where_rows_fill_them():
    program = traced("matmul", "i8", activation=None)
    known = {rows: default_design(program, facts(program, "sapphire-rapids", M=rows)) for rows in (1, 16, 512)}
    assert [d.get("atom.dot0") for d in known.values()] == ["vnni", "amx_int8", "amx_int8"]
    assert known[512].number("tile.k") == 64
    assert set(dict(known[512].prefixed("pack")).values()) == {"quad"}, "rows of the weights are loaded where they lie"
    assert default_design(program, facts(program, "zen5")).get("atom.dot0") == "vnni"


def test_lanes_lie_along_unit_strides():
    program = traced("scale_add")
    assert default_design(program, facts(program, unit=-1)).names("lanes") == ("d",)
    assert default_design(program, facts(program, unit=0)).names("lanes") == ("m",)


def test_tiles_follow_the_width_of_vectors():
    program = traced("rmsnorm")
    for machine in SHIPPED:
        lanes = Machine.named(machine).vector_bits // 32
        assert default_design(program, facts(program, machine)).number("tile.d") % lanes == 0


@tw.kernel
def scaled_product(x: Tensor["M", "K"], w: Tensor["N", "K"], y: Tensor["M", "N"]):
    for m, n in tw.parallel("M", "N"):
        total = tw.zeros(m, n, dtype=tw.f32)
        for k in tw.tiles("K"):
            total += tw.dot(x[m, k], (w[n, k] * 2.0).T)
        y[m, n] = total


@pytest.mark.parametrize("element", ["f32", "bf16"])
@pytest.mark.parametrize("machine", SHIPPED)
def test_an_operand_that_is_computed_has_no_panel(machine, element):
    program = scaled_product.trace(element)
    for rows in (1, 64, 2048):
        known = facts(program, machine, M=rows)
        assert legal(program, default_design(program, known), known) == []
