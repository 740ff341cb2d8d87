"""Designs without the matrix unit of Hopper: defaults are legal, rules give reasons, mutations keep the meaning."""

import random
import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[2] / "gpu"))

from operator_cases import NAMES, draw

from tilewright.design.default import Facts
from tilewright.design.design import Design
from tilewright.design.gpu import simt_mutations
from tilewright.design.gpu.simt import default_simt, legal_simt
from tilewright.design.legality import legal
from tilewright.design.mutations import neighbours
from tilewright.language.dtypes import dtype
from tilewright.language.interpreter import bind_sizes, run
from tilewright.language.verifier import verify
from tilewright.lower.gpu.simt import lower_simt
from tilewright.machines.machine import Machine
from tilewright.operators import OPERATORS
from tilewright.runtime import tolerance


def met(call, aligned=True, machine="a100"):
    """(program, facts, fresh operands) of a call."""
    tensors = dict(call.inputs)
    for name, (shape, kind) in call.outputs.items():
        fresh = call.inputs[name].copy() if name in call.operator.updates else None
        tensors[name] = fresh if fresh is not None else _poisoned(shape, kind)
    kernel = call.operator.kernel.trace({n: dtype(x.dtype) for n, x in tensors.items()}, options=call.options)
    unit = {p.name: (len(p.dims) - 1,) for p in kernel.params if p.dims}
    known = frozenset(unit) if aligned else frozenset()
    return kernel, Facts(bind_sizes(kernel, tensors), unit, Machine.named(machine), known), tensors


def _poisoned(shape, kind):
    import numpy as np

    return np.full(shape, -1 if np.dtype(kind).kind == "i" else np.nan, kind)


@pytest.mark.parametrize("machine", ["a100", "rtx4090", "h200"])
@pytest.mark.parametrize("name", NAMES)
def test_the_default_design_is_legal_for_every_size(name, machine):
    for seed in range(12):
        kernel, facts, _ = met(draw(name, seed, ("bf16", "f32", "f16")[seed % 3]), seed % 2 == 0, machine)
        assert legal_simt(kernel, default_simt(kernel, facts), facts) == []


@pytest.mark.parametrize("name", ["softmax", "rope", "matmul", "batched_matmul", "add_rmsnorm", "attention"])
def test_chains_of_mutations_keep_the_meaning(name):
    call = draw(name, 4, "f32")
    kernel, facts, _ = met(call)
    design, dice = default_simt(kernel, facts), random.Random(name)
    for _ in range(6):
        found = list(neighbours(kernel, design, facts))
        assert found
        design = dice.choice(found).apply(design)
        assert legal(kernel, design, facts) == []
        program = lower_simt(kernel, design, facts)
        assert verify(program) == []
    _, _, tensors = met(call)
    run(program, tensors, call.scalars)
    for output, exact in call.expected().items():
        tolerance.check(output, tensors[output], exact)


@pytest.mark.parametrize("name", simt_mutations.__all__[:-1])
def test_a_mutation_shows_what_it_changes(name):
    assert "before:" in getattr(simt_mutations, name).__doc__
    assert "after:" in getattr(simt_mutations, name).__doc__


BROKEN = [
    ({"tile.m": 3}, "tile.m=3: takes a power of two"),
    ({"warps": 6}, "warps=6: takes a power of two up to 32"),
    ({"warps": 16, "resident": 8}, "resident=8: takes 1 to 4 blocks of 16 warps"),
    ({"vec.x": 16}, "vec.x=16: an access moves 16 bytes, 8 elements"),
    ({"vec.z": 2}, "vec.z=2: silu has no such vec; it has x, y"),
    ({"pack.x": "panel"}, "pack.x=panel: no decision is called so"),
    ({"lanes": ("d", "q")}, r"lanes=\('d', 'q'\): takes distinct axes that values have: d, m"),
    ({"tile.m": 64, "tile.d": 1024, "warps": 1}, "x0 has 2048 elements a thread .*; 128 is the most"),
]


@pytest.mark.parametrize(("decisions", "message"), BROKEN)
def test_an_illegal_design_is_told_why(decisions, message):
    kernel = OPERATORS["silu"].kernel.trace({"x": "bf16", "y": "bf16"})
    facts = Facts({"M": 64, "D": 1024}, {"x": (1,), "y": (1,)}, Machine.named("a100"))
    design = Design.of({"tile.m": 1, "tile.d": 256, "warps": 1, "lanes": ("d",), **decisions})
    import re

    assert [m for m in (r.message for r in legal_simt(kernel, design, facts)) if re.search(message, m)]


PANELS = [
    ({"engine.b": "tma"}, "engine.b=tma: takes cp_async or plain"),
    ({"atom.dot0": "fma"}, "atom=fma multiplies panels of f32, not bf16; take mma"),
    ({"tile.m": 8}, "not fragments of 16 x 16 for 4 warps"),
    ({"stages": 9}, "stages=9: takes 2 to 8"),
    ({"tile.k": 8}, "tile.k=8: a step is 32 to 256 bytes of the sum"),
    ({"tile.m": 256, "tile.n": 256}, "warps=4: 512 sums in a thread, and 128 is the most; take more warps"),
    ({"tile.m": 256, "tile.k": 128, "stages": 4}, "bytes of shared memory, and 166912 is the most"),
]


@pytest.mark.parametrize(("decisions", "message"), PANELS)
def test_an_illegal_design_of_panels_is_told_why(decisions, message):
    kernel = OPERATORS["matmul"].kernel.trace({"a": "bf16", "b": "bf16", "c": "bf16"})
    facts = Facts({"M": 64, "N": 64, "K": 64}, dict.fromkeys("abc", (1,)), Machine.named("a100"), frozenset("abc"))
    base = {"tile.m": 64, "tile.n": 64, "tile.k": 64, "warps": 4, "stages": 3, "atom.dot0": "mma",
            "engine.a": "cp_async", "engine.b": "cp_async"}  # fmt: skip
    assert legal_simt(kernel, Design.of(base), facts) == []
    assert [r for r in legal_simt(kernel, Design.of({**base, **decisions}), facts) if message in r.message]
