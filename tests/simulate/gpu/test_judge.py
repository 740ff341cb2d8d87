"""A GPU by model as the judge of a search: no GPU is needed, and values are computed by the interpreter."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tilewright import operators
from tilewright.design.cost import estimate
from tilewright.design.default import default_design
from tilewright.design.design import Design
from tilewright.design.mutations import steps
from tilewright.design.search import search
from tilewright.design.trial import Budget
from tilewright.machines import Machine
from tilewright.runtime.subject import Subject
from tilewright.simulate.gpu.judge import ModelJudge, subject_on
from tilewright.simulate.kinds import simulate
from tilewright.simulate.simulation import Job


def judge(machine: str, name: str, **sizes: int) -> ModelJudge:
    return ModelJudge(subject_on(Machine.named(machine), name, sizes, None))


@pytest.mark.parametrize(
    ("machine", "name", "sizes"),
    [
        ("a100", "matmul", {"M": 512, "N": 1024, "K": 1024}),
        ("h100", "matmul", {"M": 4, "N": 4096, "K": 4096}),
        ("l40s", "softmax", {"M": 64, "D": 4096}),
    ],
)
def test_a_search_by_model_is_no_worse_than_the_default(machine, name, sizes):
    judged = judge(machine, name, **sizes)
    subject = judged.subject
    found = search(subject.kernel, subject.facts, judged, model=judged.seconds, budget=Budget(trials=12))
    assert found.trials[0].design == default_design(subject.kernel, subject.facts)
    assert found.seconds <= found.default_seconds
    assert found.seconds == estimate(subject.kernel, found.winner, subject.facts).seconds
    assert {t.outcome.status for t in found.trials} == {"ok"}
    told = simulate(Job(name, Machine.named(machine), sizes, options={"design": found.winner.to_json()}))
    assert told.seconds == pytest.approx(found.seconds)


@pytest.mark.parametrize(("machine", "rows"), [("h100", 300), ("h100", 3), ("a100", 130)])
def test_neighbours_keep_the_meaning(machine, rows):
    judged = judge(machine, "matmul", M=rows, N=320, K=256)
    subject = judged.subject
    start = default_design(subject.kernel, subject.facts)
    seen = [design for _, design in steps(subject.kernel, start, subject.facts)][::3]
    assert len(seen) > 4
    assert {o.status for o in judged.evaluate(seen)} == {"ok"}


def test_packed_operands_are_checked_as_the_product_meets_them():
    judged = judge("h100", "matmul", M=256, N=256, K=251)
    design = default_design(judged.subject.kernel, judged.subject.facts)
    assert list(design.prefixed("pack"))
    assert judged.evaluate([design])[0].status == "ok"


def test_a_wrong_program_and_an_illegal_design_are_outcomes():
    sizes, machine = {"M": 21, "D": 64}, Machine.named("h100")
    right, wrong = (
        Subject.of(getattr(operators, n), sizes, "bf16", machine=machine, threads=1) for n in ("silu", "gelu")
    )
    mixed = ModelJudge(replace(right, program=wrong.program))
    design = default_design(wrong.kernel, wrong.facts)
    assert mixed.evaluate([design])[0].status == "wrong"
    (outcome,) = mixed.evaluate([Design.of({"tile.q": 3})])
    assert outcome.status == "illegal" and "q" in outcome.reason
