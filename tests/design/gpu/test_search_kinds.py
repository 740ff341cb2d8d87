"""Searches on a GPU begin with one design of each kind: a model that is wrong about a whole kind is found out."""

import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[2] / "lower" / "gpu"))
from products import facts, traced

from tilewright.design.cost import estimate
from tilewright.design.default import default_design
from tilewright.design.search import search
from tilewright.design.space import pool
from tilewright.design.strategies import Candidate, first_of_kinds, kind_of
from tilewright.design.trial import Budget, Outcome, Standing


def problem(**sizes):
    kernel = traced("matmul")
    known = facts(kernel, machine="h200", **sizes)
    return kernel, known, lambda design: estimate(kernel, design, known).seconds


class Exact:
    """Times as they are, without noise."""

    def __init__(self, seconds):
        self.seconds = seconds

    def evaluate(self, designs):
        return [Outcome("ok", s, (s,) * 9, 0.001) for s in map(self.seconds, designs)]

    def compare(self, designs):
        of_first = self.seconds(designs[0])
        return [
            Standing(d, s, s / of_first, s / of_first, s / of_first, 0.001) for d in designs for s in (self.seconds(d),)
        ]


@pytest.mark.parametrize("sizes", [{"M": 16, "N": 2048, "K": 2048}, {"M": 128, "N": 2048, "K": 8192}], ids=str)
def test_a_kind_that_the_model_rates_too_dear_is_found(sizes):
    kernel, known, model = problem(**sizes)
    considered = pool(kernel, known, model, 384)
    missed = kind_of(next(d for d in considered if d.get("split.k") == 2 and d.get("how.k") == "cluster"))

    def seconds(design):
        return model(design) * (0.7 if kind_of(design) == missed else 1.0)

    found = search(kernel, known, Exact(seconds), model=model, budget=Budget(trials=32))
    assert len(found.trials) == 32
    assert seconds(found.winner) <= 1.03 * min(map(seconds, considered))


def test_the_first_trials_are_of_different_kinds():
    kernel, known, model = problem(M=16, N=4096, K=4096)
    found = search(kernel, known, Exact(model), model=model, budget=Budget(trials=9))
    kinds = [kind_of(t.design) for t in found.trials[1:]]
    assert len(set(kinds)) == len(kinds) >= 6


def test_no_kind_is_tried_that_has_no_hope_and_one_kind_alone_is_none():
    kernel, known, model = problem(M=16, N=4096, K=4096)
    candidates = [Candidate(d, model(d)) for d in pool(kernel, known, model, 64)]
    first = first_of_kinds(candidates, 4)
    assert 1 < len(first) <= 4 and first[0].predicted == min(c.predicted for c in candidates)
    assert all(c.predicted <= 1.35 * first[0].predicted for c in first)
    default = default_design(kernel, known)
    assert first_of_kinds([c for c in candidates if kind_of(c.design) == kind_of(default)], 4) == []
