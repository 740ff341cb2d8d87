"""Mutations: what each changes, that all neighbours are legal, and that chains of them keep the meaning."""

from __future__ import annotations

import os
import random
import re
from dataclasses import replace

import pytest
from compiled import Guarded, Run, machines
from drawn import BUILDERS, case
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from programs import facts, traced

from tilewright.design.default import default_design
from tilewright.design.design import Design
from tilewright.design.legality import legal
from tilewright.design.mutations import (
    Accumulate,
    Block,
    Deal,
    FetchAhead,
    Illegal,
    Interchange,
    Keep,
    Pack,
    PackLocally,
    Part,
    Prefetch,
    Reorder,
    Scalarise,
    Scatter,
    SetTile,
    Stream,
    Together,
    Unroll,
    UseAtom,
    UseThreads,
    Vectorise,
    Widen,
    neighbours,
)
from tilewright.design.space import random_design, random_step
from tilewright.language.interpreter import run
from tilewright.language.verifier import check
from tilewright.lower.stages import lower
from tilewright.operators import OPERATORS
from tilewright.runtime import tolerance
from tilewright.runtime.dispatch import whole_dims

EXAMPLES = int(os.environ.get("TILEWRIGHT_TEST_EXAMPLES", "5"))  # chains drawn for each operator
START = Design.of({"tile.m": 4, "tile.n": 32, "lanes": ("n", "m")})
MATMUL = traced("matmul", activation=None)
OPTIONS = {
    "matmul": {"activation": None}, "gelu": {"activation": "gelu"}, "attention": {"causal": True, "window": 64},
    "paged_attention": {"causal": True, "window": None},
}  # fmt: skip

CHANGES = [
    (SetTile("m", 8), {"tile.m": 8}),
    (SetTile("k", 2), {"tile.k": 2}),
    (Scatter("m", 16), {"apart.m": 16}),
    (FetchAhead("b0", 4), {"ahead.b0": 4}),
    (Vectorise("n"), {"tile.n": 64}),
    (Vectorise("k"), {"tile.k": 2, "lanes": ("k", "n", "m")}),
    (Interchange("m"), {"lanes": ("m", "n")}),
    (Unroll("k", 4), {"unroll.k": 4}),
    (Accumulate("k", 4), {"split.k": 4}),
    (Part("k", 512), {"part.k": 512}),
    (Keep("e", True), {"keep.e": True}),
    (Block("m", 64), {"block.m": 64}),
    (Block("k", 128, parallel=False), {"block.k": 128}),
    (Reorder("order", ("n", "m")), {"order": ("n", "m")}),
    (Pack("b", "panel"), {"pack.b": "panel"}),
    (Stream("c", True), {"nontemporal.c": True}),
    (Scalarise("m"), {"lanes": ("n",)}),
    (Vectorise("D", tiled=False), {"lanes": ("D", "n", "m")}),
    (Prefetch("a0", 2), {"prefetch.a0": 2}),
    (UseThreads(1), {"threads": 1}),
    (Deal("drawn"), {"dealt": "drawn"}),
    (Together((SetTile("m", 8), SetTile("n", 16))), {"tile.m": 8, "tile.n": 16}),
    (UseAtom(("dot0",), "amx_bf16", (("a", "tile"), ("b", "pair")), (("m", 16), ("n", 16), ("k", 32)), "n"),
     {"atom.dot0": "amx_bf16", "pack.a": "tile", "pack.b": "pair", "tile.m": 16, "tile.n": 32, "tile.k": 32}),
    (UseAtom(("dot0",), "amx_int8", (("a", "tile"), ("b", "quad")), (("m", 16), ("n", 16), ("k", 64)), "n"),
     {"atom.dot0": "amx_int8", "pack.a": "tile", "pack.b": "quad", "tile.m": 16, "tile.n": 32, "tile.k": 64}),
    (Widen(("a", "b"), True), {"unpack.a": True, "unpack.b": True}),
    (UseAtom(("dot0",), "vnni", (), (("k", 32),)), {"atom.dot0": "vnni", "tile.k": 32}),
    (UseAtom(("dot0",), "bf16x2", (("a", "pair"), ("b", "pair")), (("k", 2),)),
     {"atom.dot0": "bf16x2", "pack.a": "pair", "pack.b": "pair", "tile.k": 2}),
]  # fmt: skip


@pytest.mark.parametrize("mutation, changes", CHANGES, ids=lambda x: type(x).__name__)
def test_what_a_mutation_changes(mutation, changes):
    assert mutation.apply(START) == Design.of({**dict(START.decisions), **changes})


@pytest.mark.parametrize("mutation, _", CHANGES, ids=lambda x: type(x).__name__)
def test_mutations_are_values_with_an_example(mutation, _):
    assert mutation == replace(mutation)
    assert len({mutation, replace(mutation)}) == 1
    assert "before:" in type(mutation).__doc__
    assert "after:" in type(mutation).__doc__


def test_a_block_stays_whole_tiles():
    blocked = Block("m", 8).apply(START)
    assert SetTile("m", 6).apply(blocked).number("block.m") == 12


def test_a_part_stays_whole_tiles():
    parted = Part("k", 100).apply(SetTile("k", 32).apply(START))
    assert parted.number("part.k") == 128
    assert SetTile("k", 48).apply(parted).number("part.k") == 144


def test_packing_inside_blocks():
    packed = Pack("b", "panel").apply(START)
    assert PackLocally("b", True).apply(packed).get("local.b") is True
    assert PackLocally("b", True).apply(START) == Illegal("b is not packed; pack it first")
    assert Pack("b", None).apply(PackLocally("b", True).apply(packed)) == START


