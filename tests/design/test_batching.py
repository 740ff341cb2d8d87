"""Horizontal batching: what becomes of the program, that its meaning is kept, what is refused, and what it is worth."""

from __future__ import annotations

import numpy as np
import pytest
from programs import facts, traced

import tilewright as tw
from tilewright import Tensor, f32, tiles, zeros
from tilewright.design.batch_effect import Launched, effect, occupancy
from tilewright.design.batching import joined, stacked
from tilewright.design.default import default_design
from tilewright.design.design import Design
from tilewright.design.legality import legal
from tilewright.errors import ArgumentError
from tilewright.language.interpreter import run
from tilewright.language.verifier import check
from tilewright.lower.stages import lower
from tilewright.runtime.work import work_of

MATMUL = traced("matmul", activation=None)


def operands(shape, seed):
    return np.random.default_rng(seed).standard_normal(shape, np.float32)


@pytest.mark.parametrize("name, shared", [("matmul", ("a",)), ("matmul", ()), ("rmsnorm", ("weight",)), ("silu", ())])
@pytest.mark.parametrize("count", [1, 4])
def test_stacked_instances_mean_what_they_mean_one_by_one(name, shared, count):
    program = traced(name, **({"activation": None} if name == "matmul" else {}))
    batch = stacked(program, shared)
    shapes = {p.name: tuple({"M": 5, "N": 9, "K": 7, "D": 12}[d] for d in p.dims) for p in program.params if p.dims}
    tensors = {n: operands(s if n in shared else (count, *s), k) for k, (n, s) in enumerate(shapes.items())}
    scalars = {p.name: 1e-5 for p in program.params if p.dims is None}
    expected = []
    for z in range(count):
        one = {n: (x if n in shared else x[z]).copy() for n, x in tensors.items()}
        run(program, one, scalars, steps=3)
        expected.append(one)
    for scheduled in (batch, check(lower(batch, default_design(batch, facts(batch, Z=count))))):
        found = {n: x.copy() for n, x in tensors.items()}
        run(scheduled, found, scalars, steps=3)
        for n in tensors:
            for z in range(count):
                np.testing.assert_allclose(
                    found[n] if n in shared else found[n][z], expected[z][n], rtol=2e-5, atol=1e-5
                )


def test_a_batch_has_a_space_of_designs_like_any_program():
    batch = stacked(MATMUL, ("a",))
    known = facts(batch, Z=3)
    assert batch.dims[:3] == ("M", "K", "Z")
    assert legal(batch, default_design(batch, known), known) == []
    assert stacked(batch, ("a",)).dims == ("M", "K", "Z_0", "Z", "N")  # and can be stacked again


def test_joined_projections_are_one_product():
    """q, k and v of one x: rows of the weights end to end, and each result is a range of columns."""
    lengths = [8, 3, 3]
    plan = joined(MATMUL, "N", lengths)
    assert plan.along == (("b", 0), ("c", 1))
    assert plan.starts == (0, 8, 11)
    assert plan.size == 14
    x, weights = operands((5, 7), 0), [operands((n, 7), n) for n in lengths]
    whole = {"a": x, "b": np.concatenate(weights), "c": np.full((5, plan.size), np.nan, np.float32)}
    run(plan.kernel, whole, {}, steps=4)
    for start, n, weight in zip(plan.starts, lengths, weights, strict=True):
        one = {"a": x, "b": weight, "c": np.full((5, n), np.nan, np.float32)}
        run(MATMUL, one, {}, steps=4)
        np.testing.assert_allclose(whole["c"][:, start : start + n], one["c"], rtol=1e-5, atol=1e-6)


@tw.kernel
def counted(x: Tensor["M"], y: Tensor["M"]):
    for m in tw.parallel("M"):
        y[m] = x[m] * tw.size("M").to(f32)


@tw.kernel
def placed(x: Tensor["M"], y: Tensor["M"]):
    for m in tw.parallel("M"):
        y[m] = x[m] * (m + 0).to(f32)


@tw.kernel
def two_steps(x: Tensor["M", "D"], y: Tensor["M"]):
    for m in tw.parallel("M"):
        total = zeros(m, dtype=f32)
        for d in tiles("D"):
            total += x[m, d].to(f32).sum(d)
        y[m] = total


def test_what_cannot_become_one_says_why():
    with pytest.raises(ArgumentError, match="every instance writes c, so they cannot share it"):
        stacked(MATMUL, ("c",))
    with pytest.raises(ArgumentError, match="matmul has no tensor w; it has a, b, c"):
        stacked(MATMUL, ("w",))
    with pytest.raises(ArgumentError, match="K is no range of a parallel loop of matmul"):
        joined(MATMUL, "K", [4, 4])
    with pytest.raises(ArgumentError, match="D is no range of a parallel loop"):
        joined(two_steps.trace("f32"), "D", [4, 4])
    with pytest.raises(ArgumentError, match="is a position along M, which would count from the first instance"):
        joined(placed.trace("f32"), "M", [4, 4])


def test_sizes_and_positions_would_be_those_of_all_instances():
    with pytest.raises(ArgumentError, match="is the size of M, which would be that of all instances"):
        joined(counted.trace("f32"), "M", [2, 3])


# ----------------------------------------------------------------------------------------------- effect
def test_the_effect_of_four_small_products():
    """4 launches become 1; what is shared is read once; four times as many tiles fill the cores."""
    known = facts(MATMUL, M=8, N=64, K=64)
    design = Design.of({"tile.m": 8, "tile.n": 32, "lanes": ("n",)})
    four = [Launched(MATMUL, known, design)] * 4
    batch = stacked(MATMUL, ("a",))
    one = Launched(batch, facts(batch, Z=4, M=8, N=64, K=64), design)
    told = effect(four, one, lambda kernel, *_: 2e-6 if kernel is batch else 1e-6, work_of, lambda x: 3e-6)
    assert (told.before.launches, told.after.launches) == (4, 1)
    assert told.before.flops == told.after.flops == 4 * 2 * 8 * 64 * 64
    assert told.before.bytes - told.after.bytes == 3 * 8 * 64 * 4
    assert told.after.intensity > told.before.intensity
    assert (told.before.occupancy, told.after.occupancy) == (0.25, 1.0)  # 2 tiles, then 8, on 8 cores
    assert (told.before.estimated, told.after.estimated) == (pytest.approx(4e-6), 2e-6)
    assert (told.before.measured, told.after.measured) == (pytest.approx(12e-6), 3e-6)
    assert "launches                  4 ->        1" in str(told)
    assert "measured, us             12 ->        3" in str(told)


def test_occupancy_counts_the_last_round():
    known = facts(MATMUL, M=9 * 8, N=32)
    assert known.machine.cores == 8
    design = Design.of({"tile.m": 8, "tile.n": 32, "lanes": ("n",)})
    assert occupancy(MATMUL, design, known) == 9 / 16
    assert occupancy(MATMUL, Design.of({**dict(design.decisions), "threads": 1}), known) == 1 / 8
