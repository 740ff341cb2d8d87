"""Rows of the list of capabilities about the design graph, each under its own name."""

from __future__ import annotations

import json
import random
import re

import numpy as np
import pytest
from cases import Case
from compiled import SSE2, Guarded, Run
from landscapes import Landscape, Noisy
from programs import facts, traced

import tilewright as tw
from tilewright import Tensor, dot, f32, operators, parallel, tiles, zeros
from tilewright.design.batch_effect import Launched, effect
from tilewright.design.batching import stacked
from tilewright.design.choice import choose
from tilewright.design.default import default_design
from tilewright.design.design import Design
from tilewright.design.graph import graph
from tilewright.design.legality import legal
from tilewright.design.mutation import Illegal, Mutation, Together
from tilewright.design.mutation_tiles import SetTile
from tilewright.design.mutations import neighbours, steps
from tilewright.design.search import search
from tilewright.design.space import enumerate_space, random_design
from tilewright.design.trial import Budget, Objective
from tilewright.emit.abi import TensorLayout
from tilewright.emit.listing import listing
from tilewright.emit.llvm import VectorUnit
from tilewright.language.interpreter import run
from tilewright.lower.stages import lower
from tilewright.runtime.work import work_of

MATMUL = traced("matmul", "bf16", activation=None)
AMX = facts(MATMUL, "sapphire-rapids")


# ------------------------------------------------------------------------------------------------- B1
BASIS = {
    "vectorisation": "lanes", "parallelisation": "order", "coarsening": "tile", "tile size": "tile",
    "thread binding": "order", "cache policy": "nontemporal", "blocks": "block", "threads": "threads",
    "matrix layout": "pack", "loop tiling": "block", "unrolling": "unroll", "prefetch": "prefetch",
    "instructions": "atom", "packing inside blocks": "local", "order inside blocks": "inner", "widening": "unpack",
    "accumulators": "split", "values kept for a later loop": "keep",
}  # fmt: skip


def decided(program, known, seeds):
    """Kinds of decisions that random designs of a program take."""
    designs = [random_design(program, known, random.Random(seed)) for seed in range(seeds)]
    return {name.partition(".")[0] for d in designs for name, _ in d.decisions}


def test_B1_basis_of_decisions_is_reached_by_random_designs():
    """Every kind of decision that x86 has occurs, in designs that are legal, on a product and on rows."""
    found = decided(MATMUL, AMX, 150)
    rows = traced("scale_add")
    layouts = facts(rows)
    aligned = type(layouts)(layouts.sizes, layouts.unit, layouts.machine, frozenset({"a", "b", "c"}), layouts.fixed)
    found |= decided(rows, aligned, 60) | decided(traced("rmsnorm"), facts(traced("rmsnorm")), 60)
    found |= decided(traced("softmax"), facts(traced("softmax")), 60)
    assert set(BASIS.values()) <= found


def test_B1_tiles_need_not_be_square_and_register_pressure_is_ruled():
    known = facts(MATMUL)
    tiled = [(d.number("tile.m", 1), d.number("tile.n", 1)) for d in choose(MATMUL, known, flat, 200)]
    assert len({m / n for m, n in tiled}) > 10
    crowded = Together((SetTile("m", 64), SetTile("n", 64))).apply(default_design(MATMUL, known))
    assert any(r.rule == "registers" for r in legal(MATMUL, crowded, known))


def flat(_):
    return 1.0


@tw.kernel
def gram(x: Tensor["M", "K"], y: Tensor["M", "M2"], z: Tensor["M2", "K"]):
    for i, j in parallel("M", "M2"):
        total = zeros(i, j, dtype=f32)
        for k in tiles("K"):
            total += dot(x[i, k], (z[j, k] * 2.0).T)
        y[i, j] = total


def test_B1_a_users_kernel_has_a_space_for_nothing():
    program = gram.trace("f32")
    known = facts(program, M=64, M2=64, K=64)
    designs = {random_design(program, known, random.Random(seed)) for seed in range(40)}
    assert len(designs) > 30
    assert all(legal(program, d, known) == [] for d in designs)
    grid = enumerate_space(program, known, {"tile.m": (1, 2, 4), "tile.m1": (8, 6), "lanes": (("m1",), None)})
    # 6 points fill no vector: legal only without lanes.
    assert len(grid) == 3 + 3 + 3
    assert len(list(neighbours(program, default_design(program, known), known))) > 10


# ------------------------------------------------------------------------------------------------- B2
def test_B2_design_graph_is_plain_data_that_can_be_drawn():
    """Nodes are implementations with their times, edges are mutations; following an edge gives the next node."""
    scape = Landscape.of("silu", 2, "f32")
    result = search(
        scape.kernel, scape.facts, Noisy(scape.seconds), model=scape.model, budget=Budget(trials=48)
    )  # fmt: skip
    drawn = graph(scape.kernel, scape.facts, result.trials, result.winner)
    assert json.loads(json.dumps(drawn)) == drawn
    nodes = {n["id"]: n for n in drawn["nodes"]}
    assert len(nodes) == 48
    assert [n["id"] for n in drawn["nodes"] if n["winner"]] == [result.winner.hash]
    assert all(e["source"] in nodes and e["target"] in nodes and e["mutation"] for e in drawn["edges"])
    designs = {t.design.hash: t.design for t in result.trials}
    single = [e for e in drawn["edges"] if not e["taken"]]
    assert single
    for edge in single:
        ahead = {str(m): d for m, d in steps(scape.kernel, designs[edge["source"]], scape.facts)}
        assert ahead[edge["mutation"]].hash == edge["target"]


