"""Values on a dataflow machine: right ones pass, wrong programs are caught, and long runs are not begun."""

from __future__ import annotations

import pytest

from tilewright import operators
from tilewright.design.design import Design
from tilewright.errors import ArgumentError, VerificationError
from tilewright.lower.dataflow.stages import lower_dataflow
from tilewright.machines import Machine
from tilewright.machines.dataflow import DataflowArray
from tilewright.runtime.subject import Subject
from tilewright.simulate.dataflow.timing import Timing
from tilewright.simulate.dataflow.values import firings, quick, verified
from tilewright.simulate.kinds import simulate
from tilewright.simulate.simulation import Job

from .machine import SUMMED, lowered

MACHINE = Machine.named("sn40l")
ARRAY = DataflowArray.of(MACHINE)
SIZES = {"M": 21, "D": 19}


def subject(name: str) -> Subject:
    return Subject.of(getattr(operators, name), SIZES, "f32", machine=MACHINE, threads=1)


def timing(name: str, **decisions: int) -> Timing:
    kernel = getattr(operators, name).kernel.trace("f32")
    return Timing(lower_dataflow(kernel, Design.of(decisions), "sn40l"), SIZES, ARRAY)


def test_a_program_that_computes_something_else_is_caught():
    verified(subject("silu"), timing("silu"))
    with pytest.raises(VerificationError):
        verified(subject("silu"), timing("gelu"))


def test_firings_are_counted_through_all_loops():
    kernel = lowered(SUMMED, tile__m=4, tile__n=8)
    one, four = (firings(Timing(kernel, {"M": m, "N": 32}, ARRAY), kernel.body, {}) for m in (4, 16))
    assert four == pytest.approx(4 * one, rel=0.2) and one >= 4


def test_long_runs_are_not_begun():
    small = timing("silu")
    assert quick(small, 1e6) and not quick(small, 1e12)
    assert not quick(Timing(small.kernel, {"M": 10_000, "D": 10_000}, ARRAY), 1e6)


@pytest.mark.parametrize("name, sizes", [
    ("matmul", {"M": 70, "N": 50, "K": 90}), ("softmax", {"M": 33, "D": 70}),
    ("attention", {"B": 1, "H": 2, "G": 2, "S": 9, "T": 40, "D": 16, "E": 16}),
])  # fmt: skip
def test_the_command_computes_values_where_that_is_quick(name, sizes):
    found = simulate(Job(name, MACHINE, sizes))
    assert "right" in found.number("values")
    assert simulate(Job(name, MACHINE, sizes, options={"values": "no"})).number("values") == "not computed"


@pytest.mark.parametrize(
    "options, says", [({"values": "maybe"}, "yes, no or auto"), ({"colour": "1"}, "no option .colour.")]
)
def test_other_settings_are_refused(options, says):
    with pytest.raises(ArgumentError, match=says):
        simulate(Job("softmax", MACHINE, {"M": 3, "D": 7}, options=options))
