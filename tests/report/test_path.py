"""A way from the naive design to another: legal at every step, complete, and paying where the model says it can."""

from __future__ import annotations

import itertools

import pytest

import tilewright as tw
from tilewright.design.default import Facts, default_design
from tilewright.design.design import Design
from tilewright.design.legality import legal
from tilewright.report.path import find_path, naive_design
from tilewright.runtime.compiled import dtypes_of

from .fakes import FACTS, KERNEL, MACHINE, estimate

OTHERS = {
    "softmax": {"M": 4096, "D": 4096},
    "rmsnorm": {"M": 64, "D": 512},
    "attention": {"B": 1, "H": 2, "G": 1, "S": 64, "T": 64, "D": 64, "E": 64},
    "gate_up": {"M": 64, "N": 256, "K": 256},
}


def model(design: Design) -> float:
    return estimate(design).seconds


def test_every_step_is_legal_and_the_last_is_the_goal():
    goal = default_design(KERNEL, FACTS)
    steps = find_path(KERNEL, FACTS, naive_design(KERNEL), goal, model)
    assert steps[0].design == naive_design(KERNEL)
    assert steps[-1].design == goal
    assert not any(legal(KERNEL, s.design, FACTS) for s in steps)
    for before, after in itertools.pairwise(steps):
        changed = dict(before.design.decisions) | {n: c for n, c in after.changes if c is not None}
        assert after.changes
        assert Design.of({n: c for n, c in changed.items() if (n, None) not in after.changes}) == after.design


def test_steps_back_are_shunned():
    steps = find_path(KERNEL, FACTS, naive_design(KERNEL), default_design(KERNEL, FACTS), model)
    assert all(b.predicted <= a.predicted * 1.001 for a, b in itertools.pairwise(steps))
    assert steps[0].predicted > 20 * steps[-1].predicted


def test_a_way_to_oneself_is_one_step():
    naive = naive_design(KERNEL)
    assert [s.design for s in find_path(KERNEL, FACTS, naive, naive, model)] == [naive]


@pytest.mark.parametrize("name", OTHERS)
@pytest.mark.parametrize("dtype", ["f32", "bf16"])
def test_any_operator_has_a_naive_design_and_a_way_from_it(name: str, dtype: str):
    operator = tw.operators.OPERATORS[name]
    kernel = operator.kernel.trace(dtypes_of(operator.kernel, dtype))
    unit = {p.name: (len(p.dims) - 1,) for p in kernel.params if p.dims}
    facts = Facts(OTHERS[name], unit, MACHINE)
    goal = default_design(kernel, facts)
    steps = find_path(kernel, facts, naive_design(kernel), goal, lambda d: 1.0 / (1 + len(d.decisions)))
    assert steps[-1].design == goal
    assert not any(legal(kernel, s.design, facts) for s in steps)
