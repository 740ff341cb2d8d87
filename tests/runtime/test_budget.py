"""Budgets and objectives as people write them."""

from __future__ import annotations

import pytest

from tilewright.design.trial import Budget, Objective
from tilewright.errors import ArgumentError
from tilewright.runtime.budget import parse_budget, parse_objective


@pytest.mark.parametrize(
    ("text", "budget"),
    [
        ("60s", Budget(60.0)),
        ("2 m", Budget(120.0)),
        ("500ms", Budget(0.5)),
        ("16 trials", Budget(None, 16)),
        ("1 trial", Budget(None, 1)),
        ("1.5h, 100 trials", Budget(5400.0, 100)),
    ],
)
def test_budgets(text, budget):
    assert parse_budget(text) == budget
    assert parse_budget(budget) == budget


@pytest.mark.parametrize("text", ["", "soon", "60", "0s", "0 trials", "-1s", "16 trails"])
def test_what_is_no_budget_is_refused(text):
    with pytest.raises(ArgumentError, match='write "60s"'):
        parse_budget(text)


def test_objectives():
    assert parse_objective("latency") == Objective("latency")
    assert parse_objective("throughput") == Objective("throughput")
    target = parse_objective("latency", "50us")
    assert target.kind == "target" and target.seconds == pytest.approx(50e-6)
    assert parse_objective("latency", 1e-3) == Objective("target", 1e-3)
    with pytest.raises(ArgumentError, match="it is latency or throughput"):
        parse_objective("speed")
    with pytest.raises(ArgumentError, match='write "50us"'):
        parse_objective("latency", "fast")
