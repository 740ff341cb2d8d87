"""The normal form: designs that differ in nothing that a kernel shows become one, and others stay apart."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from programs import facts, traced

from tilewright.design.default import default_design
from tilewright.design.design import Design
from tilewright.design.legality import legal
from tilewright.design.normal import Normal
from tilewright.design.space import random_design
from tilewright.emit.abi import TensorLayout
from tilewright.emit.llvm import VectorUnit, emit
from tilewright.lower.stages import lower
from tilewright.machines.machine import Machine

SOFTMAX, MATMUL = traced("softmax"), traced("matmul", activation=None)


def text(program, design):
    """The kernel that a design makes, with symbolic sizes."""
    layouts = {
        p.name: TensorLayout((*(None,) * (len(p.dims) - 1), 1)) for p in program.params if p.dims is not None and p.dims
    }
    return emit(lower(program, design), layouts, {}, VectorUnit(64, frozenset({"avx512f"}))).text


@pytest.mark.parametrize("name", ["softmax", "layernorm", "matmul", "add_rmsnorm"])
def test_another_order_of_lanes_is_the_same_kernel(name):
    program = traced(name, **({"activation": None} if name == "matmul" else {}))
    known = facts(program)
    free = Normal(program, facts(program, **dict.fromkeys(program.dims, 1 << 30)))  # blocks and orders stay
    changed = 0
    for seed in range(40):
        design = random_design(program, known, random.Random(seed))
        form = free(design)
        assert free(form) == form
        assert legal(program, form, known) == []
        if form.names("lanes") != design.names("lanes") and len(design.decisions) == len(form.decisions):
            changed += 1
            assert text(program, form) == text(program, design)
    assert changed > 0 or name == "matmul"  # whose tiles tell its lanes apart


def test_orders_of_lanes_that_no_tile_tells_apart_are_one():
    normal = Normal(SOFTMAX, facts(SOFTMAX))
    tiles = {"tile.d": 64, "tile.d1": 64, "tile.d2": 64, "tile.m": 2}
    orders = [("d", "d1", "d2"), ("d2", "d", "d1"), ("d1", "d2", "d")]
    assert len({normal(Design.of({**tiles, "lanes": lanes})) for lanes in orders}) == 1


def test_an_order_that_decides_stays():
    normal = Normal(MATMUL, facts(MATMUL))
    tiles = {"tile.m": 16, "tile.n": 16, "tile.k": 16}
    rows, columns = (normal(Design.of({**tiles, "lanes": lanes})) for lanes in (("m", "n"), ("n", "m")))
    assert rows != columns


def test_a_block_beyond_the_size_is_the_whole_of_it_and_loops_of_one_step_have_no_order():
    normal = Normal(MATMUL, facts(MATMUL, M=64, N=64, K=64))
    rest = {"tile.m": 5, "tile.n": 64, "tile.k": 1, "lanes": ("n",), "block.n": 64}
    one = normal(Design.of({**rest, "block.m": 160, "order": ("n", "m")}))
    assert one == normal(Design.of({**rest, "block.m": 80}))
    assert one.number("block.m") == 65
    assert not one.names("order")


def test_an_order_of_loops_that_go_round_stays():
    normal = Normal(MATMUL, facts(MATMUL, M=64, N=64, K=64))
    design = Design.of({"tile.m": 4, "tile.n": 16, "tile.k": 1, "lanes": ("n",), "order": ("n", "m")})
    assert normal(design) == design


def test_the_default_has_a_form_that_is_legal_everywhere():
    for name in ("matmul", "softmax", "rmsnorm", "attention"):
        options = {"matmul": {"activation": None}, "attention": {"causal": True, "window": None}}.get(name, {})
        program = traced(name, **options)
        known = facts(program)
        assert legal(program, Normal(program, known)(default_design(program, known)), known) == []


def test_designs_for_a_gpu_are_left_as_they_are():
    """They may have lanes too, but no vector registers to ask about."""
    program = traced("attention")
    sizes = {"B": 1, "H": 8, "G": 4, "S": 1, "T": 2048, "D": 64, "E": 64}
    known = replace(facts(program, **sizes), machine=Machine.named("h200"))
    design = Design.of({"lanes": ("D", "E", "t", "s", "g"), "tile.t": 32, "tile.s": 1, "tile.g": 4, "warps": 4})
    assert Normal(program, known)(design) == design
