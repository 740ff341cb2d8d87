"""What the benches of GPUs share: a failed case says why, others go on; kernels are judged after they were timed."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from tilewright.bench.gpu_case import checked, each_case
from tilewright.bench.result import Result
from tilewright.errors import TilewrightError, VerificationError


@dataclass(frozen=True)
class Named:
    name: str
    family: str = "some"


def test_a_case_that_fails_says_why_and_the_run_goes_on():
    def measured(case):
        if case.name == "bad":
            raise TilewrightError("out of memory")
        return Result(case.family, case.name, 1, metrics={"us": 1.0})

    found = list(each_case([Named("first"), Named("bad"), Named("last")], measured))
    assert [(r.name, r.error) for r in found] == [("first", None), ("bad", "out of memory"), ("last", None)]


def test_a_mistake_of_the_bench_itself_is_not_hidden():
    with pytest.raises(ZeroDivisionError):
        list(each_case([Named("one")], lambda case: 1 // 0))


class Operands:
    """One number to be doubled."""

    def __init__(self):
        self.given, self.result = 1, 2

    def redraw(self):
        self.given = 5

    def poison(self):
        self.result = None

    def check(self):
        if self.result != 2 * self.given:
            raise VerificationError("wrong")


def test_a_kernel_that_replays_or_writes_nothing_is_found_after_timing():
    operands = Operands()
    checked(operands, lambda: setattr(operands, "result", 2 * operands.given))
    with pytest.raises(VerificationError):
        checked(operands, lambda: None)
    with pytest.raises(VerificationError):
        checked(operands, lambda: setattr(operands, "result", 2))
