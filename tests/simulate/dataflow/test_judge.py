"""A dataflow machine as the judge of a search: better designs are found, with right values; others are refused."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest

from tilewright import operators
from tilewright.design.design import Design
from tilewright.design.mutations import steps
from tilewright.design.search import search
from tilewright.design.trial import Budget
from tilewright.errors import IllegalDesign
from tilewright.machines import Machine
from tilewright.runtime.subject import Subject
from tilewright.simulate.dataflow.judge import DataflowJudge, scheduled, subject_on
from tilewright.simulate.dataflow.place import default_dataflow
from tilewright.simulate.kinds import simulate
from tilewright.simulate.simulation import Job

SN40L = Machine.named("sn40l")
PRODUCT = {"M": 512, "N": 1024, "K": 1024}


def judged(name: str, sizes: dict[str, int], trials: int):
    judge = DataflowJudge(subject_on(SN40L, name, sizes, None))
    subject = judge.subject
    return judge, search(
        subject.kernel, subject.facts, judge, model=judge.seconds, budget=Budget(trials=trials),
        completed=judge.completed,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("name", "sizes", "at_most"),
    [("matmul", PRODUCT, 0.7), ("rmsnorm", {"M": 1024, "D": 4096}, 0.8)],
)
def test_a_search_finds_a_better_pipeline_than_the_default(name, sizes, at_most):
    judge, found = judged(name, sizes, 10)
    assert found.trials[0].design == default_dataflow(judge.subject.kernel, sizes, judge.array)
    assert found.seconds < at_most * found.default_seconds
    assert found.seconds == judge.simulated(found.winner)
    assert {t.outcome.status for t in found.trials} == {"ok"}


def test_what_is_found_is_simulated_by_the_command():
    _, found = judged("softmax", {"M": 256, "D": 256}, 9)
    told = simulate(Job("softmax", SN40L, {"M": 256, "D": 256}, options={"design": found.winner.to_json()}))
    assert told.seconds == pytest.approx(found.seconds)
    assert "right" in str(told.number("values"))
    assert json.loads(str(told.number("design"))) == json.loads(found.winner.to_json())


def test_every_neighbour_fits_and_keeps_the_meaning_or_says_why():
    judge = DataflowJudge(subject_on(SN40L, "softmax", {"M": 48, "D": 80}, None))
    start = judge.completed(Design.of({"tile.m": 16, "tile.d": 16, "tile.d1": 32, "tile.d2": 16}))
    seen = [judge.completed(d) for _, d in steps(judge.subject.kernel, start, judge.subject.facts)]
    outcomes = judge.evaluate(list(dict.fromkeys(seen)))
    assert len(outcomes) > 40
    assert {o.status for o in outcomes} <= {"ok", "illegal"}
    assert sum(o.status == "ok" for o in outcomes) > 0.6 * len(outcomes)
    for outcome in outcomes:
        assert outcome.seconds if outcome.status == "ok" else "compute units" in outcome.reason


def test_a_wrong_program_is_an_outcome():
    sizes = {"M": 21, "D": 19}
    right, wrong = (Subject.of(getattr(operators, n), sizes, "f32", machine=SN40L, threads=1) for n in ("silu", "gelu"))
    assert DataflowJudge(right).evaluate([Design()])[0].status == "ok"
    mixed = DataflowJudge(replace(right, program=wrong.program))
    assert mixed.evaluate([Design()])[0].status == "wrong"


def test_what_is_left_open_is_placed_and_what_changes_nothing_is_dropped():
    judge = DataflowJudge(subject_on(SN40L, "matmul", PRODUCT, None))
    full = judge.completed(Design.of({"tile.m": 64, "tile.n": 64, "tile.k": 64}))
    assert full.number("tile.m") == 64 and full.number("par.m") and full.number("units.dot0") > 1
    assert judge.completed(full) == full
    idle = Design.of({**dict(full.decisions), "carry.acc0": "owner", "stages.dot0": 2, "buffer.add0": True})
    kept = Design.of({**dict(full.decisions), "stages.a0": 5})
    assert judge.completed(idle) == full
    assert judge.completed(kept) == kept


@pytest.mark.parametrize(
    ("decisions", "message"),
    [
        ({"units.dott0": 4}, "no such stage; there are"),
        ({"stages.add0": 4}, "no buffer holds it; acc0, a0, b0, dot0 crosses stages"),
        ({"tile.q": 4}, "no axis with tiles q"),
        ({"tile.m": 512, "tile.n": 1024, "tile.k": 1024, "stages.a0": 600}, "memory units of 1040; a0_buf takes most"),
        ({"tile.m": 16, "units.dot0": 2000}, "compute units of 1040; stage dot0"),
    ],
)
def test_what_does_not_fit_or_has_no_effect_is_named_with_the_fix(decisions, message):
    subject = subject_on(SN40L, "matmul", PRODUCT, None)
    with pytest.raises(IllegalDesign, match=message):
        scheduled(subject, Design.of(decisions))
    judge = DataflowJudge(subject)
    (outcome,) = judge.evaluate([Design.of(decisions)])
    assert outcome.status == "illegal" and judge.seconds(Design.of(decisions)) == math.inf
