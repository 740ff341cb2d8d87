"""Pinned numerics: designs that share the pinned decisions give the same bits; others are told apart."""

from __future__ import annotations

import random

import pytest

from tilewright import operators
from tilewright.design.default import default_design
from tilewright.design.design import Design
from tilewright.design.pinned import differs, summed
from tilewright.design.space import random_step
from tilewright.runtime import dispatch
from tilewright.runtime.buffer import Buffer
from tilewright.runtime.inputs import draw
from tilewright.runtime.subject import Subject


def test_axes_that_sums_run_along():
    kernel = operators.matmul.kernel.trace("f32")
    assert summed(kernel) == {"k"}
    kernel = operators.softmax.kernel.trace("f32")
    assert "i" not in summed(kernel)


def outputs(subject, design):
    drawn = draw(subject.kernel, subject.sizes, seed=4, updates=subject.updates)
    kernel = dispatch.compiled(subject.program, subject.request(design), subject.machine)
    buffers = {n: Buffer.of(x) for n, x in drawn.tensors.items()}
    kernel.bind(buffers, drawn.scalars, subject.sizes)()
    return {n: drawn.tensors[n].tobytes() for n in subject.outputs}


@pytest.mark.parametrize(
    ("operator", "sizes", "element"),
    [
        (operators.matmul, {"M": 37, "N": 70, "K": 133}, "f32"),
        (operators.matmul, {"M": 5, "N": 70, "K": 134}, "bf16"),
        (operators.rmsnorm, {"M": 19, "D": 301}, "f32"),
        (operators.softmax, {"M": 7, "D": 333}, "bf16"),
        (operators.gate_up, {"M": 9, "N": 40, "K": 65}, "f32"),
    ],
    ids=lambda x: getattr(x, "name", str(x)),
)
def test_designs_that_share_what_is_pinned_give_the_same_bits(operator, sizes, element):
    subject = Subject.of(operator, sizes, element, threads=1)
    rng, start = random.Random(5), default_design(subject.kernel, subject.facts)
    expected = outputs(subject, start)
    design, alike = start, set()
    for _ in range(400):
        step = random_step(subject.kernel, design, subject.facts, rng)
        if step is not None and not differs(subject.kernel, step[1], start):
            design = step[1]
            alike.add(design)
        if len(alike) >= 12:
            break
    assert len(alike) >= 3
    for other in alike:
        assert outputs(subject, other) == expected, other.to_json()


def test_what_may_change_a_bit_is_named():
    subject = Subject.of(operators.matmul, {"M": 64, "N": 64, "K": 64}, "f32")
    start = default_design(subject.kernel, subject.facts)
    assert differs(subject.kernel, start.with_(unroll__k=32), start).startswith("unroll.k=32")
    assert differs(subject.kernel, start.with_(atom__dot="bf16x2"), start)
    assert not differs(subject.kernel, start.with_(tile__m=2, block__m=64, threads=1), start)


@pytest.mark.parametrize("decision", [{"turns": True}, {"part.t": 64}, {"warps": 8}, {"how.t": "two_pass"}])
def test_who_adds_what_on_a_gpu_is_pinned(decision):
    """Warps that take steps in turns add other terms than those that take them in runs."""
    kernel = operators.softmax.kernel.trace("f32")
    design = Design.of({"warps": 4, "tile.d": 1024})
    (name,) = decision
    assert differs(kernel, design.with_(**decision), design).startswith(f"{name}=")
    assert differs(kernel, design.with_(stages=3), design) == ""