def test_taking_a_decision_back():
    assert Block("m", 0).apply(Block("m", 8).apply(START)) == START
    assert Unroll("k", 1).apply(Unroll("k", 2).apply(START)) == START
    assert Accumulate("k", 1).apply(Accumulate("k", 2).apply(START)) == START
    assert Part("k", 0).apply(Part("k", 64).apply(START)) == START
    assert Keep("e", False).apply(Keep("e", True).apply(START)) == START
    assert Pack("b", None).apply(Pack("b", "panel").apply(START)) == START
    assert Deal(None).apply(Deal("turns").apply(START)) == START
    assert Stream("c", False).apply(Stream("c", True).apply(START)) == START


@pytest.mark.parametrize(
    "mutation, reason",
    [
        (SetTile("m", 4), "tile.m: the design has it so already"),
        (SetTile("m", 0), "a tile of m has at least one point, not 0"),
        (Interchange("k"), "k is not among the lanes .*; vectorise it first"),
        (Unroll("k", 0), "cannot be written out 0 times"),
        (Accumulate("k", 0), "takes one accumulator at least, not 0"),
        (Part("k", -1), "has at least one point, not -1"),
        (Block("m", 6), "block.m=6 is not a multiple of tile.m=4"),
        (Reorder("outside", ("n", "m")), "outside is no level of a nest"),
        (Pack("b", None), "has it so already"),
    ],
    ids=str,
)
def test_a_mutation_that_leads_nowhere_says_why(mutation, reason):
    result = mutation.apply(START)
    assert isinstance(result, Illegal)
    assert re.search(reason, result.reason)


@pytest.mark.parametrize("machine", ["x86-avx2", "zen5", "sapphire-rapids"])
@pytest.mark.parametrize("name", ["matmul", "rmsnorm", "attention", "scale_add"])
def test_neighbours_are_legal_distinct_and_in_a_fixed_order(name, machine):
    program = traced(name, "bf16", **OPTIONS.get(name, {}))
    known = facts(program, machine)
    for start in (Design.of({}), default_design(program, known)):
        mutations = list(neighbours(program, start, known))
        designs = [m.apply(start) for m in mutations]
        assert len(set(designs)) == len(designs) > 3
        assert start not in designs
        assert all(legal(program, design, known) == [] for design in designs)
        assert mutations == list(neighbours(program, start, known))


def test_tiles_are_taken_in_turns_where_some_are_more_work_than_others():
    """Under a causal mask the last queries see most keys; tiles of a product are all alike, and so is the space."""
    for name, options, expected in (
        ("matmul", {}, False), ("softmax", {}, False), ("attention", {"causal": False, "window": None}, False),
        ("attention", {"causal": True, "window": None}, True),
    ):  # fmt: skip
        program = traced(name, **options)
        known = facts(program)
        found = [m for m in neighbours(program, default_design(program, known), known) if isinstance(m, Deal)]
        assert bool(found) is expected, name


def test_the_best_known_shape_of_a_product_is_reachable():
    """From no decisions at all to a packed, blocked, unrolled register tile, one legal mutation after the other."""
    known, design = facts(MATMUL), Design.of({})
    tile = [*[Vectorise("n")] * 5, SetTile("m", 2), SetTile("m", 4), Unroll("k", 2)]
    memory = [Pack("b", "panel"), Pack("a", "panel"), Block("m", 16), Block("n", 128)]
    for mutation in (*tile, *memory, Reorder("order", ("n", "m")), Reorder("inner", ("n", "m"))):
        assert mutation in set(neighbours(MATMUL, design, known)), mutation
        design = mutation.apply(design)
    assert design.number("tile.n") == 32
    assert design.names("inner") == ("n", "m")


def walk(program, known, steps, chosen):
    """A design some random legal mutations from the default one, from none, or from one drawn as a whole."""
    design = chosen.choice([Design.of({}), default_design(program, known), random_design(program, known, chosen)])
    for _ in range(steps):
        if (step := random_step(program, design, known, chosen)) is not None:
            design = step[1]
    return design


@pytest.mark.parametrize("name", BUILDERS)
def test_chains_of_mutations_keep_the_meaning(name):
    """authored program == scheduled program == compiled kernel, within bounds, for every width of vectors."""

    @settings(
        max_examples=EXAMPLES, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
    )
    @given(st.data(), st.integers(0, 2**32 - 1), st.sampled_from(("any", "rows", "columns", "aligned")))
    def chain(data, seed, layout):
        chosen = random.Random(seed)
        machine = machines()[chosen.choice(sorted(machines()))]
        memory = Guarded(seed, layout)
        kind = data.draw(st.sampled_from(("float32", "bfloat16", "float16")))
        drawn = Run(case(data.draw, name, memory, kind), memory, machine)
        known = replace(drawn.facts(), fixed=frozenset(whole_dims(drawn.program)))
        design = walk(drawn.program, known, chosen.randrange(1, 8), chosen)
        scheduled = check(lower(drawn.program, design))
        expected = drawn.case.expected()
        for program in (drawn.program, scheduled):
            tensors = {n: x.copy() for n, x in drawn.tensors.items()}
            run(program, tensors, drawn.case.scalars, steps=chosen.choice((3, 16)), seed=seed)
            for output in drawn.case.outputs:
                tolerance.check(f"{name}.{output}", tensors[output], expected[output])
        drawn.check(drawn.kernel(design))

    chain()


def test_every_operator_has_neighbours():
    for name in OPERATORS:
        program = traced(name, **OPTIONS.get(name, {}))
        assert next(neighbours(program, Design.of({}), facts(program)), None) is not None
