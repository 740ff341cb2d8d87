"""Sums in parts on the GPU, joined in a cluster, by the last block to come, and by memory: launched again and again."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
sys.path.append(str(Path(__file__).parent))

import ml_dtypes
from gpu_programs import facts_of, to_gpu, to_numpy
from operator_cases import Call

from tilewright.design.design import Design
from tilewright.design.legality import legal
from tilewright.operators import gate_up, matmul
from tilewright.runtime import tolerance
from tilewright.runtime.cuda.dispatch import loaded, machine, requested
from tilewright.runtime.cuda.kernel import layout_on_gpu
from tilewright.runtime.dispatch import Program

M, N, K = 200, 320, 1000
MANY = {"tile.m": 128, "tile.n": 64, "tile.k": 64, "warpgroups": 2, "stages": 4}
FEW = {"tile.m": 8, "tile.n": 64, "tile.k": 64, "warpgroups": 1, "stages": 4, "swap": True, "producer": "warp"}


def drawn(name, rows):
    random = np.random.default_rng(rows)

    def values(*shape):
        return random.standard_normal(shape, dtype=np.float32).astype(ml_dtypes.bfloat16)

    if name == "gate_up":
        inputs = {"x": values(rows, K), "gate": values(N, K), "up": values(N, K)}
        return Call(gate_up, inputs, {"y": ((rows, N), np.dtype(ml_dtypes.bfloat16))})
    inputs = {"a": values(rows, K), "b": values(N, K), "bias": values(N), "residual": values(rows, N)}
    return Call(matmul, inputs, {"c": ((rows, N), np.dtype(ml_dtypes.bfloat16))}, options={"activation": "gelu"})


@pytest.mark.parametrize("how", ["cluster", "two_pass", "atomic"])
@pytest.mark.parametrize(("rows", "shape"), [(M, MANY), (5, FEW)], ids=["many rows", "few rows"])
@pytest.mark.parametrize("name", ["matmul", "gate_up"])
@pytest.mark.parametrize("parts", [2, 4])
def test_parts_of_a_sum_meet_in_every_launch(name, rows, shape, how, parts):
    call = drawn(name, rows)
    (output, (out_shape, kind)), expected = next(iter(call.outputs.items())), call.expected()
    tensors = {n: to_gpu(x) for n, x in call.inputs.items()} | {output: to_gpu(np.full(out_shape, np.nan, kind))}
    kernel, facts, buffers = facts_of(call, tensors)
    sizes = dict(facts.sizes)
    facts = type(facts)(sizes, facts.unit, facts.machine, facts.aligned, frozenset(sizes))
    atoms = {f"atom.dot{n}": "wgmma" for n in range(2 if name == "gate_up" else 1)}
    design = Design.of({**shape, **atoms, "split.k": parts, "how.k": how})
    assert legal(kernel, design, facts) == []
    layouts = tuple((n, layout_on_gpu(b)) for n, b in buffers.items())
    request = requested(Program.of(kernel), layouts, sizes, machine(0), design, tuple(sizes))
    launch = loaded(request, 0).bind(buffers, call.scalars, sizes)
    for _ in range(3):
        tensors[output].fill_(float("nan"))
        launch()
        torch.cuda.synchronize()
        tolerance.check(output, to_numpy(tensors[output], kind), expected[output])