# ------------------------------------------------------------------------------------------------- B3
def test_B3_merging_two_loads_keeps_the_meaning_at_every_width():
    """Random designs and their vectorised neighbours: wider loads in the listing, the same result."""
    program = traced("silu")
    start = Design.of({"tile.d": 2})
    merge = next(
        m for m in neighbours(program, start, facts(program)) if type(m).__name__ == "Vectorise" and m.axis == "d"
    )
    after = merge.apply(start)
    assert loads(program, start) == [("(m, d)", 1), ("(m, d + 1)", 1)]
    assert loads(program, after) == [("(m, d)", 2)]
    x = np.random.default_rng(0).standard_normal((3, 13), np.float32)
    results = []
    for design in (start, after):
        tensors = {"x": x, "y": np.full_like(x, np.nan)}
        run(lower(program, design), tensors, {})
        results.append(tensors["y"])
    np.testing.assert_array_equal(*results)


def loads(program, design):
    layouts = {p.name: TensorLayout((None, 1)) for p in program.params if p.dims is not None}
    text = listing(lower(program, design), layouts, {}, VectorUnit(16, frozenset()))
    found = re.findall(r"load\(x, (\([^)]*\)), vec=(\d+)", text)
    return list(dict.fromkeys((place, int(vec)) for place, vec in found))


# ------------------------------------------------------------------------------------------------- B4
def test_B4_legality_every_neighbour_is_legal_and_every_refusal_has_a_reason():
    known, design = facts(MATMUL), default_design(MATMUL, facts(MATMUL))
    for mutation, result in steps(MATMUL, design, known):
        assert legal(MATMUL, result, known) == [], mutation
    for mutation in (SetTile("m", 0), Together(()), SetTile("m", design.number("tile.m"))):
        refused: Mutation = mutation
        answer = refused.apply(design)
        assert isinstance(answer, Illegal)
        assert len(answer.reason) > 10


# ------------------------------------------------------------------------------------------------- B7
def test_B7_search_beats_random_with_a_best_so_far_curve():
    scape = Landscape.of("matmul", 1)
    curves = {}
    for strategy in ("evolve", "random"):
        result = search(
            scape.kernel, scape.facts, Noisy(scape.seconds, drift=0.0), model=scape.model, strategy=strategy,
            budget=Budget(trials=32),
        )  # fmt: skip
        curves[strategy] = result.curve
        assert len(result.curve) == len(result.trials) == 32
        assert list(result.curve) == sorted(result.curve, reverse=True)
    assert curves["evolve"][-1] < curves["random"][-1]
    assert curves["evolve"][0] == curves["random"][0]  # the default, trial 0 of both


def test_B7_the_models_first_choice_needs_no_trial():
    scape = Landscape.of("matmul", 1)
    (first,) = choose(scape.kernel, scape.facts, scape.model)
    assert scape.model(first) < scape.model(default_design(scape.kernel, scape.facts))
    assert choose(scape.kernel, scape.facts, scape.model) == [first]
    assert len(choose(scape.kernel, scape.facts, scape.model, 5)) == 5


# ------------------------------------------------------------------------------------------------- B8
@pytest.mark.parametrize("kind", ["latency", "throughput", "target"])
def test_B8_targets(kind):
    """Latency and throughput use the budget; a stated latency ends the search as soon as it is met."""
    scape = Landscape.of("silu", 11, "f32")
    start = scape.seconds(default_design(scape.kernel, scape.facts))
    result = search(
        scape.kernel, scape.facts, Noisy(scape.seconds, drift=0.0), model=scape.model, budget=Budget(trials=32),
        objective=Objective(kind, 0.8 * start if kind == "target" else None),
    )  # fmt: skip
    if kind == "target":
        assert result.stopped == "target"
        assert len(result.trials) < 32
        assert scape.seconds(result.winner) <= 0.8 * start
    else:
        assert result.stopped == "budget"
        assert len(result.trials) == 32


# ------------------------------------------------------------------------------------------------ B10
def test_B10_horizontal_batching():
    """4 small products become 1: one launch, x read once, more of the cores at work; the machine agrees."""
    program = traced("matmul", activation=None)
    batch = stacked(program, ("a",))
    known = facts(batch, M=4, N=32, K=32, Z=4)
    tiled = Design.of({"tile.m": 4, "tile.n": 16, "lanes": ("n",)})  # 2 tiles: a quarter of 8 cores
    told = effect(
        [Launched(program, facts(program, M=4, N=32, K=32), tiled)] * 4, Launched(batch, known, tiled),
        lambda kernel, design, facts: 1e-6 + work_of(kernel, facts.sizes).flops / 1e11, work_of,
    )  # fmt: skip
    assert (told.before.launches, told.after.launches) == (4, 1)
    assert told.after.intensity > told.before.intensity
    assert told.after.occupancy > told.before.occupancy
    assert told.after.estimated < told.before.estimated
    # On the machine: batched_matmul is what stacking matmul gives, and its kernel is right.
    memory = Guarded(1, "rows")
    a = memory.normal((4, 5, 7))
    case = Case(operators.batched_matmul, {"a": a, "b": memory.normal((4, 9, 7))}, {"c": ((4, 5, 9), np.float32)})
    drawn = Run(case, memory, SSE2)
    apart = stacked(program)
    assert [len(p.dims) for p in apart.params] == [len(p.dims) for p in drawn.program.params]
    drawn.check(drawn.kernel())
