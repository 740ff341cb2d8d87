"""The space of designs: random members, grids, the pool, and encodings, for every operator and without its name."""

from __future__ import annotations

import math
import random
from itertools import islice

import pytest
from landscapes import Landscape
from programs import facts, traced

from tilewright.design.choice import choose
from tilewright.design.default import default_design
from tilewright.design.design import Design
from tilewright.design.draw import choices
from tilewright.design.encoding import NAMES, encode
from tilewright.design.legality import legal
from tilewright.design.mutations import steps
from tilewright.design.space import drawn_grid, enumerate_space, pool, random_design
from tilewright.operators import OPERATORS

OPTIONS = {
    "matmul": {"activation": None}, "gelu": {"activation": "gelu"}, "attention": {"causal": True, "window": 64},
    "paged_attention": {"causal": True, "window": None},
}  # fmt: skip
MATMUL = traced("matmul", "bf16", activation=None)


@pytest.mark.parametrize("machine", ["zen5", "sapphire-rapids", "x86-avx2"])
@pytest.mark.parametrize("name", OPERATORS)
def test_random_designs_are_legal_many_and_seeded(name, machine):
    program = traced(name, "bf16", **OPTIONS.get(name, {}))
    known = facts(program, machine)
    first, again = ([random_design(program, known, random.Random(seed)) for seed in range(12)] for _ in range(2))
    assert first == again
    assert all(legal(program, d, known) == [] for d in first)
    assert len(set(first)) > 6


@pytest.mark.parametrize("name", OPERATORS)
def test_random_designs_exist_for_sizes_of_nothing_and_of_one(name):
    program = traced(name, **OPTIONS.get(name, {}))
    for size in (0, 1):
        known = facts(program, **dict.fromkeys((d for d in program.dims if d not in "DER"), size))
        assert legal(program, random_design(program, known, random.Random(0)), known) == []


def test_random_designs_use_the_instructions_of_the_machine():
    atoms = set()
    for seed in range(60):
        design = random_design(MATMUL, facts(MATMUL, "sapphire-rapids"), random.Random(seed))
        atoms.add(design.get("atom.dot0", "fma"))
    assert atoms == {"fma", "bf16x2", "amx_bf16"}
    program = traced("matmul", "i8", activation=None)
    drawn = [random_design(program, facts(program, "sapphire-rapids"), random.Random(seed)) for seed in range(60)]
    assert {d.get("atom.dot0", "fma") for d in drawn} == {"fma", "vnni", "amx_int8"}


def test_attention_in_pairs_is_drawn_and_near_the_default():
    """With the lanes along what is summed, and with a vector of queries that meets keys one by one."""
    program = traced("attention", "bf16", causal=True, window=None)
    known = facts(program, "sapphire-rapids", D=64, E=64, S=512, T=512)
    drawn = [random_design(program, known, random.Random(seed)) for seed in range(60)]
    pairs = [d for d in drawn if d.get("atom.dot0") == d.get("atom.dot1") == "bf16x2"]
    assert {d.names("lanes")[0] == "D" for d in pairs} == {True, False}
    default = default_design(program, known)
    near = {d for _, d in steps(program, default, known)}
    assert {default.with_(**{"atom.dot0": "bf16x2"}), default.with_(**{"atom.dot1": "bf16x2"})} <= near


def test_a_grid_is_every_legal_combination_once():
    program = traced("matmul", activation=None)
    known = facts(program)
    grid = enumerate_space(
        program, known, {"tile.n": (16, 24), "lanes": (("n",), None), "tile.m": (1, 1)}, Design.of({"tile.k": 2})
    )
    # 24 is no number of whole vectors: only without lanes.
    assert [dict(d.decisions) for d in grid] == [
        {"tile.k": 2, "tile.m": 1, "tile.n": 16, "lanes": ("n",)},
        {"tile.k": 2, "tile.m": 1, "tile.n": 16},
        {"tile.k": 2, "tile.m": 1, "tile.n": 24},
    ]


def test_the_drawn_grid_is_the_whole_of_what_is_drawn():
    program = traced("rope")
    known = facts(program)
    grid = list(drawn_grid(program, known))
    assert len(set(grid)) == len(grid) <= choices(program, known)
    assert all(legal(program, d, known) == [] for d in grid)
    assert list(islice(drawn_grid(program, known), 5)) == grid[:5]


def test_the_pool_is_the_models_order_and_the_same_every_time():
    scape = Landscape.of("matmul", 3)
    found = pool(scape.kernel, scape.facts, scape.model, 120)
    assert len(set(found)) == len(found) == 120
    assert default_design(scape.kernel, scape.facts) in found
    times = [scape.model(d) for d in found]
    assert times == sorted(times)
    assert pool(scape.kernel, scape.facts, scape.model, 120) == found
    assert choose(scape.kernel, scape.facts, scape.model, 3, size=120) == found[:3]


@pytest.mark.parametrize("name", OPERATORS)
def test_encodings_have_one_length_and_are_finite(name):
    program = traced(name, **OPTIONS.get(name, {}))
    known = facts(program)
    for seed in range(5):
        numbers = encode(program, random_design(program, known, random.Random(seed)), known)
        assert len(numbers) == len(NAMES) == len(set(NAMES))
        assert all(map(math.isfinite, numbers))


def test_encodings_tell_designs_apart():
    known = facts(MATMUL, "sapphire-rapids")
    designs = {random_design(MATMUL, known, random.Random(seed)) for seed in range(40)}
    assert len({encode(MATMUL, d, known) for d in designs}) > 0.9 * len(designs)
    tiled = encode(MATMUL, Design.of({"tile.m": 8, "tile.n": 32, "lanes": ("n",)}), known)
    told = dict(zip(NAMES, tiled, strict=True))
    assert told["p1.tile"] == math.log2(9)  # m is the outer of the two parallel axes
    assert told["p0.lane"] == 1.0
    assert told["p2.size"] == 0.0  # there is no third
