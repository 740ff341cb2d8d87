"""Issue cycles of tiles, by hand, on a core of one 512-bit multiplication, one load and half a store a cycle."""

from __future__ import annotations

import dataclasses

import pytest
from programs import facts, traced

from tilewright.design.cost.cpu import Model
from tilewright.design.cost.forms import block_shuffles
from tilewright.design.cost.issue import Issue
from tilewright.design.cost.nodes import Leaf, share
from tilewright.design.cost.slots import Slots
from tilewright.design.cost.sums import SPILLED
from tilewright.design.design import Design

MATMUL = traced("matmul", activation=None)
PAIRS = traced("matmul", "bf16", activation=None)
RMSNORM = traced("rmsnorm")


def model(kernel, design: Design) -> Model:
    made = Model(kernel, design, facts(kernel, "zen5"))
    made.rates = dataclasses.replace(made.rates, fma=1.0, pairs=1.0, lanes=16, latency=4.0)
    made.issue = Issue(made.tiling, made.rates, made.schedule.panels)
    return made


def body(made: Model, axis: str) -> Slots:
    """The slots of the innermost body of the loop over `axis`."""
    root = share(made.schedule.phases[-1], made.tiling, 1).root
    found = Slots()
    for node in root.walk():
        if isinstance(node, Leaf):
            continue
        for child in node.children:
            if isinstance(child, Leaf):
                slots = made.issue.work(child.work)
                found = slots if node.axis == axis else found
    return found


def test_an_outer_product_multiplies_vectors_by_broadcasts():
    panels = {"pack.a": "panel", "pack.b": "panel"}
    made = model(MATMUL, Design.of({"tile.m": 8, "tile.n": 48, "tile.k": 1, "lanes": ("n",), **panels}))
    slots = body(made, "k")
    assert slots.multiply == 8 * 3
    assert slots.load == 3 * 1.0 + 8 * 0.5  # whole vectors of b, elements of a
    assert slots.chain == 4.0
    assert made.issue.excess("k").cycles(made.rates) == 0  # 24 sums, 3 vectors of b, one of a: 28 registers


def test_sums_beyond_the_registers_are_spilled():
    panels = {"pack.a": "panel", "pack.b": "panel"}
    made = model(MATMUL, Design.of({"tile.m": 12, "tile.n": 48, "tile.k": 1, "lanes": ("n",), **panels}))
    body(made, "k")
    assert made.issue.excess("k").load == SPILLED * (36 + 3 + 1 - 32)
    assert made.issue.excess("k").store == SPILLED * 2 * 8


def test_an_inner_product_chains_the_chunks_of_its_tile():
    made = model(MATMUL, Design.of({"tile.m": 1, "tile.n": 4, "tile.k": 64, "lanes": ("k",)}))
    slots = body(made, "k")
    assert slots.multiply == 4 * 4  # four rows by four vectors
    assert slots.load == 4 + 4 * 4
    assert slots.chain == 4 * 4.0


def test_pairs_take_half_the_steps():
    design = Design.of({"tile.m": 2, "tile.n": 4, "tile.k": 64, "lanes": ("k",), "atom.dot0": "bf16x2"})
    slots = body(model(PAIRS, design), "k")
    assert slots.multiply == 2 * 4 * 2
    assert slots.load == (2 + 4) * 2


def test_an_operand_read_across_its_rows_is_transposed():
    made = model(MATMUL, Design.of({"tile.m": 1, "tile.n": 16, "tile.k": 16, "lanes": ("n", "k")}))
    slots = body(made, "k")
    assert slots.shuffle == 64 + 16  # b: a block of 16 by 16; a: 16 elements of a vector, broadcast


def test_a_row_operator_loads_multiplies_and_stores():
    made = model(RMSNORM, Design.of({"tile.m": 1, "tile.d": 64, "tile.d1": 64, "lanes": ("d", "d1")}))
    assert body(made, "d").load == 4
    assert body(made, "d").multiply == 4 + 4  # squares, and their sum over four vectors
    assert body(made, "d1").store == 4 * 2
    assert body(made, "d1").load == 8  # x and weight


def test_narrow_vectors_issue_twice_as_often_and_no_more():
    slots = Slots()
    slots.vectors(model(MATMUL, Design.of({})).rates, 8, 10, multiply=True)
    assert slots.multiply == 5
    slots.vectors(model(MATMUL, Design.of({})).rates, 1, 10, multiply=True)
    assert slots.multiply == 10


def test_tile_products_take_sixteen_cycles():
    design = Design.of({"tile.m": 32, "tile.n": 32, "tile.k": 32, "lanes": ("n",), "atom.dot0": "amx_bf16",
                        "pack.a": "tile", "pack.b": "pair"})  # fmt: skip
    made = Model(PAIRS, design, facts(PAIRS, "sapphire-rapids"))
    assert body(made, "k").multiply == 4 * 16
    program = traced("matmul", "i8", activation=None)
    bytes_ = {**dict(design.decisions), "tile.k": 64, "atom.dot0": "amx_int8", "pack.b": "quad"}
    assert body(Model(program, Design.of(bytes_), facts(program, "sapphire-rapids")), "k").multiply == 4 * 16


@pytest.mark.parametrize(("rows", "columns", "exchanges"), [(16, 16, 64), (8, 8, 24), (1, 1, 0), (16, 8, 2 * 24 + 8)])
def test_transposes(rows, columns, exchanges):
    assert block_shuffles(rows, columns) == exchanges


def test_a_sum_in_several_accumulators_takes_the_registers_of_all():
    """Twelve sums, each a vector along what is summed; in two accumulators each, and in four, which are too many."""
    inner = {"tile.m": 4, "tile.n": 3, "tile.k": 64, "lanes": ("k",)}
    excess = []
    for split in (1, 2, 4):
        made = model(MATMUL, Design.of({**inner, **({"split.k": split} if split > 1 else {})}))
        body(made, "k")
        excess.append(made.issue.excess("k").load)
    assert excess[0] == excess[1] == 0.0  # 12 and 24 sums, 3 vectors held, one that streams by
    assert excess[2] == SPILLED * (48 + 3 + 1 - 32) * 4


def test_a_whole_product_of_a_step_waits_in_registers_beside_the_sums():
    """Attention: 16 sums of the result, and the scores of 4 rows by 64 keys, 16 vectors, before any of them is read."""
    attention = traced("attention")
    lanes = {"lanes": ("D", "E", "t"), "tile.g": 1, "tile.s": 4}
    excess = []
    for keys in (16, 64):
        made = model(attention, Design.of({**lanes, "tile.t": keys}))
        body(made, "t")
        excess.append(made.issue.excess("t").load)
    assert excess[0] == 0.0
    assert excess[1] > 0.0
