"""What a user sees: the estimate first, then each result."""

from __future__ import annotations

import pytest

from tilewright.bench import console
from tilewright.bench.plan import Request, plan
from tilewright.bench.result import Result
from tilewright.errors import ArgumentError

SOFTMAX = Result("rows", "softmax f32 4096x4096", 1, {"ratio": 1.5, "bandwidth": 0.9})


@pytest.mark.parametrize("quiet", [False, True])
def test_an_estimate_then_results(capsys, quiet):
    assert console.watch(plan(Request((1,), "softmax f32*")), iter([SOFTMAX]), quiet) == [SOFTMAX]
    said = capsys.readouterr()
    assert said.out == ""
    assert "1 results, about " in said.err
    assert ("1.50x  90% of bandwidth" in said.err) is not quiet


def test_what_fits_nothing_is_refused_before_anything_runs():
    with pytest.raises(ArgumentError, match="decode_linear, rows, rows_best, compile, memory, decoder, startup"):
        plan(Request((1,), "sofmax"))


def test_a_failed_case_says_why():
    assert console.summary(Result("rows", "rope", 2, error="far off")).endswith("far off")
