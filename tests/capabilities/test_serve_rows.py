"""Rows of the list of capabilities about ragged batches, each under its own name."""

from __future__ import annotations

import numpy as np
import torch
from cases import Case

from tilewright import operators
from tilewright.design.design import Design
from tilewright.language.interpreter import run
from tilewright.lower.stages import lower
from tilewright.observe.served import served_trace
from tilewright.ops.ragged import Ragged
from tilewright.runtime import tolerance
from tilewright.sampler import LengthGroupedBatches

LENGTHS = [r.prompt for r in served_trace(400).requests]


# ------------------------------------------------------------------------------------------------ A15
class Visited(np.ndarray):
    """An array that counts how often something is read from it."""

    times = 0

    def __getitem__(self, at):
        Visited.times += 1
        return np.asarray(self)[at]


def test_A15_blocks_are_padded_and_the_tiles_that_are_skipped_are_counted():
    """Room is a multiple of a block; the scheduled program visits the tiles that hold keys, and no others."""
    batch, tile, heads = Ragged.padded([5, 0, 50, 17], 64), 16, 2
    random = np.random.default_rng(1)
    q = random.standard_normal((4, heads, 1, 1, 8), np.float32)
    k, v = random.standard_normal((2, 4, heads, batch.room, 8), np.float32)
    for b, n in enumerate(batch.lengths):
        k[b, :, n:], v[b, :, n:] = np.nan, np.nan
    case = Case(operators.attention, {"q": q, "k": k, "v": v, "lengths": batch.lengths}, {"o": (q.shape, np.float32)})
    case.scalars, case.options = {"scale": 0.3}, {"causal": True, "window": None}
    types = {n: "i32" if n == "lengths" else "f32" for n in (*case.inputs, "o")}
    program = operators.attention.kernel.trace(types, options=case.options)
    scheduled = lower(program, Design.of({"tile.t": tile, "lanes": ("D", "E", "t")}))
    Visited.times = 0
    tensors = {**case.inputs, "k": k.view(Visited), "o": np.full(q.shape, np.nan, np.float32)}
    run(scheduled, tensors, case.scalars)
    counted = batch.tiles(tile)
    assert Visited.times == heads * counted.visited == heads * 7
    assert counted.skipped == 4 * 4 - 7
    tolerance.check("o", tensors["o"], case.expected()["o"])


# ------------------------------------------------------------------------------------------------ A16
def test_A16_batches_of_similar_length_waste_less_than_random_ones():
    sampler = LengthGroupedBatches(LENGTHS, 16)
    grouped, drawn = sampler.padding(), sampler.random_padding()
    assert grouped.tokens == drawn.tokens == sum(LENGTHS)
    assert grouped.waste < 0.4
    assert drawn.waste > 0.7
    assert grouped.shapes < drawn.shapes


def test_A16_recompiles_are_those_that_torch_counts():
    """What a compiler that specialises to shapes compiles is one program for each counted shape."""
    sampler = LengthGroupedBatches(LENGTHS, 16)
    compiled = {"grouped": 0, "random": 0}

    def compiles(name: str, batches: list[tuple[int, int]]) -> int:
        def backend(graph: torch.fx.GraphModule, _inputs: object) -> object:
            compiled[name] += 1
            return graph.forward

        torch._dynamo.reset()
        step = torch.compile(lambda x: x * 2 + 1, backend=backend, dynamic=False)
        with torch._dynamo.config.patch(recompile_limit=64):
            for rows, length in batches:
                step(torch.zeros(rows, length))
        return compiled[name]

    grouped = [(len(b), sampler.padded_length(b)) for b in sampler]
    plain = LengthGroupedBatches(LENGTHS, 16, window=1, multiple=1)  # sorted within a batch only: random batches
    drawn = [(len(b), plain.padded_length(b)) for b in plain]
    assert compiles("grouped", grouped) == sampler.padding().recompiles + 1
    assert compiles("random", drawn) == sampler.random_padding(multiple=1).recompiles + 1
    assert compiled["grouped"] < compiled["random"]
