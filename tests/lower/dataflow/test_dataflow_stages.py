"""The lowering of dataflow machines: it keeps the meaning of every program, and finds the stages of decision 0001."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from tilewright import operators
from tilewright.design.design import Design
from tilewright.language import ir
from tilewright.language.interpreter import run
from tilewright.language.parser import parse
from tilewright.language.verifier import check
from tilewright.lower.dataflow.stages import lower_dataflow

TEXT = (Path(__file__).parents[3] / "docs" / "decisions" / "0001-one-program-many-machines.md").read_text("utf-8")
AUTHORED = {p.name: p for p in map(parse, re.findall(r"^```tile\n(.*?)^```$", TEXT, re.M | re.S)) if not p.notes}
SIZES = {"M": 21, "N": 33, "K": 35, "D": 37, "F": 20, "B": 3, "L": 3, "H": 2, "S": 5, "T": 23, "E": 8, "G": 2}

ATTENTION = operators.attention.kernel.trace("f32", options={"causal": True, "window": 9}, present=())
PROGRAMS = {
    **{name: AUTHORED[name] for name in ("softmax", "attention", "matmul", "rmsnorm", "layers")},
    "softmax of tiles": operators.softmax.kernel.trace("f32"),
    "causal attention": ATTENTION,
}
DESIGNS = [{}, {"par.r": 8, "tile.r": 3, "par.m": 10, "tile.m": 4}, {"carry.h": "owner", "buffer.hr": True}]


def operands(program):
    random = np.random.default_rng(0)
    shapes = {p.name: [d if isinstance(d, int) else SIZES[d] for d in p.dims] for p in program.params if p.dims}
    tensors = {n: random.standard_normal(s).astype(program.param(n).dtype.numpy) for n, s in shapes.items()}
    return tensors, {p.name: 0.3 for p in program.params if p.dims is None}


@pytest.mark.parametrize("decisions", DESIGNS, ids=str)
@pytest.mark.parametrize("name", PROGRAMS)
def test_lowering_keeps_the_meaning(name, decisions):
    program = PROGRAMS[name]
    design = Design.of({**decisions, "buffer.low": True})
    lowered = check(lower_dataflow(program, design, "sn40l"))
    results = []
    for each in (program, lowered):
        tensors, scalars = operands(program)
        run(each, tensors, scalars, steps=16, exact=True)
        results.append(tensors)
    for tensor in results[0]:
        np.testing.assert_allclose(results[1][tensor].astype(float), results[0][tensor].astype(float), rtol=1e-12)


def roles(program):
    return {s.name: s for s in ir.walk(program.body) if isinstance(s, ir.Role)}


def test_softmax_has_the_stages_and_buffers_of_the_decision():
    """fetch, peak, exponent, scale; xs 3 deep because two later stages read it, its cast done again in both."""
    lowered = lower_dataflow(AUTHORED["softmax"], Design.of({"par.r": 1024, "tile.r": 16, "units.sum": 2}), "sn40l")
    scheduled = next(p for p in map(parse, re.findall(r"^```tile\n(.*?)^```$", TEXT, re.M | re.S))
                     if p.name == "softmax" and p.notes)  # fmt: skip

    def shape(program):
        stages = [(dict(r.notes), sorted(type(s).__name__ for s in r.body)) for r in roles(program).values()]
        depths = [(str(a.dtype), a.dims, dict(a.notes)) for a in ir.walk(program.body) if isinstance(a, ir.Alloc)]
        return stages, depths

    assert shape(lowered) == shape(scheduled)


def test_what_is_carried_has_one_owner_or_a_buffer():
    """The sum of a matmul stays in its stage; the residual stream of a stack of layers is read by many."""
    dot = roles(lower_dataflow(AUTHORED["matmul"], Design.of({}), "sn40l"))
    assert any(isinstance(s, ir.Assign) for r in dot.values() for s in r.body)
    layers = roles(lower_dataflow(AUTHORED["layers"], Design.of({}), "sn40l"))
    one = roles(lower_dataflow(AUTHORED["layers"], Design.of({"carry.h": "owner"}), "sn40l"))
    assert len(layers) > len(one)
    assert {"w1", "w2", "w3", "g"} <= set(one)  # weights do not depend on what is carried: they stay decoupled


def test_loads_stand_one_stage_before_their_use():
    """Deep in a pipeline as well, so that two buffers are enough."""
    lowered = lower_dataflow(AUTHORED["layers"], Design.of({}), "sn40l")
    found = {name: role for name, role in roles(lowered).items() if any(isinstance(s, ir.Copy) for s in role.body)}
    stage = {n: dict(r.notes)["stage"] for n, r in roles(lowered).items()}
    assert stage["w2"] == stage["down"] - 1 and stage["w1"] == stage["up"] - 1
    depths = {a.name: dict(a.notes)["stages"] for a in ir.walk(lowered.body)
              if isinstance(a, ir.Alloc) and a.name.startswith("t")}  # fmt: skip
    assert set(depths.values()) == {2} and len(found) == 5
